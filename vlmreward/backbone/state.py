"""What is wrong with a state that a model is handed: it belongs to another model or another batch.

Axis letters: ``B`` batch.
"""

from __future__ import annotations

import torch
from torch import Tensor


class StateError(ValueError):
    """A state, or what begins with it, that is not of this model or not of this batch."""


def check_is_first(is_first: Tensor, batch_size: int) -> None:
    """Say why some flags are not one for each row.

    Args:
        is_first: Expected: bool ``[B]``.
        batch_size: B.

    Raises:
        StateError: If they are others: one flag for all rows would be spread over them silently.
    """
    if is_first.dtype != torch.bool or tuple(is_first.shape) != (batch_size,):
        raise StateError(
            f"got is_first of dtype {is_first.dtype} and shape {list(is_first.shape)}, expected "
            f"torch.bool and [{batch_size}], one flag for each row of the batch"
        )


def check_state_shape(name: str, state: Tensor, expected: tuple[int, ...]) -> None:
    """Say why a state is not of this model and this batch.

    Args:
        name: Of the state.
        state: What was handed.
        expected: Its shape, rows first.

    Raises:
        StateError: If the shape is another.
    """
    if tuple(state.shape) == expected:
        return
    whose = "batch" if state.shape[1:] == torch.Size(expected[1:]) else "model"
    raise StateError(
        f"got {name} of shape {list(state.shape)}, expected {list(expected)}: it is of another "
        f"{whose}; begin with a new state, or pick the rows that go on"
    )
