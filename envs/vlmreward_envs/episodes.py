"""Many tasks stepped together, in episodes of one fixed length.

Axis letters: ``N`` tasks, ``O`` components of a symbolic observation, ``K`` ids, ``H W`` pixels.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TypeAlias

import torch
from jaxtyping import Bool, Float, Int64, UInt8
from torch import Tensor

Observations: TypeAlias = Int64[Tensor, "N O"] | UInt8[Tensor, "N H W 3"]
"""What all agents see: whole numbers, or frames as uint8 RGB 0–255."""


@dataclass(frozen=True)
class TaskStep:
    """What one action in every task led to.

    Attributes:
        obs: The observation to act on next: the first of the next episode where one has ended.
        next_obs: The observation that the action led to.
        reward: What the task pays for the action.
        env_reward: The same; it stays the ground truth where somebody else pays the reward.
        terminated: Always false: these tasks end by their time limit only.
        truncated: The episode has lasted its full length.
    """

    obs: Observations
    next_obs: Observations
    reward: Float[Tensor, " N"]
    env_reward: Float[Tensor, " N"]
    terminated: Bool[Tensor, " N"]
    truncated: Bool[Tensor, " N"]


class EpisodicTasks(ABC):
    """A batch of tasks with one clock: all episodes begin and end together.

    A task's episode depends on the task, its random stream and the episode's number alone, so it is
    the same alone, among thousands, and on every device.

    Args:
        task_ids: One for each task of the batch; its device is where everything lives.
        num_known: How many tasks there are to choose from; ids are below it. ``None``: any number.

    Attributes:
        episode: Number of the present episode, from 0.
        num_steps: Steps taken in it.

    Raises:
        ValueError: If there is no task, or an id is out of range.
    """

    num_actions: int
    observation_sizes: tuple[int, ...]
    """Number of values of each component; only of symbolic tasks."""
    observation_dtype: torch.dtype = torch.int64
    episode_length: int

    def __init__(self, task_ids: Int64[Tensor, " N"], num_known: int | None) -> None:
        if len(task_ids) == 0:
            raise ValueError("got no task ids, expected at least one")
        if num_known is not None and not bool(((task_ids >= 0) & (task_ids < num_known)).all()):
            raise ValueError(
                f"got task ids from {int(task_ids.min())} to {int(task_ids.max())}, expected "
                f"0..{num_known - 1}"
            )
        self.task_ids = task_ids
        self.num_tasks = len(task_ids)
        self.device = task_ids.device
        self.episode = 0
        self.num_steps = 0
        self._never = torch.zeros(self.num_tasks, dtype=torch.bool, device=self.device)

    @property
    def observation_shape(self) -> tuple[int, ...]:
        """Shape of what one agent sees."""
        return (len(self.observation_sizes),)

    def reset(self) -> Observations:
        """Start over with the first episode; random streams begin anew as well."""
        return self.begin_episode(0)

    def begin_episode(self, number: int) -> Observations:
        """Begin the numbered episode in every task, whatever has been done so far."""
        self.episode, self.num_steps = number, 0
        self._begin()
        return self.observe()

    def step(self, actions: Int64[Tensor, " N"]) -> TaskStep:
        """Take one action in every task; the last one of an episode begins the next."""
        reward = self.advance(actions)
        next_obs = self.observe()
        is_over = self.is_over
        return TaskStep(
            obs=self.begin_episode(self.episode + 1) if is_over else next_obs,
            next_obs=next_obs,
            reward=reward,
            env_reward=reward,
            terminated=self._never,
            truncated=~self._never if is_over else self._never,
        )

    def advance(self, actions: Int64[Tensor, " N"]) -> Float[Tensor, " N"]:
        """Take one action in every task, begin no new episode, and return what it pays.

        Raises:
            ValueError: If there is not one action for each task.
            RuntimeError: If the episode is over.
        """
        if actions.shape != (self.num_tasks,):
            raise ValueError(
                f"got actions of shape {tuple(actions.shape)}, expected one for each of the "
                f"{self.num_tasks} tasks"
            )
        if self.is_over:
            raise RuntimeError(
                f"the episode is over after {self.episode_length} steps: begin the next one first"
            )
        self.num_steps += 1
        return self._act(actions)

    @property
    def is_over(self) -> bool:
        """Whether the time limit is reached."""
        return self.num_steps == self.episode_length

    def _one_each(self, seeds: Int64[Tensor, " M"]) -> Int64[Tensor, " N"]:
        """Return the seeds where the tasks live, or refuse them."""
        if seeds.shape != (self.num_tasks,):
            raise ValueError(
                f"got seeds of shape {tuple(seeds.shape)}, expected one for each of the "
                f"{self.num_tasks} tasks"
            )
        return seeds.to(self.device)

    @abstractmethod
    def observe(self) -> Observations:
        """Return what the agent sees now; never changed in place afterwards."""

    @abstractmethod
    def optimal_returns(self) -> Float[Tensor, " N"]:
        """Return the highest expected return of an episode for somebody who knows the task."""

    @abstractmethod
    def render(self) -> UInt8[Tensor, "N H W 3"]:
        """Draw every task with all that the agent does not see, as uint8 RGB 0–255."""

    @abstractmethod
    def _begin(self) -> None:
        """Put every task into the first state of episode `episode`."""

    @abstractmethod
    def _act(self, actions: Int64[Tensor, " N"]) -> Float[Tensor, " N"]:
        """Change the state and return the reward; step `num_steps`, counted from 1."""


def split_task_ids(
    num_known: int, num_test: int, generator: torch.Generator
) -> tuple[Int64[Tensor, " K"], Int64[Tensor, " K2"]]:
    """Divide the ids ``0 … num_known - 1`` at random into train and test tasks, each sorted.

    Raises:
        ValueError: If either part would be empty.

    Example:
        >>> train_ids, test_ids = split_task_ids(81, 16, torch.Generator().manual_seed(0))
        >>> len(train_ids), len(test_ids)
        (65, 16)
    """
    if not 0 < num_test < num_known:
        raise ValueError(f"got num_test={num_test}, expected 1 to {num_known - 1}")
    order = torch.randperm(num_known, generator=generator)
    return order[num_test:].sort().values, order[:num_test].sort().values
