"""Time to learn a goal in words from pixels: everything on one device, beside SB3's PPO.

    python benchmarks/device_agent.py [--seeds 3] [--device cpu] [--as-json]

In the Playroom the shipped encoder shows each frame to the agent and pays it, in one forward pass.
All agents have the same network, discount, goal and reward; they learn until the ground truth was
reached in a given share of the last episodes. Episodes are counted after as many steps as two of
them last: before, only short ones would have ended, and these are the successful ones. SB3 learns
twice: with the settings of ``experiments/playroom.py``, and with those of the agent on the device.
"""

import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import gymnasium as gym
import torch
import tyro
from gymnasium.vector import AutoresetMode
from stable_baselines3 import PPO
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.preprocessing import get_flattened_obs_dim
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor
from timing import Row, row, show
from torch import Tensor, nn

from algdistill.sources import ActorCritic, ActorCriticConfig, RenderedTasks
from vlmreward import Goal, RewardModel, load_encoder
from vlmreward.wrappers.sb3 import VectorEnvAdapter, VecVLMReward
from vlmreward_envs.goal_tasks import GoalStep
from vlmreward_envs.playroom import (
    Action,
    Family,
    PlayroomConfig,
    PlayroomRooms,
    PlayroomVectorEnv,
    all_goals,
)
from vlmreward_envs.playroom.language import HOLDING_NOTHING

GOAL = "the person is holding the red ball"
EPISODE_LENGTH = 30
ROOMS = PlayroomConfig(num_objects=3)
WIDTH = 128
DISCOUNT = 0.95
MAX_STEPS = 150_000
COUNTED_EPISODES = 512
STEPS_BETWEEN_LOOKS = 8


@dataclass(frozen=True)
class Settings:
    """Of PPO."""

    num_rooms: int
    num_steps: int
    num_epochs: int
    batch_size: int
    learning_rate: float
    gae_lambda: float
    entropy_coefficient: float


EXPERIMENT = Settings(64, 32, 6, 512, 1e-3, 0.9, 0.01)
ON_DEVICE = Settings(128, 4, 8, 128, 2e-3, 0.95, 0.005)  # chosen on seeds 20 to 25


class PlayroomSimulator:
    """Playrooms with one goal, as `RenderedTasks` needs them."""

    num_actions = len(Action)
    episode_length = EPISODE_LENGTH

    def __init__(self, num_rooms: int, first_seed: int, device: str) -> None:
        self.rooms = PlayroomRooms(
            num_rooms, GOAL, config=ROOMS, max_episode_steps=EPISODE_LENGTH, device=device
        )
        self.num_tasks = num_rooms
        self.device = self.rooms.device
        self._seeds = first_seed + torch.arange(num_rooms, device=self.device)
        self._cells = torch.arange(ROOMS.grid_size, device=self.device)

    def restart(self) -> None:
        """Begin the first episode everywhere."""
        self.rooms.reset(self._seeds)

    def begin(self, ended: Tensor) -> None:
        """Begin the next episode where the last one ended."""
        self.rooms.reset(mask=ended)

    def step(self, actions: Tensor) -> GoalStep:
        """Act everywhere."""
        return self.rooms.step(actions)

    def render(self, rows: Tensor) -> Tensor:
        """Draw some rooms."""
        return self.rooms.render(rows)

    def known(self) -> Tensor:
        """Return each person's cell, x and y one-hot."""
        one_hot = self.rooms.state.position[..., None] == self._cells
        return one_hot.flatten(1).float()


class SharedPerceptron(BaseFeaturesExtractor):
    """The same network for SB3: two layers that policy and value share."""

    def __init__(self, observation_space: gym.spaces.Dict) -> None:
        super().__init__(observation_space, WIDTH)
        self._names = ("embedding", "position")
        num_inputs = sum(get_flattened_obs_dim(observation_space[name]) for name in self._names)
        self.layers = nn.Sequential(
            nn.Linear(num_inputs, WIDTH), nn.Tanh(), nn.Linear(WIDTH, WIDTH), nn.Tanh()
        )

    def forward(self, observations: dict[str, Tensor]) -> Tensor:
        """Return what policy and value share."""
        return self.layers(torch.cat([observations[name] for name in self._names], dim=1))


class Successes:
    """Says when the goal was reached in a given share of the last episodes.

    Args:
        num_rooms: Rooms whose steps are counted.
        target: Share of episodes.
    """

    def __init__(self, num_rooms: int, target: float) -> None:
        self.num_rooms = num_rooms
        self._target = target
        self._reached: Tensor | bool = False
        self._counts: list[Tensor] = []
        self._began = time.perf_counter(), time.process_time()
        self.rate = float("nan")
        self.num_steps = 0
        self.seconds = self.cpu_seconds = 0.0

    def count(self, env_rewards: Tensor, ended: Tensor) -> bool:
        """Count one step of all rooms, and say whether the target is reached."""
        reached = (env_rewards > 0) | self._reached
        self._counts.append(torch.stack([ended.sum(), (ended & reached).sum()]))
        self._reached = reached & ~ended
        self.num_steps += self.num_rooms
        if len(self._counts) % STEPS_BETWEEN_LOOKS:
            return False
        counts = torch.stack(self._counts)[2 * EPISODE_LENGTH :].flip(0).cumsum(0).cpu()
        self.seconds = time.perf_counter() - self._began[0]
        self.cpu_seconds = time.process_time() - self._began[1]
        enough = (counts[:, 0] >= COUNTED_EPISODES).nonzero()
        if not len(enough):
            return False
        episodes, successful = counts[enough[0, 0]].tolist()
        self.rate = successful / episodes
        return self.learned

    @property
    def learned(self) -> bool:
        """Whether the target is reached."""
        return self.rate >= self._target


