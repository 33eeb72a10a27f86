"""The one face `algdistill` asks of a set of tasks: many of them, stepped together.

Axis letters: ``N`` tasks, ``O`` components of a symbolic observation, ``*obs`` the shape of any
observation, ``*action`` that of an action (none where actions are discrete), ``M`` frames of
``H W`` pixels, ``D`` width of an embedding.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Bool, Float, Int, Shaped, UInt8
from torch import Tensor

from algdistill.spaces import Pixels
from algdistill.task_space import TaskSpace

__all__ = [
    "BatchedStep",
    "BatchedTasks",
    "EmbeddedObservations",
    "StepResult",
    "TaskSpace",
    "flat_observation",
]


@runtime_checkable
class BatchedStep(Protocol):
    """What one action in every task led to, with same-step resets.

    When an action ends an episode, the task resets within the same call: ``obs`` is already the
    first observation of the next episode, while ``reward``, ``terminated`` and ``truncated`` still
    belong to the action just taken. There is no extra step between two episodes.

    Any object with these attributes will do; `StepResult` is one for those who have none.
    """

    @property
    def obs(self) -> Shaped[Tensor, " N *obs"]:
        """The observation to act on next."""
        ...

    @property
    def next_obs(self) -> Shaped[Tensor, " N *obs"]:
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

    obs: Shaped[Tensor, " N *obs"]
    next_obs: Shaped[Tensor, " N *obs"]
    reward: Float[Tensor, " N"]
    env_reward: Float[Tensor, " N"]
    terminated: Bool[Tensor, " N"]
    truncated: Bool[Tensor, " N"]


@runtime_checkable
class BatchedTasks(Protocol):
    """``N`` tasks with one observation and action space, stepped together on one device.

    Beside the members below, tasks say what they show and take: ``observation_sizes`` (symbolic) or
    ``observation_shape`` and ``observation_dtype``; ``num_actions`` (discrete) or ``action_dim``.
    `TaskSpace.of` reads them.
    """

    @property
    def num_tasks(self) -> int:
        """``N``."""
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

    def reset(self) -> Shaped[Tensor, " N *obs"]:
        """Start over with the first episode of every task; chance repeats itself as well."""
        ...

    def step(self, actions: Shaped[Tensor, " N *action"]) -> BatchedStep:
        """Take one action in every task; see `BatchedStep` for what happens at episode ends."""
        ...


# Their kind of action, what is best, and where to look for it.
_ONLY_OF_SOME_TASKS = (
    "num_actions",
    "action_dim",
    "optimal_actions",
    "optimal_returns",
    "num_goals",
    "num_places",
    "places_seen",
    "actions_towards",
)


class EmbeddedObservations:
    """Tasks that show frames, seen through a frozen encoder: observations are its embeddings.

    Each frame is embedded once, as it is shown; nothing is kept.

    Args:
        tasks: They show frames.
        embed: Frames to embeddings, float32, on the device of the tasks.

    Raises:
        ValueError: If the tasks show something else, or ``embed`` returns something else.

    Example:
        >>> from algdistill.tasks_fake import PixelRoomTasks
        >>> tasks = PixelRoomTasks(torch.tensor([0, 8]))
        >>> seen = EmbeddedObservations(tasks, lambda frames: frames.float().mean((1, 2)))
        >>> TaskSpace.of(seen).observations
        Embedding(dim=3)
    """

    observation_dtype = torch.float32

    def __init__(
        self,
        tasks: BatchedTasks,
        embed: Callable[[UInt8[Tensor, "M H W 3"]], Float[Tensor, "M D"]],
    ) -> None:
        shown = TaskSpace.of(tasks).observations
        if not isinstance(shown, Pixels):
            raise ValueError(f"got tasks that show {shown}, expected Pixels")
        self._tasks = tasks
        self._embed = embed
        blank = embed(torch.zeros(1, *shown.shape, dtype=torch.uint8, device=tasks.device))
        if blank.ndim != 2 or blank.dtype != torch.float32 or blank.device != tasks.device:
            raise ValueError(
                f"got embeddings of shape {tuple(blank.shape)}, {blank.dtype} and {blank.device}, "
                f"expected (N, D), torch.float32 and {tasks.device}"
            )
        self.observation_shape = (blank.shape[1],)
        self.num_tasks = tasks.num_tasks
        self.episode_length = tasks.episode_length
        self.task_ids = tasks.task_ids
        self.device = tasks.device
        for name in _ONLY_OF_SOME_TASKS:
            if hasattr(tasks, name):
                setattr(self, name, getattr(tasks, name))

    def reset(self) -> Float[Tensor, "N D"]:
        """Start over with the first episode of every task."""
        return self._embed(self._tasks.reset())

    def step(self, actions: Shaped[Tensor, " N *action"]) -> StepResult:
        """Take one action in every task."""
        result = self._tasks.step(actions)
        obs = self._embed(result.obs)
        next_obs, ended = obs, result.terminated | result.truncated
        if ended.any():
            next_obs = obs.clone()
            next_obs[ended] = self._embed(result.next_obs[ended])
        return StepResult(
            obs=obs,
            next_obs=next_obs,
            reward=result.reward,
            env_reward=result.env_reward,
            terminated=result.terminated,
            truncated=result.truncated,
        )


def flat_observation(
    obs: Int[Tensor, "*batch O"], observation_sizes: tuple[int, ...]
) -> Int[Tensor, "*batch"]:
    """Number the observations, first component slowest, from 0 to ``prod(sizes) - 1``."""
    index = obs[..., 0]
    for component, size in enumerate(observation_sizes[1:], start=1):
        index = torch.add(obs[..., component], index, alpha=size)
    return index
