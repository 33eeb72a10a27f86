"""Adversarial Bandit as Gymnasium environments.

Axis letters: ``N`` tasks.
"""

import functools
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Int64
from numpy.typing import NDArray
from torch import Tensor

from vlmreward_envs import counter_rng
from vlmreward_envs.adversarial_bandit.arms import draw_arm_probabilities
from vlmreward_envs.adversarial_bandit.tasks import AdversarialBanditTasks
from vlmreward_envs.task_envs import TASK_STREAM, TaskEnv, TaskVectorEnv


def draw_tasks(seeds: Int64[Tensor, " N"], *, task_seed: Any, split: str) -> AdversarialBanditTasks:
    """Return one bandit for each seed: the given one, or one drawn from it."""
    if task_seed is None:
        task_ids = counter_rng.fold(seeds, TASK_STREAM)
    else:
        given = np.asarray(task_seed)
        if given.dtype.kind not in "iu" or given.shape not in {(), seeds.shape}:
            raise ValueError(
                f"got task_seed={task_seed!r}, expected an integer, or one for each environment"
            )
        task_ids = torch.from_numpy(np.broadcast_to(given, seeds.shape).astype(np.int64))
        task_ids = task_ids.to(seeds.device)
    return AdversarialBanditTasks(task_ids, seeds, draw_arm_probabilities(task_ids, split))


class AdversarialBanditEnv(TaskEnv):
    """Ten arms, each with its own chance to pay: find the best one in a hundred trials.

    See ``docs/adversarial_bandit.md`` for the task; actions are the arms, 0 to 9.

    Args:
        task_seed: Which bandit. ``None`` draws one whenever ``reset`` is given a seed.
        split: ``"train"`` (the best arm is mostly odd) or ``"test"`` (mostly even).
        render_mode: ``"rgb_array"`` or ``None``.

    Example:
        >>> import gymnasium, vlmreward_envs
        >>> env = gymnasium.make("vlmreward/AdversarialBandit-v0", task_seed=3)
        >>> env.reset(seed=0)
        (array([0]), {'env_reward': 0.0, 'task_id': 3})
        >>> best_arm = env.unwrapped.tasks.arm_probabilities.argmax().item()
        >>> best_arm, env.step(best_arm)
        (9, (array([0]), 1.0, False, False, {'env_reward': 1.0, 'task_id': 3}))
    """

    def __init__(
        self,
        task_seed: int | None = None,
        *,
        split: str = "train",
        render_mode: str | None = None,
    ) -> None:
        super().__init__(
            functools.partial(draw_tasks, split=split), {"task_seed": task_seed}, render_mode
        )


class AdversarialBanditVectorEnv(TaskVectorEnv):
    """Many bandits in one batch; see :class:`AdversarialBanditEnv` for the task.

    Args:
        num_envs: N.
        task_seed: Which bandit all are, or N integers; ``None`` draws each.
        split: ``"train"`` or ``"test"``.
        render_mode: ``"rgb_array"`` or ``None``.
        device: Where the bandits live.
    """

    def __init__(
        self,
        num_envs: int,
        task_seed: int | Sequence[int] | NDArray[np.integer[Any]] | None = None,
        *,
        split: str = "train",
        render_mode: str | None = None,
        device: torch.device | str = "cpu",
    ) -> None:
        super().__init__(
            num_envs,
            functools.partial(draw_tasks, split=split),
            {"task_seed": task_seed},
            render_mode=render_mode,
            device=device,
        )
