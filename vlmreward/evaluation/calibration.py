"""A reward threshold with a promised false-positive rate.

False rewards hurt a learner more than missed ones (BiMI, arXiv 2409.15922), so the threshold is
chosen from the scores of frames in which the goal is known not to be achieved.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

_ROUNDING = 1e-9  # (n + 1) · rate is meant exactly: 100 · 0.07 must not become 7.000000000000001


def threshold_for_false_positive_rate(negative_scores: npt.ArrayLike, rate: float) -> float:
    """Return the split-conformal threshold: pay where the score is strictly greater.

    With n negative scores sorted increasingly, the threshold is the k-th smallest, where
    k = ⌈(n + 1)(1 − rate)⌉. If a new negative score is exchangeable with the given ones, then
    P(score > threshold) ≤ rate, over the draw of the given scores and of the new one together
    (Vovk et al. 2005; Papadopoulos et al. 2002). Nothing else is assumed of the scores. For one
    fixed set of given scores the rate varies around that, with a standard deviation of about
    √(rate (1 − rate) / n).

    Args:
        negative_scores: Scores of frames in which the goal is not achieved, finite [n], none of
            them used to fit the reward model. To cover many goals, pool scores of all of them: the
            promise then holds for a goal drawn as they were, not for each goal.
        rate: Largest acceptable share of negatives that are paid, in (0, 1).

    Raises:
        ValueError: If the rate is outside (0, 1), a score is not finite, the scores are not
            one-axis, or there are too few of them: n must be at least 1 / rate − 1.

    Example:
        >>> threshold_for_false_positive_rate(np.arange(99) / 100, rate=0.05)  # the 95th of 99
        0.94
    """
    scores = np.asarray(negative_scores, dtype=np.float64)
    if not 0.0 < rate < 1.0:
        raise ValueError(f"rate must be strictly between 0 and 1, got {rate}")
    if scores.ndim != 1:
        raise ValueError(f"negative_scores must have shape [n], got {list(scores.shape)}")
    if not np.isfinite(scores).all():
        raise ValueError(
            f"negative_scores must be finite, got {int((~np.isfinite(scores)).sum())} of "
            f"{scores.size} that are NaN or infinite"
        )
    allowed_above = math.floor((scores.size + 1) * rate + _ROUNDING)
    if allowed_above < 1:
        needed = math.ceil(1.0 / rate - _ROUNDING) - 1
        raise ValueError(
            f"a false-positive rate of {rate} needs at least {needed} negative scores, "
            f"got {scores.size}; add negative frames or accept a higher rate"
        )
    rank = scores.size + 1 - allowed_above
    return float(np.sort(scores)[rank - 1])
