"""Histories that say where each of their rows is, in every kind of space."""

import numpy as np

from algdistill.histories import LearningHistory
from algdistill.spaces import Continuous, Pixels
from algdistill.task_space import TaskSpace


def numbered_history(task_id, num_steps, episode_length):
    """Observations name the history and the row; actions and rewards follow from the row."""
    rows = np.arange(num_steps)
    return LearningHistory(
        space=TaskSpace.symbolic((50, 1000), 7),
        task_id=task_id,
        observations=np.stack([np.full(num_steps, task_id), rows], axis=1),
        actions=rows % 7,
        rewards=(rows * 0.5).astype(np.float32),
        env_rewards=np.zeros(num_steps, np.float32),
        terminated=np.zeros(num_steps, bool),
        truncated=rows % episode_length == episode_length - 1,
    )


def filmed_history(task_id, num_steps, episode_length):
    """The same in frames of 4x4, where the corners name history and row, and with two joints."""
    rows = np.arange(num_steps)
    frames = np.zeros((num_steps, 4, 4, 3), np.uint8)
    frames[:, 0, 0, 0] = task_id
    frames[:, 3, 3, 2] = rows
    return LearningHistory(
        space=TaskSpace(Pixels(4, 4), Continuous(2)),
        task_id=task_id,
        observations=frames,
        actions=np.stack([rows / 256, -rows / 256], axis=1).astype(np.float32),
        rewards=(rows * 0.5).astype(np.float32),
        env_rewards=np.zeros(num_steps, np.float32),
        terminated=np.zeros(num_steps, bool),
        truncated=rows % episode_length == episode_length - 1,
    )
