"""Spaces of observations and of actions.

Observations are symbolic, pixels, or embeddings; actions are discrete or continuous. A space is
plain data.

Axis letters: ``O`` components of a symbolic observation, ``H W`` pixels, ``D`` width of an
embedding, ``A`` components of a continuous action.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor


def smallest_unsigned(size: int) -> np.dtype[np.unsignedinteger]:
    """Smallest type that holds ``0 … size - 1`` without loss."""
    return np.min_scalar_type(size - 1)


@dataclass(frozen=True)
class Symbolic:
    """Observations of ``O`` whole numbers (int64), as in Gymnasium's `MultiDiscrete`.

    Attributes:
        sizes: Number of values of each component; component ``i`` lies in ``0 … sizes[i] - 1``.

    Raises:
        ValueError: If there is no component, or a size is below 1.
    """

    sizes: tuple[int, ...]

    def __post_init__(self) -> None:
        if not self.sizes or min(self.sizes) < 1:
            raise ValueError(
                f"got observation_sizes={self.sizes}, expected one size of at least 1 for each "
                "component of the observation"
            )

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of one observation."""
        return (len(self.sizes),)

    @property
    def dtype(self) -> torch.dtype:
        """Type that tasks hand out."""
        return torch.int64

    @property
    def stored_dtype(self) -> np.dtype[Any]:
        """Smallest type that loses nothing."""
        return smallest_unsigned(max(self.sizes))

    def check(self, values: np.ndarray) -> None:
        """Refuse observations outside the space with a `ValueError`."""
        _check_numbers("observations", values, np.array(self.sizes))


@dataclass(frozen=True)
class Pixels:
    """Observations are RGB frames, uint8 0–255, shape (H, W, 3).

    Attributes:
        height: Rows.
        width: Columns.

    Raises:
        ValueError: If a side is below 1.
    """

    height: int
    width: int

    def __post_init__(self) -> None:
        if min(self.height, self.width) < 1:
            raise ValueError(f"got frames of {self.height}x{self.width}, expected at least 1x1")

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of one observation."""
        return (self.height, self.width, 3)

    @property
    def dtype(self) -> torch.dtype:
        """Type that tasks hand out."""
        return torch.uint8

    @property
    def stored_dtype(self) -> np.dtype[Any]:
        """Smallest type that loses nothing."""
        return np.dtype(np.uint8)

    def check(self, values: np.ndarray) -> None:
        """Refuse observations outside the space with a `ValueError`."""
        if values.dtype != np.uint8:
            raise ValueError(f"got frames of {values.dtype}, expected uint8 from 0 to 255")


@dataclass(frozen=True)
class Embedding:
    """Observations are vectors of a frozen encoder, float32, shape (D,).

    Attributes:
        dim: Width ``D``.

    Raises:
        ValueError: If the width is below 1.
    """

    dim: int

    def __post_init__(self) -> None:
        if self.dim < 1:
            raise ValueError(f"got embeddings of width {self.dim}, expected at least 1")

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of one observation."""
        return (self.dim,)

    @property
    def dtype(self) -> torch.dtype:
        """Type that tasks hand out."""
        return torch.float32

    @property
    def stored_dtype(self) -> np.dtype[Any]:
        """Type that loses nothing."""
        return np.dtype(np.float32)

    def check(self, values: np.ndarray) -> None:
        """Refuse observations outside the space with a `ValueError`."""
        if not np.isfinite(values).all():
            raise ValueError("got observations with NaN or infinity, expected finite numbers")


@dataclass(frozen=True)
class Discrete:
    """Actions are numbers ``0 … num_actions - 1`` (int64).

    Raises:
        ValueError: If there are fewer than two.
    """

    num_actions: int

    def __post_init__(self) -> None:
        if self.num_actions < 2:
            raise ValueError(f"got num_actions={self.num_actions}, expected at least 2")

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of one action."""
        return ()

    @property
    def dtype(self) -> torch.dtype:
        """Type that tasks expect."""
        return torch.int64

    @property
    def stored_dtype(self) -> np.dtype[Any]:
        """Smallest type that loses nothing."""
        return smallest_unsigned(self.num_actions)

    def check(self, values: np.ndarray) -> None:
        """Refuse actions outside the space with a `ValueError`."""
        _check_numbers("actions", values, np.array(self.num_actions))

    def none(self, *batch: int, device: torch.device | None = None) -> Tensor:
        """What stands for the previous action where there is none: ``num_actions``."""
        return torch.full(batch, self.num_actions, device=device)


@dataclass(frozen=True)
class Continuous:
    """Actions are vectors of ``A`` numbers from -1 to 1 (float32).

    Attributes:
        dim: Components ``A``.

    Raises:
        ValueError: If there is none.
    """

    dim: int

    def __post_init__(self) -> None:
        if self.dim < 1:
            raise ValueError(f"got actions of {self.dim} components, expected at least 1")

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of one action."""
        return (self.dim,)

    @property
    def dtype(self) -> torch.dtype:
        """Type that tasks expect."""
        return torch.float32

    @property
    def stored_dtype(self) -> np.dtype[Any]:
        """Type that loses nothing."""
        return np.dtype(np.float32)

    def check(self, values: np.ndarray) -> None:
        """Refuse actions outside the space with a `ValueError`."""
        if not bool((np.abs(values) <= 1.0).all()):
            raise ValueError(
                f"got actions from {values.min()} to {values.max()}, expected -1 to 1: scale them"
            )

    def none(self, *batch: int, device: torch.device | None = None) -> Tensor:
        """What stands for the previous action where there is none: zeros."""
        return torch.zeros(*batch, self.dim, device=device)


ObservationSpace = Symbolic | Pixels | Embedding
ActionSpace = Discrete | Continuous


def _check_numbers(name: str, values: np.ndarray, limit: np.ndarray) -> None:
    if (values < 0).any() or (values >= limit).any():
        raise ValueError(
            f"got {name} from {values.min()} to {values.max()}, expected 0 up to, not including, "
            f"{limit}"
        )
