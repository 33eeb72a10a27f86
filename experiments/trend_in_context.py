"""The in-context part of the scaling trend: Algorithm Distillation on histories that a model paid.

Axis letters: ``K`` episodes, ``N`` tasks.
"""

from collections.abc import Callable
from dataclasses import replace
from functools import partial

import numpy as np
import torch

from algdistill.agents import InContextAgent
from algdistill.evaluation import evaluate_in_context
from algdistill.models import load_model
from hidden_goal_learning import (
    TASK_SETS,
    HiddenGoalPreset,
    Rooms,
    best_model,
    distil,
    draw_task_set,
    tasks_in,
    train_sources,
)
from hidden_goals import EPISODE_LENGTH, HiddenGoalRooms, HiddenGoalTasks
from playroom_domain import family_goals
from run_folder import Arrays, RunFolder
from trend_online import rewards
from vlmreward import ImageTextEncoder, RewardModel
from vlmreward_envs.playroom import Family


def find_rewards(encoder: ImageTextEncoder, threshold: float) -> RewardModel:
    """Return a model's reward for every FIND sentence, goal k naming object kind k."""
    return rewards(encoder, family_goals(Family.FIND, np.random.default_rng(0)), threshold)


def collect_histories(
    run: RunFolder, settings: HiddenGoalPreset, load: Callable[[], RewardModel], *, truth: bool
) -> Rooms:
    """Draw rooms with hidden goals, let sources learn them, and return the rooms.

    Args:
        run: Keeps the rooms and the histories.
        settings: How much is learned.
        load: Loads what scores every frame that an episode can show, unless the rooms are kept.
        truth: Whether the ground truth pays instead.
    """
    rooms = {
        name: HiddenGoalRooms.from_arrays(
            run.stage(f"rooms_{name}", lambda name=name: draw_task_set(name, load(), settings))
        )
        for name in TASK_SETS
    }
    if truth:
        rooms = {name: replace(of, rewards=of.env_rewards) for name, of in rooms.items()}
    run.stage("sources", partial(train_sources, tasks_in(rooms), settings, run.path))
    return rooms


def learn_in_context(run: RunFolder, rooms: Rooms, settings: HiddenGoalPreset, seed: int) -> Arrays:
    """Distil the histories, and let the frozen agent act in rooms and on goals it never saw.

    Returns:
        ``env_returns`` and ``vlm_returns`` of every task and episode ``[N, K]``, and the
        ``optimum`` of every task ``[N]``.
    """
    run.stage(f"distil_{seed}", partial(distil, tasks_in(rooms), seed, settings, run.path))
    agent = InContextAgent(load_model(best_model(run.path, seed)), drop_length=EPISODE_LENGTH)
    result = evaluate_in_context(
        agent,
        HiddenGoalTasks(rooms["test"]),
        num_episodes=settings.num_episodes,
        generator=torch.Generator().manual_seed(seed),
    )
    return {
        "env_returns": result.env_returns,
        "vlm_returns": result.returns,
        "optimum": rooms["test"].optimum.numpy(),
    }
