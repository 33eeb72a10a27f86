"""Agents that find out in context which sound is wanted of them, by nothing but reward.

    python experiments/playroom_sound_in_context.py

In each room something that the person does is to be heard: footsteps, a bump, something being
picked up or put down. Nobody says which; the backbone hears it and pays. Tabular learners learn it,
a transformer is distilled from their histories, and acts in rooms that it never saw, its weights
frozen. The same is done where the ground truth pays.

Goes on where it was killed. Ends with ``summary.json`` and a picture under
``runs/playroom_sound_in_context/``.

Axis letters: ``B`` rooms, ``S`` seeds, ``N`` tasks, ``K`` episodes.
"""

import shlex
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
import tyro
from jaxtyping import Bool, Int64
from numpy.typing import NDArray
from torch import Tensor

from algdistill.agents import InContextAgent, RandomAgent
from algdistill.evaluation import evaluate_in_context
from algdistill.models import load_model
from algdistill.sources import TabularQLearningConfig
from algdistill.tasks import TaskSpace
from hidden_goal_learning import (
    TASK_SETS,
    HiddenGoalPreset,
    MakeTasks,
    best_model,
    distil,
    train_sources,
)
from hidden_goals import EPISODE_LENGTH
from playroom_sound import BACKBONE, GROUPS, TRUTH, goals_of
from playroom_sound_figures import returns_in_context
from playroom_sound_tasks import SoundTasks
from run_folder import (
    Arrays,
    RunFolder,
    machine,
    seconds_of,
    versions,
    write_atomically,
    write_json,
)
from vlmreward import RewardModel
from vlmreward.backbone import load_backbone
from vlmreward_envs.playroom import PlayroomConfig
from vlmreward_envs.playroom_sound import PlayroomSoundConfig, PlayroomSoundRooms

ROOM_CONFIG = PlayroomSoundConfig(
    playroom=PlayroomConfig(num_objects=5, start_at_centre=True, fixed_room=True)
)
_SETS_APART = 1_000_000
_LAST_EPISODES = 5
_RESAMPLES = 2000
_SOURCE = TabularQLearningConfig(num_episodes=30, exploration_episodes=15)
_FEW = TabularQLearningConfig(num_episodes=12, exploration_episodes=6)
PRESETS = {
    "full": HiddenGoalPreset(384, 48, _SOURCE, 1500, 30, 24),
    "debug": HiddenGoalPreset(4, 4, _FEW, 4, 6, 4),
}


@dataclass(frozen=True)
class SoundInContextOptions:
    """Options of the command line.

    Attributes:
        backbone: A shipped backbone, or the card of one.
        seeds: Distillations of each set of histories.
        preset: ``debug`` does as little as runs through.
        run_name: Folder under ``runs/``.
    """

    backbone: str = "playroom_sound"
    seeds: tuple[int, ...] = (0, 1, 2)
    preset: Literal["full", "debug"] = "full"
    run_name: str = "playroom_sound_in_context"


class HiddenSoundRooms(PlayroomSoundRooms):
    """Rooms whose goal is the same in all episodes; their seeds take turns at them."""

    def reset(
        self, seed: Int64[Tensor, " B"] | None = None, mask: Bool[Tensor, " B"] | None = None
    ) -> None:
        """Begin new episodes."""
        super().reset(seed, mask)
        self.goal_index = self.seed % len(self.goals)


class HiddenSoundTasks(SoundTasks):
    """Rooms with a sound that is wanted, as `BatchedTasks`: episodes of 20 steps.

    A learner observes its position and whether it holds something.

    Args:
        num_tasks: N.
        seed: Of the first room.
        first_task_id: Of the first task.
        reward_model: Pays; the ground truth does where there is none.
    """

    observation_sizes = (ROOM_CONFIG.playroom.grid_size, ROOM_CONFIG.playroom.grid_size, 2)

    def __init__(
        self,
        num_tasks: int,
        seed: int,
        first_task_id: int = 0,
        reward_model: RewardModel | None = None,
    ) -> None:
        rooms = HiddenSoundRooms(
            num_tasks, GROUPS["heard"], config=ROOM_CONFIG, max_episode_steps=EPISODE_LENGTH
        )
        rooms.reset(seed + torch.arange(num_tasks))
        super().__init__(rooms, reward_model, observe_person)
        self.task_ids = first_task_id + torch.arange(num_tasks)


def observe_person(rooms: PlayroomSoundRooms) -> Int64[Tensor, "B 3"]:
    """Say where the person is, and whether their hands are full."""
    state = rooms.state
    return torch.cat([state.position, (state.held >= 0).long()[:, None]], dim=1)


def sound_task_sets(settings: HiddenGoalPreset, reward_model: RewardModel | None) -> MakeTasks:
    """Return what makes the tasks of each task set; rooms of one are in no other."""
    numbers = (settings.num_train_tasks, settings.num_validation_tasks, settings.num_test_tasks)

    def make(name: str, first_task_id: int = 0) -> HiddenSoundTasks:
        index = TASK_SETS.index(name)
        seed = (index + 1) * _SETS_APART
        return HiddenSoundTasks(numbers[index], seed, first_task_id, reward_model)

    return make


