"""The one face `algdistill` asks of a set of tasks: many of them, stepped together.

Axis letters: ``N`` tasks, ``O`` components of a symbolic observation.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor


@runtime_checkable
class BatchedStep(Protocol):
    """What one action in every task led to, with same-step resets.

    When an action ends an episode, the task resets within the same call: ``obs`` is already the
    first observation of the next episode, while ``reward``, ``terminated`` and ``truncated`` still
    belong to the action just taken. There is no extra step between two episodes.

    Any object with these attributes will do; `StepResult` is one for those who have none.
    """

    @property
    def obs(self) -> Int[Tensor, "N O"]:
        """The observation to act on next."""
        ...

    @property
    def next_obs(self) -> Int[Tensor, "N O"]:
        """The observation the action led to, as a learning update needs it.

        It differs from `obs` only on rows that ended.
        """
        ...

    @property
    def reward(self) -> Float[Tensor, " N"]:
        """What the learner sees."""
        ...

    @property
    def env_reward(self) -> Float[Tensor, " N"]:
        """Ground truth, for logging only."""
        ...

    @property
    def terminated(self) -> Bool[Tensor, " N"]:
        """The task itself ended the episode: nothing of value lies beyond it."""
        ...

    @property
    def truncated(self) -> Bool[Tensor, " N"]:
        """A time limit cut the episode."""
        ...


@dataclass(frozen=True)
class StepResult:
    """A `BatchedStep` as plain data."""

    obs: Int[Tensor, "N O"]
    next_obs: Int[Tensor, "N O"]
    reward: Float[Tensor, " N"]
    env_reward: Float[Tensor, " N"]
    terminated: Bool[Tensor, " N"]
    truncated: Bool[Tensor, " N"]


@runtime_checkable
class BatchedTasks(Protocol):
    """``N`` tasks with one observation and action space, stepped together on one device."""

    @property
    def num_tasks(self) -> int:
        """``N``."""
        ...

    @property
    def num_actions(self) -> int:
        """Size of the discrete action space."""
        ...

    @property
    def observation_sizes(self) -> tuple[int, ...]:
        """Number of values of each observation component (as in `MultiDiscrete`)."""
        ...

    @property
    def episode_length(self) -> int:
        """Steps after which every episode is cut."""
        ...

    @property
    def task_ids(self) -> Int[Tensor, " N"]:
        """What tells one task from another; equal ids are the same task."""
        ...

    @property
    def device(self) -> torch.device:
        """Where observations and rewards live, and where actions are expected."""
        ...

    def reset(self) -> Int[Tensor, "N O"]:
        """Start over with the first episode of every task; chance repeats itself as well."""
        ...

    def step(self, actions: Int[Tensor, " N"]) -> BatchedStep:
        """Take one action in every task; see `BatchedStep` for what happens at episode ends."""
        ...


def flat_observation(
    obs: Int[Tensor, "*batch O"], observation_sizes: tuple[int, ...]
) -> Int[Tensor, "*batch"]:
    """Number the observations, first component slowest, from 0 to ``prod(sizes) - 1``."""
    index = obs[..., 0]
    for component, size in enumerate(observation_sizes[1:], start=1):
        index = torch.add(obs[..., component], index, alpha=size)
    return index


@dataclass(frozen=True)
class TaskSpace:
    """What tasks must share to be learned by one model: observation and action spaces.

    Raises:
        ValueError: If a size is below 1, there is no observation component, or fewer than two
            actions.
    """

    observation_sizes: tuple[int, ...]
    num_actions: int

    def __post_init__(self) -> None:
        if not self.observation_sizes or min(self.observation_sizes) < 1:
            raise ValueError(
                f"got observation_sizes={self.observation_sizes}, expected one size of at least 1 "
                "for each component of the observation"
            )
        if self.num_actions < 2:
            raise ValueError(f"got num_actions={self.num_actions}, expected at least 2")

    @classmethod
    def of(cls, tasks: BatchedTasks) -> TaskSpace:
        """Read the space off a set of tasks."""
        return cls(tuple(tasks.observation_sizes), tasks.num_actions)
