"""Dark Key-to-Door as Gymnasium environments.

Axis letters: ``N`` tasks.
"""

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Int64
from torch import Tensor

from vlmreward_envs import counter_rng
from vlmreward_envs.grid import Cells, numbered_cells
from vlmreward_envs.key_to_door.tasks import DARK_KEY_TO_DOOR, DarkKeyToDoorTasks
from vlmreward_envs.task_envs import TASK_STREAM, TaskEnv, TaskVectorEnv


def draw_tasks(seeds: Int64[Tensor, " N"], *, key: Any, door: Any) -> DarkKeyToDoorTasks:
    """Return one room for each seed, with the given key and door or cells drawn uniformly."""
    size = DARK_KEY_TO_DOOR.size
    drawn = counter_rng.integers(counter_rng.fold(seeds, TASK_STREAM), 2, 0, size**2)
    key_cells, door_cells = (
        cells if given is None else numbered_cells(name, given, len(seeds), size).to(seeds.device)
        for name, given, cells in (("key", key, drawn[:, 0]), ("door", door, drawn[:, 1]))
    )
    return DarkKeyToDoorTasks(key_cells * size**2 + door_cells, seeds)


class DarkKeyToDoorEnv(TaskEnv):
    """A room with a hidden key and a hidden door: fetch the one, then go to the other.

    See ``docs/key_to_door.md`` for the task; actions are those of
    :class:`~vlmreward_envs.grid.Move`.

    Args:
        key: (x, y) of the key. ``None`` draws one whenever ``reset`` is given a seed.
        door: (x, y) of the door, likewise.
        render_mode: ``"rgb_array"`` or ``None``.

    Example:
        >>> import gymnasium, vlmreward_envs
        >>> env = gymnasium.make("vlmreward/DarkKeyToDoor-v0", key=(3, 1), door=(8, 8))
        >>> env.reset(seed=7)
        (array([3, 0]), {'env_reward': 0.0, 'task_id': 1052})
        >>> env.step(4)
        (array([3, 1]), 1.0, False, False, {'env_reward': 1.0, 'task_id': 1052})
    """

    def __init__(
        self,
        key: Sequence[int] | None = None,
        door: Sequence[int] | None = None,
        *,
        render_mode: str | None = None,
    ) -> None:
        super().__init__(draw_tasks, {"key": key, "door": door}, render_mode)


class DarkKeyToDoorVectorEnv(TaskVectorEnv):
    """Many rooms in one batch; see :class:`DarkKeyToDoorEnv` for the task.

    Args:
        num_envs: N.
        key: (x, y) of all keys, or N such pairs; ``None`` draws each.
        door: (x, y) of all doors, likewise.
        render_mode: ``"rgb_array"`` or ``None``.
        device: Where the rooms live.
    """

    def __init__(
        self,
        num_envs: int,
        key: Cells | None = None,
        door: Cells | None = None,
        *,
        render_mode: str | None = None,
        device: torch.device | str = "cpu",
    ) -> None:
        super().__init__(
            num_envs,
            draw_tasks,
            {"key": key, "door": door},
            render_mode=render_mode,
            device=device,
        )
