"""Speed of `algdistill`, beside baselines measured in the same run on one thread.

    python benchmarks/algorithm_distillation.py [--json]

Prints one row for each measurement; with ``--json`` one object ``{"rows": [...]}``.
"""

import argparse
import time
from collections.abc import Callable
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from stable_baselines3 import A2C, DQN
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.preprocessing import get_flattened_obs_dim
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor
from stable_baselines3.common.vec_env import DummyVecEnv
from timing import Row, interleaved, row, show
from torch import Tensor, nn

from algdistill.agents import InContextAgent
from algdistill.histories import LearningHistory, WindowSampler
from algdistill.models import ADTransformer, ADTransformerConfig
from algdistill.sources import (
    UCB1,
    ActorCritic,
    ActorCriticConfig,
    DeepQLearning,
    DeepQLearningConfig,
    GoalSearch,
    GoalSearchConfig,
    NoisyOracle,
    NoisyOracleConfig,
    SourceFleet,
    TabularQLearning,
    TabularQLearningConfig,
    ThompsonSampling,
    ThompsonSamplingConfig,
    UCB1Config,
)
from algdistill.tasks import TaskSpace
from algdistill.tasks_fake import GridTasks, dark_room_tasks
from algdistill.timesteps import TimestepBatch
from algdistill.training import action_loss
from dark_room import PlainDarkRoom
from vlmreward_envs.adversarial_bandit import AdversarialBanditTasks, draw_arm_probabilities
from vlmreward_envs.dark_room import DarkRoomTasks

CONTEXT = 80
LONG_CONTEXT = 1280
PRECISIONS = ("fp32", "bf16")
NUM_LEARNERS = 2600
WIDTH = 32


def collect(num_learners: int, num_episodes: int) -> list[LearningHistory]:
    """Histories of Q-learners in Dark Rooms."""
    goals = torch.arange(num_learners) % 81
    tasks = GridTasks(dark_room_tasks().cell_rewards[goals])
    config = TabularQLearningConfig(num_episodes=num_episodes)
    return TabularQLearning(tasks, config, torch.arange(num_learners)).train()


def one_learner_in_a_loop(num_episodes: int) -> int:
    """One Q-learner in one Gymnasium environment, its table an array, its steps in lists.

    It updates once a step; the fleet, which replays its episodes, twice.
    """
    rng = np.random.default_rng(0)
    env = PlainDarkRoom((7, 1))
    table = np.zeros((9, 9, 5))
    observations, actions, rewards = [], [], []
    for episode in range(num_episodes):
        epsilon = max(1.0 - 2.0 * episode / num_episodes, 0.0)
        obs, _ = env.reset()
        truncated = False
        while not truncated:
            values = table[obs[0], obs[1]]
            explores = rng.random() < epsilon
            action = int(
                rng.integers(5) if explores else rng.choice(np.flatnonzero(values == values.max()))
            )
            next_obs, reward, _, truncated, _ = env.step(action)
            target = reward + 0.9 * table[next_obs[0], next_obs[1]].max()
            table[obs[0], obs[1], action] += target - values[action]
            observations.append(obs)
            actions.append(action)
            rewards.append(reward)
            obs = next_obs
    return len(observations)


def source_rows() -> list[Row]:
    """Steps of source learners, recorded: the processor's seconds in the fastest of some rounds."""
    ids = torch.arange(NUM_LEARNERS)
    rooms = DarkRoomTasks(ids % 81)
    bandits = AdversarialBanditTasks(ids, ids, draw_arm_probabilities(ids))
    fleets = {
        "Q-learning": TabularQLearning(rooms, TabularQLearningConfig(), ids),
        "noisy oracle": NoisyOracle(rooms, NoisyOracleConfig(), ids),
        "search": GoalSearch(rooms, GoalSearchConfig(), ids),
        "UCB1": UCB1(bandits, UCB1Config(), ids),
        "Thompson sampling": ThompsonSampling(bandits, ThompsonSamplingConfig(), ids),
    }

    def train(fleet: SourceFleet[Any]) -> Callable[[], int]:
        return lambda: sum(len(history) for history in fleet.train())

    baseline = "one Q-learner in a loop"
    works = {f"{name}, {NUM_LEARNERS:,}": train(fleet) for name, fleet in fleets.items()}
    speeds = interleaved(
        {baseline: lambda: one_learner_in_a_loop(400), **works},
        num_rounds=5,
        clock=time.process_time,
    )
    plain = speeds.pop(baseline)
    return [row(name, "steps/CPU-s", speed, baseline, plain) for name, speed in speeds.items()]


