"""``algdistill collect``: let source learners learn, and store their learning histories.

Axis letters: ``N`` learners.
"""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

from jaxtyping import Int
from rich.progress import Progress
from torch import Tensor
from tyro.conf import Positional, arg, subcommand

from algdistill.cli.devices import check_device
from algdistill.cli.named_tasks import COLLECTING, Named, random_streams
from algdistill.cli.output import MESSAGES
from algdistill.histories import HistoryStore, HistoryStoreError
from algdistill.sources import (
    UCB1,
    ActorCritic,
    ActorCriticConfig,
    DeepQLearning,
    DeepQLearningConfig,
    FleetConfig,
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

_SOURCES: dict[type[FleetConfig], type[SourceFleet[Any]]] = {
    TabularQLearningConfig: TabularQLearning,
    UCB1Config: UCB1,
    ThompsonSamplingConfig: ThompsonSampling,
    NoisyOracleConfig: NoisyOracle,
    GoalSearchConfig: GoalSearch,
    ActorCriticConfig: ActorCritic,
    DeepQLearningConfig: DeepQLearning,
}
Source = Annotated[
    Annotated[TabularQLearningConfig, subcommand("q-learning", description="Q-learning in tables.")]
    | Annotated[UCB1Config, subcommand("ucb1", description="UCB1, for bandits.")]
    | Annotated[
        ThompsonSamplingConfig,
        subcommand("thompson-sampling", description="Thompson sampling, for bandits."),
    ]
    | Annotated[
        NoisyOracleConfig,
        subcommand("noisy-oracle", description="What is optimal, ever less often random."),
    ]
    | Annotated[
        GoalSearchConfig,
        subcommand("goal-search", description="Places not seen yet, until one pays."),
    ]
    | Annotated[ActorCriticConfig, subcommand("actor-critic", description="Neural actor-critics.")]
    | Annotated[DeepQLearningConfig, subcommand("deep-q-learning", description="Double DQN.")],
    arg(name=""),
]


def collect(
    store: Positional[Path],
    named: Named,
    source: Source,
    *,
    histories_per_task: int = 1,
    seed: int = 0,
    learners_at_once: int = 256,
    device: str = "cpu",
) -> None:
    """Let source learners learn tasks, and store their learning histories.

    A history depends on its task, the seed and its number only. Typed again after a kill, the same
    command goes on after the histories that are stored.

    Args:
        store: Folder of the store to make.
        named: Which tasks.
        source: The source algorithm.
        histories_per_task: Learners on each task.
        seed: Of learners and tasks; another one gives other histories.
        learners_at_once: Learners trained side by side and then stored.
        device: Where tasks and learners are.
    """
    check_device(device)
    copies = source.num_actors if isinstance(source, ActorCriticConfig) else 1
    if histories_per_task < 1 or histories_per_task % copies:
        raise ValueError(
            f"got histories_per_task={histories_per_task}, expected a multiple of {copies}"
        )
    if learners_at_once < copies:
        raise ValueError(
            f"got learners_at_once={learners_at_once}, expected at least {copies}: tasks of one "
            "learner stay together"
        )
    # Each task once, then each once more, so that any part of the store shows many tasks.
    ids = named.ids(device).repeat_interleave(copies).repeat(histories_per_task // copies)
    streams = random_streams(seed, COLLECTING, len(ids), device)
    metadata: dict[str, object] = {
        "source_algorithm": _SOURCES[type(source)].source_algorithm,
        **asdict(source),
        **asdict(named),
        "histories_per_task": histories_per_task,
        "seed": seed,
    }
    histories = _opened(store, metadata, len(ids)) if store.exists() else None
    done = 0 if histories is None else len(histories)
    size = learners_at_once - learners_at_once % copies
    with Progress(console=MESSAGES) as progress:
        bar = progress.add_task("collect", total=len(ids), completed=done)
        for start in range(done, len(ids), size):
            rows = slice(start, start + size)
            fleet = _fleet(named, source, ids[rows], streams[rows])
            learned = fleet.train()
            if histories is None:
                histories = HistoryStore.create(
                    store, learned[0].space, num_steps=fleet.num_steps, metadata=metadata
                )
            histories.append(learned)
            progress.update(bar, advance=len(learned))
    print(f"{store}: {len(ids):,} histories of {len(named.ids()):,} tasks")


def _fleet(
    named: Named, source: FleetConfig, ids: Int[Tensor, " N"], streams: Int[Tensor, " N"]
) -> SourceFleet[Any]:
    """Learners on some tasks, each seeded by its task's stream."""
    return _SOURCES[type(source)](named.make(ids, streams), source, streams)


def _opened(path: Path, metadata: dict[str, object], num_histories: int) -> HistoryStore:
    """A store that the same command left unfinished."""
    try:
        store = HistoryStore.open(path, read_only=False)
    except HistoryStoreError as error:
        raise FileExistsError(f"{path} exists, but not as a whole store: {error}") from error
    if store.metadata != metadata:
        raise FileExistsError(
            f"{path} holds histories of other settings: choose a folder that does not exist"
        )
    if len(store) == num_histories:
        raise FileExistsError(f"{path} exists and is complete: choose another folder")
    return store
