"""A square grid of cells, and five moves on it.

Cells are numbered ``y * size + x``; y grows downwards, as in a picture.

Axis letters: ``N`` rows of a batch, ``P`` cells.
"""

import functools
from collections.abc import Sequence
from enum import IntEnum
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Int64
from numpy.typing import NDArray
from torch import Tensor

Cells = Sequence[int] | Sequence[Sequence[int]] | NDArray[np.integer[Any]]
"""One (x, y) for all rows of a batch, or one for each row."""


class Move(IntEnum):
    """What one step on a grid can be."""

    STAY = 0
    LEFT = 1
    RIGHT = 2
    UP = 3
    DOWN = 4


@functools.cache
def _offsets(device: torch.device) -> Int64[Tensor, "5 2"]:
    """(dx, dy) of every `Move`."""
    return torch.tensor(((0, 0), (-1, 0), (1, 0), (0, -1), (0, 1)), device=device)


def move(
    position: Int64[Tensor, "N 2"], actions: Int64[Tensor, " N"], size: int
) -> Int64[Tensor, "N 2"]:
    """Return where each `Move` leads; who walks into a wall stays where they are.

    Raises:
        IndexError: If an action is no `Move` (on a CPU; CUDA reports a device-side assertion).
    """
    offset = _offsets(actions.device).index_select(0, actions)
    return (position + offset).clamp_(0, size - 1)


def move_towards(
    position: Int64[Tensor, "N 2"], target: Int64[Tensor, "N 2"]
) -> Int64[Tensor, " N"]:
    """Return the `Move` of a shortest way, sideways first; who has arrived stays."""
    dx, dy = (target - position).unbind(dim=1)
    sideways = torch.where(dx < 0, Move.LEFT, Move.RIGHT)
    along = torch.where(dy < 0, Move.UP, Move.DOWN)
    return torch.where(dx != 0, sideways, torch.where(dy != 0, along, Move.STAY))


def move_straight_towards(
    position: Int64[Tensor, "N 2"], target: Int64[Tensor, "N 2"]
) -> Int64[Tensor, " N"]:
    """Return the `Move` of the shortest way that keeps nearest to a straight line."""
    distance = (target - position).abs()
    is_sideways = distance[:, :1] > distance[:, 1:]
    x = torch.where(is_sideways, target[:, :1], position[:, :1])
    return move_towards(position, torch.cat([x, target[:, 1:]], dim=1))


def cell_position(cells: Int64[Tensor, " N"], size: int) -> Int64[Tensor, "N 2"]:
    """Return (x, y) of numbered cells."""
    return torch.stack((cells % size, cells // size), dim=1)


def is_in_cell(position: Int64[Tensor, "N 2"], size: int) -> Bool[Tensor, "N P"]:
    """Return for every cell, by its number, whether each position is in it."""
    cell = position[:, 1:] * size + position[:, :1]
    return cell == torch.arange(size**2, device=position.device)


def numbered_cells(name: str, positions: Any, num_rows: int, size: int) -> Int64[Tensor, " N"]:
    """Number the cells that a user gave as (x, y): one pair for all rows, or one for each.

    Raises:
        ValueError: If they are not pairs of integers on the grid; ``name`` says what they are for.
    """
    given = np.asarray(positions)
    if given.dtype.kind not in "iu" or given.shape not in {(2,), (num_rows, 2)}:
        raise ValueError(
            f"got {name}={positions!r}, expected (x, y) in whole cells"
            + (f", or {num_rows} such pairs" if num_rows > 1 else "")
        )
    if given.min() < 0 or given.max() >= size:
        raise ValueError(f"got {name}={positions!r}, expected x and y in 0..{size - 1}")
    x, y = np.broadcast_to(given, (num_rows, 2)).astype(np.int64).T
    return torch.from_numpy(y * size + x)
