"""Whether a reward ranks trajectories as the true reward does.

An agent that maximises a return cares which trajectory has more of it, not by how much.

Shapes: T steps, E trajectories.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from jaxtyping import Float64
from scipy import stats

from vlmreward.evaluation.bootstrap import Estimate, check_settings, percentile_interval
from vlmreward.evaluation.epic import check_pair

_MAX_TRIES = 1000


@dataclass(frozen=True)
class ReturnAgreement:
    """How alike two rankings of trajectories are, from −1 (reversed) to 1 (the same).

    Attributes:
        spearman: Correlation of the ranks.
        kendall: Pairs ranked alike less pairs ranked otherwise, over all pairs (τ-b).
        num_trajectories: How many were ranked.
        confidence: Coverage of the intervals, in (0, 1).
    """

    spearman: Estimate
    kendall: Estimate
    num_trajectories: int
    confidence: float

    def to_dict(self) -> dict[str, object]:
        """Return nested plain data, ready for JSON."""
        return {
            "spearman": self.spearman.to_dict(),
            "kendall": self.kendall.to_dict(),
            "num_trajectories": self.num_trajectories,
            "confidence": self.confidence,
        }


def episode_returns(
    rewards: npt.ArrayLike, episode_index: npt.ArrayLike
) -> Float64[np.ndarray, " E"]:
    """Sum the rewards of each trajectory.

    Args:
        rewards: One per step, finite [T].
        episode_index: Which trajectory each step belongs to, integer [T].

    Returns:
        One return per trajectory, by increasing index.

    Raises:
        TypeError: If the indices are not integers.
        ValueError: If shapes differ or are not one-axis, there is no step, or a reward is not
            finite.

    Example:
        >>> episode_returns([0.5, 0.25, 1.0], [7, 7, 3])
        array([1.  , 0.75])
    """
    reward_array = np.asarray(rewards, dtype=np.float64)
    index_array = np.asarray(episode_index)
    if not np.issubdtype(index_array.dtype, np.integer):
        raise TypeError(f"episode_index must hold integers, got {index_array.dtype}")
    if reward_array.ndim != 1 or reward_array.shape != index_array.shape or not reward_array.size:
        raise ValueError(
            "rewards and episode_index must both have shape [T], T at least 1, "
            f"got {list(reward_array.shape)} and {list(index_array.shape)}"
        )
    num_bad = int((~np.isfinite(reward_array)).sum())
    if num_bad:
        raise ValueError(
            f"rewards must be finite, got {num_bad} of {reward_array.size} that are NaN or infinite"
        )
    _, position = np.unique(index_array, return_inverse=True)
    return np.bincount(position, weights=reward_array)


def spearman_correlation(returns: npt.ArrayLike, true_returns: npt.ArrayLike) -> float:
    """Pearson correlation of the ranks, ties sharing their mean rank, in [−1, 1].

    Returns that are all the same rank nothing: their correlation is taken as 0.

    Args:
        returns: Of the reward model, finite [E].
        true_returns: Of the task, finite [E], not all the same.

    Raises:
        ValueError: If shapes differ or are not one-axis, a return is not finite, or the true
            returns are all the same.

    Example:
        >>> round(spearman_correlation([0.1, 0.2, 0.9, 0.8], [1.0, 2.0, 3.0, 4.0]), 3)
        0.8
    """
    pair = check_pair("returns", returns, "true_returns", true_returns)
    return 0.0 if np.ptp(pair[0]) == 0.0 else float(stats.spearmanr(*pair).statistic)


def kendall_correlation(returns: npt.ArrayLike, true_returns: npt.ArrayLike) -> float:
    r"""Kendall's τ-b, in [−1, 1]: do both returns order two trajectories the same way?

    .. math:: \tau_b = (C - D) / \sqrt{(C + D + T_r)(C + D + T_t)}

    over all pairs: `C` ordered alike, `D` the other way, `T_r` and `T_t` tied in one return only
    (Kendall 1945). Returns that are all the same order nothing: τ is taken as 0.

    Args:
        returns: Of the reward model, finite [E].
        true_returns: Of the task, finite [E], not all the same.

    Raises:
        ValueError: If shapes differ or are not one-axis, a return is not finite, or the true
            returns are all the same.

    Example:
        >>> round(kendall_correlation([0.1, 0.2, 0.9, 0.8], [1.0, 2.0, 3.0, 4.0]), 3)  # (5 − 1) / 6
        0.667
    """
    pair = check_pair("returns", returns, "true_returns", true_returns)
    return 0.0 if np.ptp(pair[0]) == 0.0 else float(stats.kendalltau(*pair).statistic)


def return_agreement(
    returns: npt.ArrayLike,
    true_returns: npt.ArrayLike,
    *,
    generator: np.random.Generator,
    num_resamples: int = 1000,
    confidence: float = 0.95,
) -> ReturnAgreement:
    """Compare the rankings that two returns give trajectories, with bootstrap intervals.

    Trajectories are resampled, and a resample in which all true returns are the same is drawn
    again. Trajectories should differ in how good they are, as those of a learner's whole history
    do: among equally good ones there is nothing to rank.

    Args:
        returns: Of the reward model, finite [E]; see `episode_returns`.
        true_returns: Of the task, finite [E], not all the same.
        generator: Source of the resamples.
        num_resamples: At least 1.
        confidence: Coverage of the intervals, in (0, 1).

    Raises:
        ValueError: If shapes differ or are not one-axis, a return is not finite, the true returns
            are all the same, or a setting is out of range.

    Example:
        >>> rng = np.random.default_rng(0)
        >>> true_returns = rng.random(50)
        >>> agreement = return_agreement(
        ...     true_returns + rng.normal(0.0, 0.1, 50), true_returns, generator=rng,
        ...     num_resamples=100,
        ... )
        >>> agreement.kendall.low > 0.5, agreement.num_trajectories
        (True, 50)
    """
    check_settings(num_resamples, confidence)
    pair = check_pair("returns", returns, "true_returns", true_returns)
    draws = [_rows_that_differ(pair[1], generator) for _ in range(num_resamples)]

    def estimate(statistic: Callable[..., float]) -> Estimate:
        values = [statistic(pair[0][rows], pair[1][rows]) for rows in draws]
        return percentile_interval(statistic(*pair), values, confidence)

    return ReturnAgreement(
        spearman=estimate(spearman_correlation),
        kendall=estimate(kendall_correlation),
        num_trajectories=pair[0].size,
        confidence=confidence,
    )


def _rows_that_differ(
    true_returns: Float64[np.ndarray, " E"], generator: np.random.Generator
) -> np.ndarray:
    for _ in range(_MAX_TRIES):
        rows = generator.integers(true_returns.size, size=true_returns.size)
        if np.ptp(true_returns[rows]) > 0.0:
            return rows
    raise ValueError(
        f"all of {_MAX_TRIES} resamples held equal true returns: too few of the "
        f"{true_returns.size} trajectories differ; add some that are better or worse"
    )