def main(options: SoundInContextOptions) -> Path:
    """Run what is not yet done, write ``summary.json`` and a picture, and return the folder.

    Raises:
        ValueError: If the backbone is unknown, or the folder belongs to other settings.
    """
    encoder = load_backbone(options.backbone, stream="fusion", device="cpu")
    settings = PRESETS[options.preset]
    run = RunFolder(Path("runs") / options.run_name, settings, options.backbone)
    rewards = {BACKBONE: RewardModel(encoder, goals_of("heard")), TRUTH: None}
    folders = {payer: RunFolder(run.path / payer.replace(" ", "_"), settings) for payer in rewards}
    found: dict[str, list[Arrays]] = {}
    for payer, reward_model in rewards.items():
        folder, make = folders[payer], sound_task_sets(settings, reward_model)
        folder.stage("sources", partial(train_sources, make, settings, folder.path))
        for seed in options.seeds:
            folder.stage(f"distil_{seed}", partial(distil, make, seed, settings, folder.path))
        found[payer] = [
            folder.stage(
                f"returns_{seed}", partial(act_in_context, make, folder.path, seed, settings)
            )
            for seed in options.seeds
        ]
    random = run.stage("random", partial(act_at_random, settings))
    curves = {
        **{payer: np.stack([of["env_returns"] for of in runs]) for payer, runs in found.items()},
        "random": random["env_returns"][None],
    }
    write_json(
        run.path / "summary.json",
        {
            "command": shlex.join(["python", *sys.argv]),
            "versions": versions(),
            "machine": machine(),
            "seconds": seconds_of(run, folders),
            "seeds": list(options.seeds),
            "goals": list(GROUPS["heard"]),
            "true_return": summarise(curves),
            "sources": {
                payer: float(folder.finished("sources")["test_returns"][:, -_LAST_EPISODES:].mean())
                for payer, folder in folders.items()
            },
        },
    )
    write_atomically(
        run.path / "in_context.png",
        returns_in_context({name: of.mean(axis=(0, 1)) for name, of in curves.items()}),
    )
    print(run.path / "summary.json")
    return run.path


def act_in_context(make: MakeTasks, run_dir: Path, seed: int, settings: HiddenGoalPreset) -> Arrays:
    """Let a distilled agent, frozen, act in the rooms of the test; its returns ``[N, K]``."""
    agent = InContextAgent(load_model(best_model(run_dir, seed)), drop_length=EPISODE_LENGTH)
    result = evaluate_in_context(
        agent,
        make("test"),
        num_episodes=settings.num_episodes,
        generator=torch.Generator().manual_seed(seed),
    )
    return {"env_returns": result.env_returns, "vlm_returns": result.returns}


def act_at_random(settings: HiddenGoalPreset) -> Arrays:
    """Draw every action uniformly in the same rooms."""
    test = sound_task_sets(settings, None)("test")
    result = evaluate_in_context(
        RandomAgent(TaskSpace.of(test)),
        test,
        num_episodes=settings.num_episodes,
        generator=torch.Generator().manual_seed(0),
    )
    return {"env_returns": result.env_returns}


def summarise(curves: Mapping[str, NDArray[np.float64]]) -> dict[str, Any]:
    """Return the first and the last true returns of each, over all goals and for each of them.

    Args:
        curves: True returns ``[S, N, K]``.
    """
    return {
        name: {
            "first_episode": interval(returns[..., :1]),
            "last_episodes": interval(returns[..., -_LAST_EPISODES:]),
            "last_episodes_of_goals": {
                goal: float(returns[:, index :: len(GROUPS["heard"]), -_LAST_EPISODES:].mean())
                for index, goal in enumerate(GROUPS["heard"])
            },
            "curve": returns.mean(axis=(0, 1)).round(4).tolist(),
        }
        for name, returns in curves.items()
    }


def interval(returns: NDArray[np.float64]) -> dict[str, float]:
    """Return the mean with its 95 % interval, over seeds and, goal by goal, rooms.

    A seed acts in all rooms, so that seeds are resampled whole.

    Args:
        returns: ``[S, N, K]``; rooms take turns at the goals.
    """
    rng = np.random.default_rng(0)
    values = returns.mean(axis=2)
    num_seeds, num_rooms = values.shape
    seeds = rng.integers(num_seeds, size=(_RESAMPLES, num_seeds, 1))
    num_goals = len(GROUPS["heard"])
    rooms = np.empty((_RESAMPLES, 1, num_rooms), dtype=np.int64)
    for goal in range(num_goals):
        own = np.arange(num_rooms)[goal::num_goals]
        rooms[..., own] = rng.choice(own, size=(_RESAMPLES, 1, len(own)))
    low, high = np.percentile(values[seeds, rooms].mean(axis=(1, 2)), [2.5, 97.5])
    return {"value": float(values.mean()), "low": float(low), "high": float(high)}


if __name__ == "__main__":
    main(tyro.cli(SoundInContextOptions))
