"""Any Gymnasium environment whose seed decides its task, as a set of tasks.

Axis letters: ``N`` tasks, ``*obs`` and ``*action`` the shapes of an observation and of an action.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from gymnasium import spaces
from jaxtyping import Bool, Int, Shaped
from torch import Tensor

from algdistill.spaces import (
    ActionSpace,
    Continuous,
    Discrete,
    Embedding,
    ObservationSpace,
    Pixels,
    Symbolic,
)
from algdistill.tasks import StepResult


class GymnasiumTasks:
    """One Gymnasium environment for each task, stepped one after the other.

    Every episode of a task begins with ``env.reset(seed=task_id)``, so that it is the same task
    again, its chance included. Episodes last ``episode_length`` steps in every task: what an
    environment does after it has ended by itself is nothing, it shows its last observation and pays
    0. What it puts into ``info["env_reward"]`` is the ground truth, the reward elsewhere.

    Args:
        make_env: Makes one environment. It shows `Discrete` or `MultiDiscrete` numbers from 0,
            uint8 frames (H, W, 3), or float vectors, and takes `Discrete` actions from 0 or a
            bounded vector. Wrap it where it shows a `Dict`.
        task_ids: Seeds, one for each task.
        episode_length: Steps of an episode.

    Raises:
        ValueError: If there is no task, ``episode_length < 1``, or a space is of another kind.

    Example:
        >>> import gymnasium as gym
        >>> lakes = GymnasiumTasks(
        ...     lambda: gym.make("FrozenLake-v1", is_slippery=False), torch.arange(3), 20
        ... )
        >>> lakes.reset().tolist(), lakes.observation_sizes, lakes.num_actions
        ([[0], [0], [0]], (16,), 4)
    """

    def __init__(
        self,
        make_env: Callable[[], gym.Env[Any, Any]],
        task_ids: Int[Tensor, " N"],
        episode_length: int,
    ) -> None:
        if len(task_ids) == 0 or episode_length < 1:
            raise ValueError(
                f"got {len(task_ids)} task ids and episode_length={episode_length}, expected at "
                "least 1 of each"
            )
        self.task_ids = task_ids.cpu()
        self.num_tasks = len(task_ids)
        self.episode_length = episode_length
        self.device = torch.device("cpu")
        self._envs = [make_env() for _ in range(self.num_tasks)]
        self._observations = observation_space(self._envs[0].observation_space)
        self._actions = action_space(self._envs[0].action_space)
        if isinstance(self._observations, Symbolic):
            self.observation_sizes = self._observations.sizes
        else:
            self.observation_shape = self._observations.shape
            self.observation_dtype = self._observations.dtype
        if isinstance(self._actions, Discrete):
            self.num_actions = self._actions.num_actions
        else:
            self.action_dim = self._actions.dim
        self._num_steps = 0
        self._is_over = [False] * self.num_tasks
        self._obs: list[np.ndarray] = []

    def reset(self) -> Shaped[Tensor, " N *obs"]:
        """Begin the first episode of every task, which is like every other."""
        self._num_steps = 0
        self._is_over = [False] * self.num_tasks
        self._obs = [
            np.asarray(env.reset(seed=seed)[0])
            for env, seed in zip(self._envs, self.task_ids.tolist(), strict=True)
        ]
        return self._stacked()

    def step(self, actions: Shaped[Tensor, " N *action"]) -> StepResult:
        """Take one action in every task.

        Raises:
            RuntimeError: If there was no reset.
        """
        if not self._obs:
            raise RuntimeError("call `reset` before the first step")
        rewards = np.zeros((2, self.num_tasks), np.float32)
        for index, action in enumerate(self._taken(actions)):
            if not self._is_over[index]:
                rewards[:, index] = self._advance(index, action)
        self._num_steps += 1
        next_obs = self._stacked()
        ends = self._num_steps == self.episode_length
        return StepResult(
            obs=self.reset() if ends else next_obs,
            next_obs=next_obs,
            reward=torch.from_numpy(rewards[0]),
            env_reward=torch.from_numpy(rewards[1]),
            terminated=self._everywhere(False),
            truncated=self._everywhere(ends),
        )

    def close(self) -> None:
        """Close every environment."""
        for env in self._envs:
            env.close()

    def _advance(self, index: int, action: Any) -> tuple[float, float]:
        """Take an action in one environment; returns its reward and the ground truth."""
        obs, reward, terminated, truncated, info = self._envs[index].step(action)
        self._obs[index] = np.asarray(obs)
        self._is_over[index] = bool(terminated or truncated)
        return float(reward), float(_ground_truth(info, reward))

    def _taken(self, actions: Shaped[Tensor, " N *action"]) -> list[Any]:
        """Actions as the environments take them."""
        if isinstance(self._actions, Discrete):
            return actions.tolist()
        space = self._envs[0].action_space
        assert isinstance(space, spaces.Box)
        share = (actions.cpu().numpy() + 1.0) / 2.0
        return list((space.low + share * (space.high - space.low)).astype(space.dtype))

    def _stacked(self) -> Shaped[Tensor, " N *obs"]:
        stacked = torch.from_numpy(np.stack(self._obs)).to(self._observations.dtype)
        return stacked.reshape(self.num_tasks, *self._observations.shape)

    def _everywhere(self, value: bool) -> Bool[Tensor, " N"]:
        return torch.full((self.num_tasks,), value)


def observation_space(space: gym.Space[Any]) -> ObservationSpace:
    """Ours for Gymnasium's.

    Raises:
        ValueError: If there is none.
    """
    if isinstance(space, spaces.Discrete) and space.start == 0:
        return Symbolic((int(space.n),))
    if isinstance(space, spaces.MultiDiscrete) and not space.start.any():
        return Symbolic(tuple(space.nvec.flatten().tolist()))
    if isinstance(space, spaces.Box):
        is_frame = len(space.shape) == 3 and space.shape[2] == 3
        if space.dtype == np.uint8 and is_frame:
            return Pixels(*space.shape[:2])
        if np.issubdtype(space.dtype, np.floating) and len(space.shape) == 1:
            return Embedding(*space.shape)
    raise ValueError(
        f"got observations {space}, expected Discrete or MultiDiscrete that start at 0, uint8 "
        "frames (H, W, 3) or a vector of floats: wrap the environment"
    )


def action_space(space: gym.Space[Any]) -> ActionSpace:
    """Ours for Gymnasium's.

    Raises:
        ValueError: If there is none.
    """
    if isinstance(space, spaces.Discrete) and space.start == 0:
        return Discrete(int(space.n))
    if isinstance(space, spaces.Box) and len(space.shape) == 1 and space.is_bounded():
        return Continuous(*space.shape)
    raise ValueError(
        f"got actions {space}, expected Discrete that start at 0 or a bounded vector: wrap the "
        "environment"
    )


def _ground_truth(info: Mapping[str, Any], reward: Any) -> Any:
    return info.get("env_reward", reward)
