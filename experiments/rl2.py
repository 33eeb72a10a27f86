"""RL² (Duan et al. 2016; Wang et al. 2016): a recurrent policy that is trained online to learn.

A trial is several episodes in one training task. At every step the policy reads the observation,
the previous action, what it was paid, and whether an episode begins; its hidden state lasts from
the first step of a trial to the last, and is cleared between trials. PPO on the rewards of whole
trials makes it explore first and then do what paid.

RL²: `arXiv 1611.02779 <https://arxiv.org/abs/1611.02779>`_; learning to reinforcement learn:
`arXiv 1611.05763 <https://arxiv.org/abs/1611.05763>`_. The recurrent PPO is sb3-contrib's.

Axis letter: ``N`` tasks side by side.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from gymnasium import spaces
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space
from jaxtyping import Int64
from numpy.typing import NDArray
from safetensors.torch import load_file, save
from sb3_contrib import RecurrentPPO
from stable_baselines3.common.running_mean_std import RunningMeanStd
from stable_baselines3.common.vec_env import VecNormalize
from torch import Tensor

from algdistill.tasks import BatchedTasks, TaskSpace
from rl2_agent import PolicyInputs, RL2Agent, TrialPolicy
from run_folder import write_atomically
from vlmreward.wrappers.sb3 import VectorEnvAdapter

Ids = Int64[Tensor, " N"]


@dataclass(frozen=True)
class RL2Config:
    """Settings of the policy and of its training.

    Attributes:
        num_updates: Rollouts, each followed by ``num_epochs`` passes over it.
        evaluate_every: Updates between two evaluations; the best policy is kept.
        num_trials: Trials side by side, one of each in every rollout.
        episodes_per_trial: Episodes in one task before the hidden state is cleared.
        hidden_size: Width of the LSTM of the policy, and of that of the value.
        num_epochs: Passes over each rollout.
        num_minibatches: Steps of Adam in each pass.
        learning_rate: Of Adam.
        discount: Gamma, which reaches across the episodes of a trial.
        gae_lambda: Lambda of the advantages.
        entropy_coefficient: Weight of the policy's entropy, in nats.

    Raises:
        ValueError: If there is not one evaluation.
    """

    num_updates: int
    evaluate_every: int
    num_trials: int = 64
    episodes_per_trial: int = 10
    hidden_size: int = 128
    num_epochs: int = 4
    num_minibatches: int = 4
    learning_rate: float = 1e-3
    discount: float = 0.99
    gae_lambda: float = 0.95
    entropy_coefficient: float = 0.01

    def __post_init__(self) -> None:
        if not 1 <= self.evaluate_every <= self.num_updates:
            raise ValueError(
                f"got evaluate_every={self.evaluate_every}, expected 1 to num_updates="
                f"{self.num_updates}"
            )


class TrialEnv(VectorEnv[Any, Any, Any]):
    """Trials side by side, which begin and end together; every one draws a task of its own.

    Args:
        make_tasks: Makes tasks of their ids and random streams.
        ids: Tasks to draw from.
        config: How many trials, and of how many episodes.

    Attributes:
        space: What tasks show and take.
        steps_per_trial: Steps until the next trial.
    """

    metadata: ClassVar[dict[str, Any]] = {"autoreset_mode": AutoresetMode.SAME_STEP}

    def __init__(
        self, make_tasks: Callable[[Ids, Ids], BatchedTasks], ids: Ids, config: RL2Config
    ) -> None:
        self._make_tasks, self._ids = make_tasks, ids
        tasks = make_tasks(ids[:1], ids[:1])
        self.space = TaskSpace.of(tasks)
        self.steps_per_trial = config.episodes_per_trial * tasks.episode_length
        self.num_envs = config.num_trials
        self._inputs = PolicyInputs(self.space)
        self.single_observation_space, self.single_action_space = _sb3_spaces(self.space)
        self.observation_space = batch_space(self.single_observation_space, self.num_envs)
        self.action_space = batch_space(self.single_action_space, self.num_envs)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[NDArray[np.float32], dict[str, Any]]:
        """Draw tasks and begin a trial in each."""
        super().reset(seed=seed)
        return self._begin(), {}

    def step(self, actions: NDArray[np.int64]) -> tuple[Any, Any, Any, Any, dict[str, Any]]:
        """Act in every task; the last step of a trial begins the next."""
        taken = torch.as_tensor(actions)
        result = self._tasks.step(taken)
        ended = result.terminated | result.truncated
        self._inputs.observe(taken, result.reward, ended)
        self._num_steps += 1
        is_over = self._num_steps == self.steps_per_trial
        obs = self._inputs.vectors(result.obs).numpy()
        infos = {"final_obs": list(obs)} if is_over else {}
        over = np.full(self.num_envs, is_over)
        return (
            self._begin() if is_over else obs,
            result.reward.numpy(),
            over,
            np.zeros_like(over),
            infos,
        )

    def _begin(self) -> NDArray[np.float32]:
        drawn = self.np_random.integers(len(self._ids), size=self.num_envs)
        streams = self.np_random.integers(2**62, size=self.num_envs)
        self._tasks = self._make_tasks(self._ids[drawn], torch.from_numpy(streams))
        self._num_steps = 0
        self._inputs.reset(self.num_envs)
        return self._inputs.vectors(self._tasks.reset()).numpy()


def train_rl2(
    make_tasks: Callable[[Ids, Ids], BatchedTasks],
    ids: Ids,
    config: RL2Config,
    folder: Path,
    *,
    evaluate: Callable[[RL2Agent], float],
    seed: int,
) -> tuple[float, int]:
    """Train a policy and keep the best one in ``folder``.

    Args:
        make_tasks: Makes tasks of their ids and random streams.
        ids: Tasks to train on.
        config: Settings.
        folder: For ``best.safetensors``, ``checkpoint.pt`` and TensorBoard events. Training that
            was killed continues from its last evaluation as if it had not been.
        evaluate: Measures an agent in held-out tasks; the higher the better.
        seed: Of the initial weights, the actions, and the tasks drawn.

    Returns:
        What the best policy was measured at, and after how many updates.
    """
    env = TrialEnv(make_tasks, ids, config)
    steps_per_update = env.steps_per_trial * config.num_trials
    normalized = VecNormalize(VectorEnvAdapter(env), norm_obs=False, gamma=config.discount)
    algorithm = RecurrentPPO(
        TrialPolicy,
        normalized,
        learning_rate=config.learning_rate,
        n_steps=env.steps_per_trial,
        batch_size=steps_per_update // config.num_minibatches,
        n_epochs=config.num_epochs,
        gamma=config.discount,
        gae_lambda=config.gae_lambda,
        ent_coef=config.entropy_coefficient,
        policy_kwargs=_policy_settings(config),
        tensorboard_log=str(folder),
        seed=seed,
        device="cpu",
    )
    folder.mkdir(parents=True, exist_ok=True)
    checkpoint = folder / "checkpoint.pt"
    best, best_update, done = -np.inf, 0, 0
    if checkpoint.exists():
        stored = torch.load(checkpoint, weights_only=True)
        best, best_update, done = stored["best"], stored["best_update"], stored["update"]
        _restore(algorithm, normalized.ret_rms, stored)
    for update in range(
        done + config.evaluate_every, config.num_updates + 1, config.evaluate_every
    ):
        # Trials begin anew with draws of their own: nothing but what is stored outlasts this.
        algorithm.set_random_seed(int(np.random.SeedSequence((seed, update)).generate_state(1)[0]))
        algorithm._last_obs = None
        algorithm.learn(config.evaluate_every * steps_per_update, reset_num_timesteps=False)
        measured = evaluate(RL2Agent(algorithm.policy, env.space))
        if measured > best:
            best, best_update = measured, update
            weights = save(algorithm.policy.state_dict())
            write_atomically(folder / "best.safetensors", weights)
        progress = {"best": best, "best_update": best_update, "update": update}
        content = BytesIO()
        torch.save(progress | _state(algorithm, normalized.ret_rms), content)
        write_atomically(checkpoint, content.getvalue())
    return best, best_update


def _state(algorithm: RecurrentPPO, scale: RunningMeanStd) -> dict[str, Any]:
    """What training goes on from, where trials begin."""
    return {
        "num_timesteps": algorithm.num_timesteps,
        "policy": algorithm.policy.state_dict(),
        "optimizer": algorithm.policy.optimizer.state_dict(),
        "return_scale": [float(scale.mean), float(scale.var), float(scale.count)],
    }


def _restore(algorithm: RecurrentPPO, scale: RunningMeanStd, stored: Mapping[str, Any]) -> None:
    algorithm.num_timesteps = stored["num_timesteps"]
    algorithm.policy.load_state_dict(stored["policy"])
    algorithm.policy.optimizer.load_state_dict(stored["optimizer"])
    mean, var, scale.count = stored["return_scale"]
    scale.mean, scale.var = np.float64(mean), np.float64(var)


def load_rl2(path: Path, space: TaskSpace, config: RL2Config, *, greedy: bool = False) -> RL2Agent:
    """The agent of a policy that `train_rl2` kept."""
    policy = TrialPolicy(*_sb3_spaces(space), lambda _: 0.0, **_policy_settings(config))
    policy.load_state_dict(load_file(path))
    return RL2Agent(policy, space, greedy=greedy)


def _policy_settings(config: RL2Config) -> dict[str, Any]:
    return {"lstm_hidden_size": config.hidden_size, "net_arch": []}


def _sb3_spaces(space: TaskSpace) -> tuple[spaces.Box, spaces.Discrete]:
    dim = PolicyInputs(space).dim
    return spaces.Box(-np.inf, np.inf, (dim,), np.float32), spaces.Discrete(space.num_actions)
