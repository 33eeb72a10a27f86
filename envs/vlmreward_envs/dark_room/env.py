"""Dark Room and Dark Room Hard as Gymnasium environments.

Axis letters: ``N`` tasks.
"""

import functools
from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Int64
from torch import Tensor

from vlmreward_envs import counter_rng
from vlmreward_envs.dark_room.tasks import (
    DARK_ROOM,
    DARK_ROOM_HARD,
    DarkRoomConfig,
    DarkRoomTasks,
)
from vlmreward_envs.grid import Cells, numbered_cells
from vlmreward_envs.task_envs import TASK_STREAM, TaskEnv, TaskVectorEnv


def draw_tasks(seeds: Int64[Tensor, " N"], *, goal: Any, config: DarkRoomConfig) -> DarkRoomTasks:
    """Return one room for each seed, with the given goal or one drawn uniformly."""
    if goal is None:
        streams = counter_rng.fold(seeds, TASK_STREAM)
        task_ids = counter_rng.integers(streams, 1, 0, config.num_tasks)[:, 0]
    else:
        task_ids = numbered_cells("goal", goal, len(seeds), config.size).to(seeds.device)
    return DarkRoomTasks(task_ids, config)


class DarkRoomEnv(TaskEnv):
    """A room with a hidden goal: the agent sees where it is, and learns where to be from rewards.

    See ``docs/dark_room.md`` for the task; actions are those of
    :class:`~vlmreward_envs.grid.Move`.

    Args:
        goal: (x, y) of the goal. ``None`` draws one whenever ``reset`` is given a seed.
        hard: Dark Room Hard: 17×17 cells, and the goal pays once in an episode.
        render_mode: ``"rgb_array"`` or ``None``.

    Example:
        >>> import gymnasium, vlmreward_envs
        >>> env = gymnasium.make("vlmreward/DarkRoom-v0", goal=(3, 4))
        >>> env.reset(seed=0)
        (array([4, 4]), {'env_reward': 0.0, 'task_id': 39})
        >>> env.step(1)
        (array([3, 4]), 1.0, False, False, {'env_reward': 1.0, 'task_id': 39})
    """

    def __init__(
        self,
        goal: Sequence[int] | None = None,
        *,
        hard: bool = False,
        render_mode: str | None = None,
    ) -> None:
        super().__init__(_drawer(hard), {"goal": goal}, render_mode)


class DarkRoomVectorEnv(TaskVectorEnv):
    """Many Dark Rooms in one batch; see :class:`DarkRoomEnv` for the task.

    Args:
        num_envs: N.
        goal: (x, y) of all goals, or N such pairs; ``None`` draws each.
        hard: Dark Room Hard.
        render_mode: ``"rgb_array"`` or ``None``.
        device: Where the rooms live.

    Example:
        >>> envs = DarkRoomVectorEnv(1000)
        >>> obs, infos = envs.reset(seed=0)
        >>> obs.shape
        (1000, 2)
    """

    def __init__(
        self,
        num_envs: int,
        goal: Cells | None = None,
        *,
        hard: bool = False,
        render_mode: str | None = None,
        device: torch.device | str = "cpu",
    ) -> None:
        super().__init__(
            num_envs, _drawer(hard), {"goal": goal}, render_mode=render_mode, device=device
        )


def _drawer(hard: bool) -> functools.partial[DarkRoomTasks]:
    return functools.partial(draw_tasks, config=DARK_ROOM_HARD if hard else DARK_ROOM)
