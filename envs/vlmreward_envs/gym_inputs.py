"""What Gymnasium environments are given, checked: render modes, seeds and actions."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from gymnasium.vector import VectorEnv
from jaxtyping import Int64
from numpy.typing import NDArray
from torch import Tensor


def check_render_mode(render_mode: Any) -> None:
    """Refuse every render mode but ``"rgb_array"`` and ``None``."""
    if render_mode not in (None, "rgb_array"):
        raise ValueError(
            f"got render_mode={render_mode!r}; frames are drawn, not windows: use 'rgb_array'"
        )


def row_seeds(
    envs: VectorEnv[Any, Any, Any], seed: int | Sequence[int] | None
) -> Int64[Tensor, " N"] | None:
    """Return the seed of each row, ``seed``, ``seed + 1`` … if one was given.

    ``None`` is answered by seeds drawn from ``envs.np_random`` the first time, and by ``None``
    later. A seed also seeds ``envs.np_random``.

    Raises:
        ValueError: If there is neither one seed nor one for each row.
    """
    if seed is None:
        if envs._np_random is not None:
            return None
        return torch.from_numpy(envs.np_random.integers(2**62, size=envs.num_envs))
    if isinstance(seed, (int, np.integer)):
        VectorEnv.reset(envs, seed=int(seed))
        return torch.arange(envs.num_envs) + int(seed)
    if len(seed) != envs.num_envs:
        raise ValueError(f"got {len(seed)} seeds, expected one or {envs.num_envs}")
    VectorEnv.reset(envs, seed=int(seed[0]))
    return torch.tensor([int(value) for value in seed])


def checked_actions(
    actions: NDArray[np.int64], num_envs: int, num_actions: int
) -> Int64[Tensor, " N"]:
    """Return one action for each row as a tensor.

    Raises:
        ValueError: If they are no integers, not one for each row, or outside the action space.
    """
    actions = np.asarray(actions)
    if actions.shape != (num_envs,) or actions.dtype.kind not in "iu":
        raise ValueError(
            f"actions must be {num_envs} integers, got {actions.dtype} {actions.shape}"
        )
    if not ((actions >= 0) & (actions < num_actions)).all():
        raise ValueError(
            f"actions must lie in 0..{num_actions - 1}, got {actions.min()}..{actions.max()}"
        )
    return torch.from_numpy(actions.astype(np.int64))
