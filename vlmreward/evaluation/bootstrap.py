"""Bootstrap intervals: how far a number measured on a sample may be off.

Shapes: N rows, R resamples.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from jaxtyping import Int64, Shaped

Rows = Int64[np.ndarray, " K"]
"""Positions of rows, some of them several times."""

_MAX_TRIES = 1000


@dataclass(frozen=True)
class Estimate:
    """A number and its bootstrap interval."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.value:.3f} [{self.low:.3f}, {self.high:.3f}]"

    def to_dict(self) -> dict[str, float]:
        """Return the three numbers, ready for JSON."""
        return {"value": self.value, "low": self.low, "high": self.high}


def bootstrap(
    statistic: Callable[..., float],
    *columns: npt.ArrayLike,
    generator: np.random.Generator,
    strata: npt.ArrayLike | None = None,
    groups: npt.ArrayLike | None = None,
    num_resamples: int = 1000,
    confidence: float = 0.95,
) -> Estimate:
    """Put a percentile interval around any statistic of this package.

    The rows are drawn anew with replacement R times, and the statistic is computed each time
    (Efron and Tibshirani 1993, chapter 13). The interval speaks of other samples drawn as this one
    was: it knows nothing of frames of another kind.

    Args:
        statistic: Maps columns to a number, such as `roc_auc` or `epic_distance`.
        columns: What it takes, in its order, each with N rows.
        generator: Source of the resamples.
        strata: One value per row, [N]. Every resample has as many rows of each as the sample has;
            pass the labels where the statistic needs both kinds. With `groups`, every resample
            has at least one row of each.
        groups: Which rows err together, such as the episode of each frame, [N]. Whole groups are
            drawn. Without it, rows must be independent.
        num_resamples: R, at least 1.
        confidence: Coverage of the interval, in (0, 1).

    Raises:
        ValueError: If there are no columns, lengths differ, there is one group only, a setting is
            out of range, or the groups hold some stratum too rarely to draw it.

    Example:
        >>> from vlmreward.evaluation import roc_auc
        >>> labels = np.arange(40) % 2 == 0
        >>> scores = labels + np.random.default_rng(0).normal(0.0, 0.7, 40)
        >>> estimate = bootstrap(
        ...     roc_auc, labels, scores, strata=labels, generator=np.random.default_rng(0),
        ...     num_resamples=200,
        ... )
        >>> estimate.low < roc_auc(labels, scores) == estimate.value < estimate.high
        True
    """
    check_settings(num_resamples, confidence)
    arrays = [np.asarray(column) for column in columns]
    if not arrays or any(array.ndim == 0 for array in arrays):
        raise ValueError("bootstrap resamples the rows of arrays: pass at least one, with rows")
    if len({len(array) for array in arrays}) > 1:
        raise ValueError(f"columns must be equally long, got {[len(array) for array in arrays]}")
    value = float(statistic(*arrays))
    resamples = resampled_rows(
        len(arrays[0]), num_resamples, generator, strata=strata, groups=groups
    )
    values = [float(statistic(*(array[rows] for array in arrays))) for rows in resamples]
    return percentile_interval(value, values, confidence)


def check_settings(num_resamples: int, confidence: float) -> None:
    """Refuse what no bootstrap can do.

    Raises:
        ValueError: If there is no resample or the confidence is outside (0, 1).
    """
    if num_resamples < 1:
        raise ValueError(f"num_resamples must be at least 1, got {num_resamples}")
    if not 0.0 < confidence < 1.0:
        raise ValueError(f"confidence must be strictly between 0 and 1, got {confidence}")


def percentile_interval(value: float, resampled: npt.ArrayLike, confidence: float) -> Estimate:
    """Take the interval that leaves equal shares of the resampled values on both sides."""
    tail = (1.0 - confidence) / 2.0
    low, high = np.quantile(np.asarray(resampled, np.float64), [tail, 1.0 - tail])
    return Estimate(value, float(low), float(high))


def resampled_rows(
    num_rows: int,
    num_resamples: int,
    generator: np.random.Generator,
    *,
    strata: npt.ArrayLike | None = None,
    groups: npt.ArrayLike | None = None,
) -> Iterator[Rows]:
    """Draw the rows of each resample; see `bootstrap`.

    Raises:
        ValueError: See `bootstrap`.
    """
    if num_rows < 1:
        raise ValueError("there is nothing to resample: the columns are empty")
    strata = _check_column("strata", strata, num_rows)
    groups = _check_column("groups", groups, num_rows)
    if groups is not None:
        return _whole_groups(groups, strata, num_resamples, generator)
    if strata is None:
        strata = np.zeros(num_rows, dtype=np.int64)
    # Last stratum first: where the strata are labels, the achieved rows are drawn first.
    kinds = [np.flatnonzero(strata == value) for value in np.unique(strata)[::-1]]
    return (
        np.concatenate([generator.choice(kind, size=kind.size) for kind in kinds])
        for _ in range(num_resamples)
    )


def _check_column(
    name: str, column: npt.ArrayLike | None, num_rows: int
) -> Shaped[np.ndarray, " N"] | None:
    if column is None:
        return None
    array = np.asarray(column)
    if array.shape != (num_rows,):
        raise ValueError(
            f"{name} must have one value per row, shape [{num_rows}], got {list(array.shape)}"
        )
    return array


def _whole_groups(
    groups: Shaped[np.ndarray, " N"],
    strata: Shaped[np.ndarray, " N"] | None,
    num_resamples: int,
    generator: np.random.Generator,
) -> Iterator[Rows]:
    members = [np.flatnonzero(groups == group) for group in np.unique(groups)]
    if len(members) < 2:
        raise ValueError(
            "expected at least 2 groups to draw from, got 1: with rows of one episode alone there "
            "is no telling how another would differ"
        )
    wanted = set() if strata is None else set(np.unique(strata).tolist())
    for _ in range(num_resamples):
        for _ in range(_MAX_TRIES):
            drawn = generator.integers(len(members), size=len(members))
            rows = np.concatenate([members[index] for index in drawn])
            if strata is None or set(np.unique(strata[rows]).tolist()) == wanted:
                yield rows
                break
        else:
            raise ValueError(
                f"none of {_MAX_TRIES} draws of {len(members)} groups held all of the "
                f"{len(wanted)} strata (such as achieved and not achieved): label more episodes "
                "that show what is rare"
            )
