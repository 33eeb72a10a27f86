"""Watermaze as Gymnasium environments.

Axis letters: ``N`` tasks.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Int64
from numpy.typing import NDArray
from torch import Tensor

from vlmreward_envs import counter_rng
from vlmreward_envs.task_envs import TASK_STREAM, TaskEnv, TaskVectorEnv
from vlmreward_envs.watermaze.tasks import WatermazeTasks


def draw_tasks(seeds: Int64[Tensor, " N"], *, task_id: Any) -> WatermazeTasks:
    """Return one pool for each seed: the given one, or one drawn from it."""
    if task_id is None:
        return WatermazeTasks(counter_rng.fold(seeds, TASK_STREAM), seeds)
    given = np.asarray(task_id)
    if given.dtype.kind not in "iu" or given.shape not in {(), seeds.shape}:
        raise ValueError(
            f"got task_id={task_id!r}, expected an integer, or one for each environment"
        )
    task_ids = torch.from_numpy(np.broadcast_to(given, seeds.shape).astype(np.int64))
    return WatermazeTasks(task_ids.to(seeds.device), seeds)


class WatermazeEnv(TaskEnv):
    """A round pool seen in first person: find a platform that cannot be seen.

    See ``docs/watermaze.md`` for the task; actions are those of
    :class:`~vlmreward_envs.watermaze.Action`.

    Args:
        task_id: Which platform. ``None`` draws one whenever ``reset`` is given a seed.
        render_mode: ``"rgb_array"`` or ``None``.

    Example:
        >>> import gymnasium, vlmreward_envs
        >>> env = gymnasium.make("vlmreward/Watermaze-v0", task_id=3)
        >>> obs, info = env.reset(seed=0)
        >>> obs.shape, info
        ((72, 96, 3), {'env_reward': 0.0, 'task_id': 3})
        >>> tasks = env.unwrapped.tasks
        >>> tasks.position, tasks.heading
        (tensor([[0., 0.]]), tensor([7]))
    """

    def __init__(self, task_id: int | None = None, *, render_mode: str | None = None) -> None:
        super().__init__(draw_tasks, {"task_id": task_id}, render_mode)


class WatermazeVectorEnv(TaskVectorEnv):
    """Many pools in one batch; see :class:`WatermazeEnv` for the task.

    Args:
        num_envs: N.
        task_id: Which platform all have, or N integers; ``None`` draws each.
        render_mode: ``"rgb_array"`` or ``None``.
        device: Where the pools live.
    """

    def __init__(
        self,
        num_envs: int,
        task_id: int | Sequence[int] | NDArray[np.integer[Any]] | None = None,
        *,
        render_mode: str | None = None,
        device: torch.device | str = "cpu",
    ) -> None:
        super().__init__(
            num_envs, draw_tasks, {"task_id": task_id}, render_mode=render_mode, device=device
        )