class SharedPerceptron(BaseFeaturesExtractor):
    """The fleets' network for SB3, which has already encoded observations one-hot."""

    def __init__(self, observation_space: gym.Space[Any], width: int) -> None:
        super().__init__(observation_space, width)
        num_inputs = get_flattened_obs_dim(observation_space)
        self.layers = nn.Sequential(
            nn.Linear(num_inputs, width), nn.Tanh(), nn.Linear(width, width), nn.Tanh()
        )

    def forward(self, observations: Tensor) -> Tensor:
        """Return what all outputs share."""
        return self.layers(observations)


def one_learner() -> dict[str, Any]:
    """What SB3's learners share: a room, the fleets' network and a seed."""
    return {
        "policy": "MlpPolicy",
        "env": DummyVecEnv([lambda: Monitor(PlainDarkRoom((7, 1)))]),
        "policy_kwargs": {
            "features_extractor_class": SharedPerceptron,
            "features_extractor_kwargs": {"width": WIDTH},
            "net_arch": [],
        },
        "seed": 0,
        "device": "cpu",
    }


def beside_sb3(name: str, fleet: SourceFleet[Any], agent: BaseAlgorithm, num_steps: int) -> Row:
    """Steps of a fleet, recorded, beside those of one learner, ``num_steps`` a round."""

    def train_agent() -> int:
        agent.learn(num_steps)
        return num_steps

    speeds = interleaved(
        {name: lambda: sum(len(history) for history in fleet.train()), "sb3": train_agent},
        num_rounds=4,
        clock=time.process_time,
    )
    baseline = f"SB3's {type(agent).__name__}, one learner, same network"
    return row(name, "steps/CPU-s", speeds[name], baseline, speeds["sb3"])


def actor_critic_row() -> Row:
    """Actor-critics beside SB3's A2C."""
    ids = torch.arange(1000)
    config = ActorCriticConfig(num_episodes=10, hidden_size=WIDTH, num_layers=2, rollout_length=20)
    fleet = ActorCritic(DarkRoomTasks(ids % 81), config, ids)
    agent = A2C(n_steps=config.rollout_length, **one_learner())
    return beside_sb3(f"actor-critic, {WIDTH}x{WIDTH}, {len(ids):,}", fleet, agent, 2000)


def deep_q_learning_row() -> Row:
    """Deep Q-learners beside SB3's DQN, which takes as many steps and learns from as many."""
    ids = torch.arange(250)
    config = DeepQLearningConfig(num_episodes=20, hidden_size=WIDTH, num_layers=2)
    fleet = DeepQLearning(DarkRoomTasks(ids % 81), config, ids)
    agent = DQN(
        buffer_size=config.replay_capacity,
        learning_starts=config.batch_size,
        batch_size=config.batch_size,
        train_freq=config.update_interval,
        target_update_interval=config.update_interval * config.target_interval,
        tau=config.target_rate,
        **one_learner(),
    )
    name = f"deep Q-learning, {WIDTH}x{WIDTH}, {len(ids):,}"
    return beside_sb3(name, fleet, agent, fleet.num_steps)


def transformer(context_length: int) -> ADTransformer:
    """A model of the default shape, untrained."""
    config = ADTransformerConfig(TaskSpace.symbolic((9, 9), 5), context_length=context_length)
    return ADTransformer(config, torch.Generator().manual_seed(0))


class StockTransformer(nn.Module):
    """The same shape out of torch's own encoder layers."""

    def __init__(self, model: ADTransformer) -> None:
        super().__init__()
        config = model.config
        self.tokens = model.encoder
        layer = nn.TransformerEncoderLayer(
            config.embed_dim, config.num_heads, config.mlp_dim, 0.0, "gelu",
            batch_first=True, norm_first=True,
        )  # fmt: skip
        self.layers = nn.TransformerEncoder(layer, config.num_layers, enable_nested_tensor=False)
        self.head = nn.Linear(config.embed_dim, config.space.num_actions)
        self.register_buffer("mask", nn.Transformer.generate_square_subsequent_mask(CONTEXT))

    def forward(self, steps: TimestepBatch, masked: Tensor) -> Tensor:
        """Logits of every step; masking is left out, in the baseline's favour."""
        del masked
        return self.head(self.layers(self.tokens(steps), mask=self.mask, is_causal=True))


