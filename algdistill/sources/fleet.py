"""What all fleets share: thousands of independent learners, each on its own task, side by side.

Axis letters: ``N`` learners, ``O`` components of an observation, ``A`` actions, ``K`` draws.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import ClassVar, Generic, TypeVar

import torch
from jaxtyping import Float, Int, Shaped
from torch import Tensor

from algdistill.histories.recorder import HistoryRecorder
from algdistill.histories.schema import LearningHistory
from algdistill.sources.random_streams import stream_origins, uniform_at
from algdistill.tasks import BatchedStep, BatchedTasks, TaskSpace


@dataclass(frozen=True)
class FleetConfig:
    """Settings of every learner of a fleet.

    Attributes:
        num_episodes: Episodes each learner trains for.

    Raises:
        ValueError: If a value is out of its range.
    """

    num_episodes: int = 40

    def __post_init__(self) -> None:
        self._check_range("num_episodes", 1.0)

    def _check_range(self, name: str, low: float, high: float = math.inf) -> None:
        value = getattr(self, name)
        if not low <= value <= high:
            raise ValueError(f"got {name}={value}, expected {low:g} to {high:g}")


Config = TypeVar("Config", bound=FleetConfig)


class SourceFleet(ABC, Generic[Config]):
    """Independent learners on ``tasks``, learner ``i`` on task ``i``.

    A learner's history depends on its task and its seed only: it is the same alone as in a fleet
    of thousands.

    Args:
        tasks: One task for each learner.
        config: Settings shared by all.
        learner_seeds: One seed for each learner.

    Raises:
        ValueError: If there is not one seed for each task.
    """

    source_algorithm: ClassVar[str]
    """What histories name as the algorithm they come from."""

    def __init__(
        self, tasks: BatchedTasks, config: Config, learner_seeds: Int[Tensor, " N"]
    ) -> None:
        if learner_seeds.shape != (tasks.num_tasks,):
            raise ValueError(
                f"got learner_seeds of shape {tuple(learner_seeds.shape)}, expected one for each "
                f"of the {tasks.num_tasks} tasks"
            )
        self._tasks = tasks
        self._config = config
        self._space = TaskSpace.of(tasks)
        self._origins = stream_origins(learner_seeds.to(tasks.device))

    @property
    def num_steps(self) -> int:
        """Steps of each learner's history."""
        return self._config.num_episodes * self._tasks.episode_length

    def train(self) -> list[LearningHistory]:
        """Train every learner from the beginning and return its whole history."""
        recorder = HistoryRecorder(
            self._space,
            self._tasks.task_ids,
            self.num_steps,
            {"source_algorithm": self.source_algorithm, **asdict(self._config)},
        )
        for obs, actions, result in self.steps():
            recorder.record(obs, actions, result)
        return recorder.histories()

    def steps(self) -> Iterator[tuple[Int[Tensor, "N O"], Int[Tensor, " N"], BatchedStep]]:
        """Train every learner from the beginning, step by step, and record nothing.

        Yields:
            The observations acted upon, the actions, and what they led to, before it is learned
            from. Whoever stops asking stops the training.
        """
        self._forget()
        obs = self._tasks.reset()
        for step in range(self.num_steps):
            actions = self._act(obs, step)
            result = self._tasks.step(actions)
            yield obs, actions, result
            self._learn(actions, result)
            obs = result.obs

    def _draw(self, step: int, count: int) -> Float[Tensor, "K N"]:
        """The numbers that belong to a step, of which every step has ``count``."""
        counters = torch.arange(step * count, (step + 1) * count, device=self._tasks.device)
        return uniform_at(self._origins, counters[:, None])

    @abstractmethod
    def _forget(self) -> None:
        """Put every learner back to where it knows nothing."""

    @abstractmethod
    def _act(self, obs: Shaped[Tensor, " N *obs"], step: int) -> Int[Tensor, " N"]:
        """Choose an action in every task; ``step`` counts from 0 over the whole history."""

    @abstractmethod
    def _learn(self, actions: Int[Tensor, " N"], result: BatchedStep) -> None:
        """Learn from what the actions chosen last led to."""


def uniform_argmax(values: Float[Tensor, "A N"], draw: Float[Tensor, " N"]) -> Int[Tensor, " N"]:
    """Each learner's best action; ties are broken uniformly by ``draw``, uniform in [0, 1)."""
    rank = (values == values.amax(dim=0)).cumsum(dim=0, dtype=torch.int32)
    return (rank <= draw * rank[-1]).sum(dim=0)


def uniform_action(draw: Float[Tensor, " N"], num_actions: int) -> Int[Tensor, " N"]:
    """A uniformly random action for each learner, from numbers uniform in [0, 1)."""
    return (draw * num_actions).long()
