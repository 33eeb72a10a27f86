"""A reward threshold with a promise: of a false-positive rate, or of a precision.

False rewards hurt a learner more than missed ones (BiMI, arXiv 2409.15922). A false-positive rate
is promised from frames in which the goal is known not to be achieved; a precision depends on how
often it is achieved, too, and needs labels of both kinds.

Shapes: N frames, n of them without the goal.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from jaxtyping import Int64
from scipy import stats

from vlmreward.evaluation.curves import OperatingPoint, check_labels_and_scores, operating_point

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


@dataclass(frozen=True)
class PrecisionThreshold:
    """A threshold, and the precision that it is promised to have.

    Attributes:
        at_threshold: Rewards of the labelled frames at the threshold.
        precision_low: Lower confidence bound of the precision, at least the one wanted.
        confidence: Of the bound, over the draw of the labelled frames, in (0, 1).
        num_candidates: Thresholds that were tried; the bound allows for all of them.
    """

    at_threshold: OperatingPoint
    precision_low: float
    confidence: float
    num_candidates: int

    @property
    def threshold(self) -> float:
        """Pay where the score is strictly greater."""
        return self.at_threshold.threshold

    def to_dict(self) -> dict[str, float | int]:
        """Return flat numbers, ready for JSON."""
        return {
            **self.at_threshold.to_dict(),
            "precision_low": self.precision_low,
            "confidence": self.confidence,
            "num_candidates": self.num_candidates,
        }


def threshold_for_precision(
    labels: npt.ArrayLike,
    scores: npt.ArrayLike,
    precision: float,
    *,
    confidence: float = 0.95,
    num_candidates: int = 10,
) -> PrecisionThreshold:
    """Return the lowest threshold whose precision is surely high enough.

    K candidate thresholds are order statistics of the scores, of ranks fixed beforehand: given the
    threshold and how many frames exceed it, those frames are independent draws from all that exceed
    it, so the achieved among them are binomial. Each candidate has its Clopper–Pearson lower bound
    (1934) at level (1 − confidence) / K, so that all K hold together (Bonferroni). Hence, for
    frames drawn independently as later ones will be, P(precision ≥ wanted) ≥ confidence, over the
    draw of the labelled frames.

    The promise is for frames like these, with the goal achieved as often as here. A learner
    changes that: while it rarely succeeds, precision is lower at the same threshold. A promise that
    does not depend on it is the false-positive rate's.

    Args:
        labels: Whether the goal is achieved in each frame, bool [N], not used to fit the model.
        scores: What the reward model says of each frame, finite [N].
        precision: Share of paid frames in which the goal shall be achieved, in (0, 1).
        confidence: Of the promise, in (0, 1).
        num_candidates: K, at least 1. Fewer candidates have tighter bounds, but are further apart.

    Raises:
        TypeError: If labels are not bool.
        ValueError: If shapes differ or are not one-axis, a score is not finite, the labels are all
            the same, a setting is out of range, there are too few frames for any promise, or no
            candidate can be promised to be precise enough.

    Example:
        >>> scores = np.arange(400) / 400
        >>> found = threshold_for_precision(scores > 0.5, scores, precision=0.9)
        >>> found.at_threshold.precision >= found.precision_low >= 0.9
        True
    """
    checked_labels, checked_scores = check_labels_and_scores(labels, scores)
    for name, value in (("precision", precision), ("confidence", confidence)):
        if not 0.0 < value < 1.0:
            raise ValueError(f"{name} must be strictly between 0 and 1, got {value}")
    if num_candidates < 1:
        raise ValueError(f"num_candidates must be at least 1, got {num_candidates}")
    level = 1.0 - (1.0 - confidence) / num_candidates
    ranks = _numbers_paid(checked_scores.size, precision, level, num_candidates)
    decreasing = np.sort(checked_scores)[::-1]
    best: tuple[float, OperatingPoint] | None = None
    for rank in ranks:  # the highest threshold first: the last that passes is the lowest
        point = operating_point(checked_labels, checked_scores, float(decreasing[rank]))
        bound = _lower_bound(point, level)
        if best is None or bound >= precision or bound > best[0] < precision:
            best = (bound, point)
    assert best is not None
    low, at_threshold = best
    if low < precision:
        paid = at_threshold.true_positives + at_threshold.false_positives
        raise ValueError(
            f"no threshold can be promised a precision of {precision}: the best lower bound is "
            f"{low:.3f}, from {at_threshold.true_positives} of {paid} paid frames; add labelled "
            "frames, lower the precision or the confidence, or use a better reward model"
        )
    return PrecisionThreshold(at_threshold, low, confidence, num_candidates)


def _numbers_paid(
    num_frames: int, precision: float, level: float, num_candidates: int
) -> Int64[np.ndarray, " K"]:
    """How many frames each candidate pays, increasing: from the fewest that could pass."""
    # Without an error among m paid frames the bound is (1 − level)^(1/m).
    fewest = math.ceil(math.log(1.0 - level) / math.log(precision) - _ROUNDING)
    if fewest >= num_frames:
        raise ValueError(
            f"a precision of {precision} needs at least {fewest + 1} labelled frames for "
            f"{num_candidates} candidate thresholds, got {num_frames}; add frames, or lower the "
            "precision, the confidence or num_candidates"
        )
    numbers = np.geomspace(fewest, num_frames - 1, num_candidates)
    return np.unique(np.round(numbers).astype(np.int64))


def _lower_bound(point: OperatingPoint, level: float) -> float:
    paid = point.true_positives + point.false_positives
    if not paid:  # ties: no frame exceeds the threshold
        return 0.0
    test = stats.binomtest(point.true_positives, paid, alternative="greater")
    return float(test.proportion_ci(confidence_level=level, method="exact").low)