def training_rows(model: ADTransformer, histories: list[LearningHistory]) -> list[Row]:
    """Time steps trained on, in either precision."""
    sampler = WindowSampler(
        histories, window_length=CONTEXT, start_fraction=0.2, generator=np.random.default_rng(0)
    )
    generator = torch.Generator().manual_seed(0)

    def update(trained: nn.Module, precision: str = "fp32") -> Callable[[], int]:
        optimizer = torch.optim.AdamW(trained.parameters(), lr=1e-4, fused=True)

        def work() -> int:
            batch = sampler.sample(64)
            masked = torch.rand(batch.actions.shape, generator=generator) < 0.3
            with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"):
                logits = trained(batch.steps, masked)
            loss, _ = action_loss(logits.float(), batch.actions, masked)
            optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(trained.parameters(), 1.0)
            optimizer.step()
            return masked.numel()

        return work

    works = {f"training, context {CONTEXT}, {name}": update(model, name) for name in PRECISIONS}
    baseline = "torch's encoder layers"
    speeds = interleaved(
        {baseline: update(StockTransformer(model)), **works}, num_rounds=40, clock=time.process_time
    )
    plain = speeds.pop(baseline)
    return [row(name, "targets/CPU-s", speed, baseline, plain) for name, speed in speeds.items()]


def acting(context_length: int, drop_length: int, num_tasks: int) -> Callable[[], int]:
    """Act for as long as it takes to drop once what a full context then holds too much of."""
    agent = InContextAgent(transformer(context_length), drop_length=drop_length)
    agent.reset(num_tasks, torch.Generator().manual_seed(0))
    obs = torch.zeros(num_tasks, 2, dtype=torch.long)
    rewards, ended = torch.zeros(num_tasks), torch.zeros(num_tasks, dtype=torch.bool)

    def work(num_steps: int = drop_length) -> int:
        for _ in range(num_steps):
            agent.observe(agent.act(obs), rewards, ended)
        return num_steps * num_tasks

    work(context_length)
    return work


def acting_rows() -> list[Row]:
    """Steps acted in context, the context full and sliding, by one thread and by two."""
    num_tasks = 128
    model = transformer(CONTEXT)
    steps = WindowSampler(
        collect(num_tasks, 10),
        window_length=CONTEXT,
        start_fraction=1.0,
        generator=np.random.default_rng(0),
    )

    @torch.no_grad()
    def recomputed() -> int:
        model(batch.steps)
        return num_tasks

    batch, rows = steps.sample(num_tasks), []
    for num_threads in (1, 2):
        torch.set_num_threads(num_threads)
        speeds = interleaved(
            {
                "recomputed": recomputed,
                "drops 20": acting(CONTEXT, 20, num_tasks),
                "drops 40": acting(CONTEXT, 40, num_tasks),
            },
            num_rounds=20,
        )
        plain = speeds.pop("recomputed")
        for name, speed in speeds.items():
            title = f"acting, {num_tasks} tasks, context {CONTEXT}, {name}, {num_threads} threads"
            rows.append(row(title, "steps/s", speed, "no cache", plain))
    torch.set_num_threads(1)
    return rows


def long_context_rows() -> list[Row]:
    """Steps acted with a long context, of which half is dropped, beside a short one."""
    rows = []
    for num_tasks in (1, 16, 128):
        speeds = interleaved(
            {
                "short": acting(CONTEXT, CONTEXT // 2, num_tasks),
                "long": acting(LONG_CONTEXT, LONG_CONTEXT // 2, num_tasks),
            },
            num_rounds=2,
        )
        title = f"acting, {num_tasks} tasks, context {LONG_CONTEXT:,}"
        rows.append(row(title, "steps/s", speeds["long"], f"context {CONTEXT}", speeds["short"]))
    return rows


def main() -> None:
    """Measure everything and print it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    as_json: bool = parser.parse_args().json
    torch.set_num_threads(1)
    histories = collect(500, 40)
    rows = [
        *source_rows(),
        actor_critic_row(),
        deep_q_learning_row(),
        *training_rows(transformer(CONTEXT), histories),
        *acting_rows(),
        *long_context_rows(),
    ]
    show(rows, as_json=as_json)


if __name__ == "__main__":
    main()
