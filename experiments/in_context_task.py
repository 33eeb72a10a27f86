"""What an environment brings to the experiment of `in_context_learning`."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from jaxtyping import Int64
from torch import Tensor

from algdistill.histories import LearningHistory
from algdistill.sources import FleetConfig, SourceFleet
from algdistill.tasks import BatchedTasks
from algdistill.training import TrainingConfig
from rl2 import RL2Config

Ids = Int64[Tensor, " N"]
MakeTasks = Callable[[Ids, Ids], BatchedTasks]
"""Task ids, and one random stream for each; the same id is the same task."""

RL2 = "rl2"
"""What names RL² among the methods."""


@dataclass(frozen=True)
class Split:
    """Tasks to learn from, to choose a model by, and to report on; no id is in two of them."""

    train: Ids
    validation: Ids
    test: Ids

    def __post_init__(self) -> None:
        ids = torch.cat([self.train, self.validation, self.test])
        if len(ids.unique()) != len(ids):
            raise ValueError("got a task id twice, expected train, validation and test apart")


@dataclass(frozen=True)
class Method:
    """A way to an agent that learns in context: whose histories, and how they are distilled.

    Attributes:
        title: For tables and pictures.
        source: Whose histories.
        source_config: Settings of every learner.
        histories_per_task: Learners on each training task.
        last_episodes: Keep these last episodes of each history only; 0 keeps all. A model of
            converged episodes alone is Expert Distillation.
        keep_every: Keep every so many whole episodes.
        training: Settings of the model's training.
        predicts_optimal: Predict the optimal action at every step, not the one taken: the
            Decision-Pretrained Transformer.
    """

    title: str
    source: type[SourceFleet[Any]]
    source_config: FleetConfig
    histories_per_task: int
    training: TrainingConfig
    last_episodes: int = 0
    keep_every: int = 1
    predicts_optimal: bool = False

    @property
    def settings(self) -> "MethodSettings":
        """All but the title, as data."""
        values = {
            name: getattr(self, name)
            for name in MethodSettings.__dataclass_fields__
            if name != "source"
        }
        return MethodSettings(source=self.source.source_algorithm, **values)

    def learners(self, tasks: BatchedTasks, seeds: Ids) -> SourceFleet[Any]:
        """Source learners that know nothing yet, one for each task."""
        return self.source(tasks, self.source_config, seeds)

    def histories(self, tasks: BatchedTasks, seeds: Ids) -> list[LearningHistory]:
        """Let the source learn, and return what the model is to see of it."""
        return [self._kept(history) for history in self.learners(tasks, seeds).train()]

    def _kept(self, history: LearningHistory) -> LearningHistory:
        if self.last_episodes:
            history = _from(history, int(history.episode_starts[-self.last_episodes]))
        return history.keep_every(self.keep_every)


@dataclass(frozen=True)
class MethodSettings:
    """What a method's folder belongs to; see `Method`."""

    source: str
    source_config: FleetConfig
    histories_per_task: int
    last_episodes: int
    keep_every: int
    predicts_optimal: bool
    training: TrainingConfig


@dataclass(frozen=True)
class TaskSettings:
    """What a run's folder belongs to, whatever methods there are; see `InContextTask`."""

    preset: str
    model: dict[str, Any]
    environment: dict[str, Any]
    num_tasks: dict[str, int]
    num_episodes: int
    repeats: int


@dataclass(frozen=True)
class InContextTask:
    """An environment whose tasks are to be learned in context.

    Attributes:
        name: Of the run folder and of the result.
        title: For people.
        split: Which tasks are for what.
        make_tasks: Makes tasks of their ids.
        methods: Ways to an agent, by name; of those that are run, the first headlines.
        model: Arguments of `ADTransformerConfig` other than the space.
        num_episodes: In-context episodes to report.
        repeats: Evaluations of each test task, each with draws of its own.
        no_adaptation: Mean return of the best that does not adapt, where it is known.
        rl2: Settings of RL², where it is to be compared with.
        environment: Settings of the environment that ``make_tasks`` has made its own.
        limitations: What a reader should not conclude.
    """

    name: str
    title: str
    split: Split
    make_tasks: MakeTasks
    methods: Mapping[str, Method]
    model: Mapping[str, Any]
    num_episodes: int
    repeats: int
    no_adaptation: float
    rl2: RL2Config | None = None
    environment: Mapping[str, Any] = field(default_factory=dict)
    limitations: tuple[str, ...] = field(default=())

    @property
    def titles(self) -> dict[str, str]:
        """Titles of everything that can be trained, by name."""
        titles = {name: method.title for name, method in self.methods.items()}
        return titles if self.rl2 is None else {**titles, RL2: "RL²"}

    def settings(self, preset: str) -> TaskSettings:
        """What all methods have in common, as data."""
        return TaskSettings(
            preset=preset,
            model=dict(self.model),
            environment=dict(self.environment),
            num_tasks={name: len(ids) for name, ids in vars(self.split).items()},
            num_episodes=self.num_episodes,
            repeats=self.repeats,
        )

    def settings_of(self, name: str) -> MethodSettings | RL2Config:
        """Settings of one that can be trained."""
        if name in self.methods:
            return self.methods[name].settings
        assert self.rl2 is not None
        return self.rl2

    def test_tasks(self, ids: Ids, repeats: int) -> BatchedTasks:
        """Tasks to report on: each id ``repeats`` times in a row, each with a stream of its own."""
        streams = _streams(len(ids) * repeats, _TEST_STREAMS)
        return self.make_tasks(ids.repeat_interleave(repeats), streams)

    def training_tasks(self, method: Method, seed: int) -> tuple[BatchedTasks, Ids]:
        """Tasks for a method's sources, and the seeds of the learners."""
        ids = self.split.train.repeat(method.histories_per_task)
        streams = _streams(len(ids), seed * _STREAMS_OF_A_SEED)
        return self.make_tasks(ids, streams), streams

    def validation_tasks(self, repeats: int) -> BatchedTasks:
        """Tasks to choose a model by."""
        ids = self.split.validation.repeat_interleave(repeats)
        return self.make_tasks(ids, _streams(len(ids), _VALIDATION_STREAMS))


_STREAMS_OF_A_SEED = 10_000_000
_VALIDATION_STREAMS = 1_000_000_000
_TEST_STREAMS = 2_000_000_000


def _streams(count: int, first: int) -> Ids:
    return torch.arange(first, first + count)


def _from(history: LearningHistory, row: int) -> LearningHistory:
    """The history from a row on."""
    names = ("observations", "actions", "rewards", "env_rewards", "terminated", "truncated")
    return replace(history, **{name: getattr(history, name)[row:] for name in names})


def split_at_random(num_tasks: int, num_validation: int, num_test: int, *, seed: int = 0) -> Split:
    """Divide the ids ``0 … num_tasks - 1``: test tasks and validation tasks are drawn, sorted."""
    order = torch.randperm(num_tasks, generator=torch.Generator().manual_seed(seed))
    num_train = num_tasks - num_validation - num_test
    parts = order.split([num_train, num_validation, num_test])
    return Split(*(part.sort().values for part in parts))