class CountSuccesses(BaseCallback):
    """Stops SB3 when the target is reached."""

    def __init__(self, successes: Successes) -> None:
        super().__init__()
        self._successes = successes

    def _on_step(self) -> bool:
        env_rewards = torch.tensor([info["env_reward"] for info in self.locals["infos"]])
        return not self._successes.count(env_rewards, torch.from_numpy(self.locals["dones"]))


def train_sb3(reward_model: RewardModel, settings: Settings, seed: int, target: float) -> Successes:
    """Train SB3's PPO."""
    rooms = PlayroomVectorEnv(
        settings.num_rooms,
        GOAL,
        config=ROOMS,
        max_episode_steps=EPISODE_LENGTH,
        autoreset_mode=AutoresetMode.SAME_STEP,
    )
    envs = VectorEnvAdapter(rooms)
    envs.seed(seed * 10_000)
    agent = PPO(
        "MultiInputPolicy",
        VecVLMReward(envs, reward_model, terminate_on_success=True, observe="embedding"),
        n_steps=settings.num_steps,
        batch_size=settings.batch_size,
        n_epochs=settings.num_epochs,
        learning_rate=settings.learning_rate,
        gamma=DISCOUNT,
        gae_lambda=settings.gae_lambda,
        ent_coef=settings.entropy_coefficient,
        policy_kwargs={"features_extractor_class": SharedPerceptron, "net_arch": []},
        seed=seed,
        device=reward_model.encoder.device,
    )
    successes = Successes(settings.num_rooms, target)
    agent.learn(MAX_STEPS, callback=CountSuccesses(successes))
    return successes


def train_on_device(
    reward_model: RewardModel, settings: Settings, seed: int, target: float
) -> Successes:
    """Train the same agent without leaving the device."""

    def perceive(frames: Tensor) -> tuple[Tensor, Tensor]:
        scores = reward_model.score(frames)
        return scores.embedding, scores.reward

    simulator = PlayroomSimulator(
        settings.num_rooms, seed * 10_000, str(reward_model.encoder.device)
    )
    tasks = RenderedTasks(simulator, perceive, ends_when_paid=True)
    config = ActorCriticConfig(
        num_episodes=MAX_STEPS // (settings.num_rooms * EPISODE_LENGTH),
        num_actors=settings.num_rooms,
        hidden_size=WIDTH,
        num_layers=2,
        rollout_length=settings.num_steps,
        num_epochs=settings.num_epochs,
        num_minibatches=settings.num_rooms * settings.num_steps // settings.batch_size,
        learning_rate=settings.learning_rate,
        discount=DISCOUNT,
        gae_lambda=settings.gae_lambda,
        entropy_coefficient=settings.entropy_coefficient,
    )
    agent = ActorCritic(tasks, config, seed * 10_000 + tasks.task_ids)
    successes = Successes(settings.num_rooms, target)
    for _, _, result in agent.steps():
        if successes.count(result.env_reward, result.terminated | result.truncated):
            break
    return successes


def compare(
    name: str, runs: Sequence[Successes], baseline: str, others: Sequence[Successes]
) -> Iterator[Row]:
    """Speed, and goals learned in an hour of the clock and of the processor."""
    for unit, rate in {
        "steps/CPU-s": lambda found: total(found, "num_steps") / total(found, "cpu_seconds"),
        "goals/hour": lambda found: 3600 * total(found, "learned") / total(found, "seconds"),
        "goals/CPU-hour": lambda found: (
            3600 * total(found, "learned") / total(found, "cpu_seconds")
        ),
    }.items():
        yield row(name, unit, rate(runs), baseline, rate(others))


def total(runs: Sequence[Successes], name: str) -> float:
    """Sum over runs."""
    return float(sum(getattr(run, name) for run in runs))


def main(
    *,
    seeds: int = 3,
    target: float = 0.5,
    device: str = "cpu",
    num_threads: int = 2,
    as_json: bool = False,
) -> None:
    """Measure and print.

    Args:
        seeds: Agents of each kind, trained in turn.
        target: Share of episodes that reach the goal, by the ground truth.
        device: Of everything.
        num_threads: Of torch.
        as_json: Print one JSON object instead of a table.
    """
    torch.set_num_threads(num_threads)
    sentences = [goal.sentence for goal in all_goals(Family.LIFT)]
    others = [other for other in (*sentences, HOLDING_NOTHING) if other != GOAL]
    reward_model = RewardModel(
        load_encoder("playroom", device=device), Goal(GOAL, negative_prompts=others)
    )
    learners = {
        f"agent on {device}": (train_on_device, ON_DEVICE),
        "SB3's PPO, the experiment's settings": (train_sb3, EXPERIMENT),
        "SB3's PPO, the same settings": (train_sb3, ON_DEVICE),
    }
    runs: dict[str, list[Successes]] = {name: [] for name in learners}
    for seed in range(seeds):
        for name, (train, settings) in learners.items():
            run = train(reward_model, settings, seed, target)
            runs[name].append(run)
            print(
                f"{name}, seed {seed}: {run.seconds:.1f} s, {run.cpu_seconds:.1f} CPU-s, "
                f"{run.num_steps:,} steps, reached in {run.rate:.2f} of the last episodes",
                file=sys.stderr,
                flush=True,
            )
    own, *baselines = runs
    show(
        [line for name in baselines for line in compare(own, runs[own], name, runs[name])],
        as_json=as_json,
    )


if __name__ == "__main__":
    tyro.cli(main)
