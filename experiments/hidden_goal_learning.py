"""Agents that find goals nobody tells them: sources on a reward, distilled, in rooms never seen.

Axis letters: ``N`` tasks, ``K`` episodes.
"""

import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import torch

from algdistill.agents import InContextAgent
from algdistill.evaluation import evaluate_in_context
from algdistill.histories import HistoryStore, WindowSampler
from algdistill.models import ADTransformer, ADTransformerConfig
from algdistill.sources import TabularQLearning, TabularQLearningConfig
from algdistill.tasks import BatchedTasks, TaskSpace
from algdistill.training import SELECTION_METRIC, Trainer, TrainingConfig
from hidden_goals import (
    EPISODE_LENGTH,
    ROOM_CONFIG,
    HiddenGoalRooms,
    HiddenGoalTasks,
    draw_rooms,
)
from playroom_domain import NAMED_KINDS
from run_folder import Arrays
from vlmreward import RewardModel

TASK_SETS = ("train", "validation", "test")
NUM_VALIDATION_CELLS, NUM_TEST_CELLS = 6, 8
CONTEXT_LENGTH = 5 * EPISODE_LENGTH
ROOMS_SEED = 2_000_002

Rooms = Mapping[str, HiddenGoalRooms]


@dataclass(frozen=True)
class HiddenGoalPreset:
    """How much is learned.

    Attributes:
        num_train_tasks: Source learners, each with a room and a hidden goal of its own.
        num_test_tasks: Rooms of the evaluation.
        source: Of the source learners.
        num_updates: Gradient steps of each distillation.
        num_episodes: In-context episodes in each test room.
        num_validation_tasks: Rooms by which the best weights are chosen.
    """

    num_train_tasks: int
    num_test_tasks: int
    source: TabularQLearningConfig
    num_updates: int
    num_episodes: int
    num_validation_tasks: int


def draw_task_set(name: str, reward_model: RewardModel, settings: HiddenGoalPreset) -> Arrays:
    """Draw rooms with hidden goals: objects of other cells are hidden in each task set."""
    cells = np.random.default_rng(ROOMS_SEED).permutation(ROOM_CONFIG.grid_size**2)
    ends = np.cumsum([NUM_TEST_CELLS, NUM_VALIDATION_CELLS])
    test_cells, validation_cells, train_cells = np.split(cells, ends)
    num_rooms, target_cells = {
        "train": (settings.num_train_tasks, train_cells),
        "validation": (settings.num_validation_tasks, validation_cells),
        "test": (settings.num_test_tasks, test_cells),
    }[name]
    rng = np.random.default_rng((ROOMS_SEED, TASK_SETS.index(name)))
    return draw_rooms(num_rooms, target_cells.tolist(), NAMED_KINDS, reward_model, rng).to_arrays()


class MakeTasks(Protocol):
    """Makes tasks whose goals nobody is told."""

    def __call__(self, name: str, first_task_id: int = 0) -> BatchedTasks:
        """Return those of one of `TASK_SETS`, numbered from the first on."""
        ...


def tasks_in(rooms: Rooms) -> MakeTasks:
    """Return what makes tasks of rooms."""
    return lambda name, first_task_id=0: HiddenGoalTasks(rooms[name], first_task_id)


def train_sources(make_tasks: MakeTasks, settings: HiddenGoalPreset, run_dir: Path) -> Arrays:
    """Train one source learner per task on VLM reward, and store its whole learning history."""
    train = make_tasks("train")
    fleet = TabularQLearning(train, settings.source, train.task_ids)
    folder = run_dir / "histories"
    shutil.rmtree(folder, ignore_errors=True)  # what a killed stage left half-written
    num_steps = settings.source.num_episodes * train.episode_length
    store = HistoryStore.create(
        folder, TaskSpace.of(train), num_steps=num_steps, reward_dtype="uint8"
    )
    histories = fleet.train()
    store.append(histories)
    test = make_tasks("test", first_task_id=len(histories))
    on_test = TabularQLearning(test, settings.source, test.task_ids).train()
    return {
        "train_returns": np.stack([history.env_episode_returns for history in histories]),
        "test_returns": np.stack([history.env_episode_returns for history in on_test]),
    }


def distil(make_tasks: MakeTasks, seed: int, settings: HiddenGoalPreset, run_dir: Path) -> Arrays:
    """Train a transformer on the learning histories; keep the best by in-context return."""
    histories = HistoryStore.open(run_dir / "histories").read()
    validation = make_tasks("validation")

    def evaluate(model: ADTransformer) -> dict[str, float]:
        generator = torch.Generator().manual_seed(seed)
        result = evaluate_in_context(
            InContextAgent(model, drop_length=validation.episode_length),
            validation,
            num_episodes=settings.num_episodes,
            generator=generator,
        )
        return {
            SELECTION_METRIC: float(result.returns[:, -10:].mean()),
            "eval/first_return": float(result.returns[:, 0].mean()),
        }

    generator = torch.Generator().manual_seed(seed)
    model = ADTransformer(
        ADTransformerConfig(TaskSpace.of(validation), context_length=CONTEXT_LENGTH), generator
    )
    sampler = WindowSampler(
        histories,
        window_length=CONTEXT_LENGTH,
        start_fraction=0.2,
        generator=np.random.default_rng(seed),
    )
    config = TrainingConfig(num_updates=settings.num_updates, evaluate_every=400)
    result = Trainer(
        model, sampler, config, run_dir / f"distil_{seed}", evaluate=evaluate, generator=generator
    ).train()
    return {
        "validation_return": np.array(result.best_metric),
        "update": np.array(result.best_update),
    }


def best_model(run_dir: Path, seed: int) -> Path:
    """Return the file of a distillation's best model."""
    return run_dir / f"distil_{seed}" / "best.safetensors"
