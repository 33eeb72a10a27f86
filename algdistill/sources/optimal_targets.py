"""What would have been best at every step of a learning history, for a model to predict.

A transformer that predicts the optimal action from what any policy went through learns to sample
from a posterior over tasks: the Decision-Pretrained Transformer (Lee et al. 2023, "Supervised
Pretraining Can Learn In-Context Reinforcement Learning",
`arXiv 2306.14892 <https://arxiv.org/abs/2306.14892>`_).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch

from algdistill.histories.schema import LearningHistory
from algdistill.sources.noisy_oracle import OracleTasks
from algdistill.task_space import TaskSpace


def optimal_targets(
    histories: Sequence[LearningHistory], tasks: OracleTasks
) -> list[LearningHistory]:
    """Return the histories with the optimal action at every step in place of the one taken.

    The recorded actions are taken once more, as what is best may depend on what is hidden.

    Args:
        histories: One for each task, of one length, each from its first step on.
        tasks: Those the histories were recorded in.

    Raises:
        ValueError: If there is not one history of the tasks' space for each of them, their lengths
            differ, or the tasks show something else than was recorded.

    Example:
        >>> from algdistill.sources import NoisyOracle, NoisyOracleConfig
        >>> from algdistill.tasks_fake import PixelRoomTasks
        >>> rooms = PixelRoomTasks(torch.arange(9))
        >>> random = NoisyOracleConfig(num_episodes=5, final_epsilon=1.0)
        >>> histories = NoisyOracle(rooms, random, rooms.task_ids).train()
        >>> [int(history.actions[0]) for history in optimal_targets(histories, rooms)]
        [1, 3, 2, 1, 0, 2, 1, 4, 2]
    """
    space = TaskSpace.of(tasks)
    if len(histories) != tasks.num_tasks or any(history.space != space for history in histories):
        raise ValueError(
            f"got {len(histories)} histories, expected one of {space} for each of the "
            f"{tasks.num_tasks} tasks"
        )
    lengths = {len(history) for history in histories}
    if len(lengths) > 1:
        raise ValueError(f"got histories of {sorted(lengths)} steps, expected one length")
    actions = torch.from_numpy(np.stack([history.actions for history in histories]))
    actions = actions.to(tasks.device, space.actions.dtype)
    optimal = []
    obs = tasks.reset()
    for step in range(actions.shape[1]):
        recorded = np.stack([history.observations[step] for history in histories])
        if not np.array_equal(obs.cpu().numpy(), recorded):
            raise ValueError(
                f"got histories that saw at step {step} what the tasks do not show, expected "
                "tasks with the ids and seeds that the histories were recorded in, and whole "
                "histories"
            )
        optimal.append(tasks.optimal_actions())
        obs = tasks.step(actions[:, step]).obs
    rows = torch.stack(optimal, dim=1).cpu().numpy().astype(space.actions.stored_dtype)
    return [replace(history, actions=row) for history, row in zip(histories, rows, strict=True)]
