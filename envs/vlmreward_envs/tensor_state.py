"""The state of a batch of simulators: tensors with one row each.

Axis letters: ``B`` simulators.
"""

from dataclasses import dataclass, fields
from typing import TypeVar

import torch
from jaxtyping import Bool
from torch import Tensor

State = TypeVar("State", bound="TensorState")


@dataclass(frozen=True)
class TensorState:
    """A data class of tensors that have the simulators on their first axis."""

    def __len__(self) -> int:
        """Return the number of simulators in the batch."""
        return len(getattr(self, fields(self)[0].name))

    def __getitem__(self: State, rows: Tensor | slice) -> State:
        """Return some of the rows, selected by a slice, indices, or a boolean mask."""
        return type(self)(**{f.name: getattr(self, f.name)[rows] for f in fields(self)})

    def where(self: State, mask: Bool[Tensor, " B"], other: State) -> State:
        """Return this state where ``mask`` is true, and ``other`` elsewhere."""

        def select(mine: Tensor, theirs: Tensor) -> Tensor:
            return torch.where(mask.view(-1, *(1,) * (mine.ndim - 1)), mine, theirs)

        return type(self)(
            **{f.name: select(getattr(self, f.name), getattr(other, f.name)) for f in fields(self)}
        )
