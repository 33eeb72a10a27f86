"""Rows of batched observations, and the same again; what is None is missing in all rows.

Axes: `N` environments.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Bool
from numpy.typing import NDArray

Obs = dict[str, NDArray[Any]]
"""Observations by key, one row per environment."""


def rows_where(mask: Bool[NDArray[Any], " N"]) -> list[int]:
    """Returns the rows at which a mask is true, increasing."""
    return [int(index) for index in np.flatnonzero(mask)]


def row_of(obs: Mapping[str, Any], row: int) -> dict[str, Any]:
    """Returns one environment's observation."""
    return {key: None if values is None else values[row] for key, values in obs.items()}


def rows_of(obs: Mapping[str, Any], rows: Sequence[int]) -> dict[str, Any]:
    """Returns the observations of some environments, as a batch."""
    return {
        key: None if values is None else np.asarray(values)[list(rows)]
        for key, values in obs.items()
    }


def replace_rows(
    obs: dict[str, Any], rows: Sequence[int], by: Sequence[Mapping[str, Any]]
) -> dict[str, Any]:
    """Returns a batch in which some rows are others; the batch itself stays as it is."""
    if not rows:
        return obs
    replaced = {key: np.array(values) for key, values in obs.items() if values is not None}
    for row, other in zip(rows, by, strict=True):
        for key, values in replaced.items():
            values[row] = other[key]
    return {**obs, **replaced}
