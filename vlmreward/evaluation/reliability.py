"""Whether a probability means what it says.

Shapes: N frames, K bins that hold frames.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np
import numpy.typing as npt
from jaxtyping import Float64, Int64

from vlmreward.evaluation.bootstrap import (
    Estimate,
    check_settings,
    percentile_interval,
    resampled_rows,
)
from vlmreward.evaluation.curves import check_labels_and_scores

Binning: TypeAlias = Literal["equal_width", "equal_mass"]
"""Bins of the same width in probability, or with the same number of frames (ties stay together)."""


@dataclass(frozen=True)
class ReliabilityCurve:
    """How often the goal was achieved where the reward model said it is, with probability p.

    A calibrated model lies on the diagonal. Bins without frames are left out.

    Attributes:
        probability: Mean probability of each bin's frames, increasing.
        frequency: Share of each bin's frames in which the goal is achieved.
        count: Number of each bin's frames.
    """

    probability: Float64[np.ndarray, " K"]
    frequency: Float64[np.ndarray, " K"]
    count: Int64[np.ndarray, " K"]

    @property
    def expected_calibration_error(self) -> float:
        """Mean gap to the diagonal, Σ_k n_k |frequency_k − probability_k| / N, in [0, 1]."""
        gaps = np.abs(self.frequency - self.probability)
        return float((self.count * gaps).sum() / self.count.sum())

    def to_dict(self) -> dict[str, float | list[float] | list[int]]:
        """Return plain numbers and lists, ready for JSON."""
        return {
            "probability": self.probability.tolist(),
            "frequency": self.frequency.tolist(),
            "count": self.count.tolist(),
            "expected_calibration_error": self.expected_calibration_error,
        }


def reliability_curve(
    labels: npt.ArrayLike,
    probabilities: npt.ArrayLike,
    *,
    num_bins: int = 10,
    binning: Binning = "equal_width",
) -> ReliabilityCurve:
    """Compare probabilities with frequencies, bin by bin (Guo et al. 2017, arXiv 1706.04599).

    Bins are closed on the right. Frames of a goal are mostly told apart clearly, so that with
    bins of equal width most frames lie in the first and the last bin.

    Args:
        labels: Whether the goal is achieved in each frame, bool [N].
        probabilities: Scores of a softmax or a sigmoid head, in [0, 1], [N].
        num_bins: At least 1.
        binning: Where the bins end.

    Raises:
        TypeError: If labels are not bool.
        ValueError: If shapes differ or are not one-axis, a score is no probability, the labels are
            all the same, or a setting is unknown.

    Example:
        >>> labels = [False, False, True, False, True, True]
        >>> curve = reliability_curve(labels, [0.1, 0.1, 0.1, 0.8, 0.8, 0.8], num_bins=2)
        >>> curve.frequency.round(2).tolist(), curve.count.tolist()
        ([0.33, 0.67], [3, 3])
        >>> round(curve.expected_calibration_error, 3)  # (|1/3 − .1| + |2/3 − .8|) / 2
        0.183
    """
    checked_labels, checked = check_labels_and_scores(labels, probabilities)
    bins = bin_of_each(checked, num_bins, binning)
    count = np.bincount(bins)
    held = np.flatnonzero(count)
    probability = np.bincount(bins, weights=checked)[held] / count[held]
    frequency = np.bincount(bins, weights=checked_labels)[held] / count[held]
    return ReliabilityCurve(probability, frequency, count[held])


def expected_calibration_error(
    labels: npt.ArrayLike,
    probabilities: npt.ArrayLike,
    *,
    generator: np.random.Generator,
    num_bins: int = 10,
    binning: Binning = "equal_width",
    groups: npt.ArrayLike | None = None,
    num_resamples: int = 1000,
    confidence: float = 0.95,
) -> Estimate:
    """Mean gap between probability and frequency (ECE), with an interval.

    A gap in either direction counts, so chance adds to the ECE: it is above 0 even for a calibrated
    model, and on a resample, which has that chance twice, higher still. The interval is therefore
    the basic one, the percentiles mirrored at the value, [2v − high, 2v − low], cut to [0, 1]
    (Davison and Hinkley 1997, section 5.2.1): it lies lower than the value where chance is large.
    It is still too narrow where the true error is as small as what chance adds: with 150 frames, 5
    bins and a true ECE of .048, intervals meant to cover it 90 % of the time did so 78 %.

    Args:
        labels: Whether the goal is achieved in each frame, bool [N].
        probabilities: Scores of a softmax or a sigmoid head, in [0, 1], [N].
        generator: Source of the resamples.
        num_bins: At least 1.
        binning: Where the bins end; they are found once, from the given frames.
        groups: Which frames err together, such as the episode of each; see `bootstrap`.
        num_resamples: At least 1.
        confidence: Coverage of the interval, in (0, 1).

    Raises:
        TypeError: If labels are not bool.
        ValueError: As `reliability_curve` and `bootstrap`.

    Example:
        >>> rng = np.random.default_rng(0)
        >>> probabilities = rng.random(2000)
        >>> overconfident = rng.random(2000) < 0.25 + probabilities / 2
        >>> ece = expected_calibration_error(overconfident, probabilities, generator=rng)
        >>> ece.low < 0.125 < ece.high  # the mean of |p − (1/4 + p/2)| for uniform p
        True
    """
    check_settings(num_resamples, confidence)
    curve = reliability_curve(labels, probabilities, num_bins=num_bins, binning=binning)
    checked_labels, checked = check_labels_and_scores(labels, probabilities)
    bins = bin_of_each(checked, num_bins, binning)
    excess = checked_labels - checked
    resampled = [
        np.abs(np.bincount(bins[rows], weights=excess[rows])).sum() / rows.size
        for rows in resampled_rows(checked.size, num_resamples, generator, groups=groups)
    ]
    return basic_interval(curve.expected_calibration_error, resampled, confidence)


def basic_interval(value: float, resampled: npt.ArrayLike, confidence: float) -> Estimate:
    """Mirror the percentiles at the value, within [0, 1]; see `expected_calibration_error`."""
    mirrored = percentile_interval(value, resampled, confidence)
    low, high = np.clip([2 * value - mirrored.high, 2 * value - mirrored.low], 0.0, 1.0)
    return Estimate(value, float(low), float(high))


def bin_of_each(
    probabilities: Float64[np.ndarray, " N"], num_bins: int, binning: Binning
) -> Int64[np.ndarray, " N"]:
    """Number the bin that each probability falls into.

    Raises:
        ValueError: If one is outside [0, 1] or a setting is unknown.
    """
    if num_bins < 1:
        raise ValueError(f"num_bins must be at least 1, got {num_bins}")
    outside = (probabilities < 0.0) | (probabilities > 1.0)
    if outside.any():
        raise ValueError(
            f"probabilities must lie in [0, 1], got {probabilities[outside][0]:.4g}: calibration "
            "is asked of a softmax or a sigmoid head, not of cosines"
        )
    inner = np.linspace(0.0, 1.0, num_bins + 1)[1:-1]
    if binning == "equal_mass":
        inner = np.quantile(probabilities, inner)
    elif binning != "equal_width":
        raise ValueError(f"binning must be 'equal_width' or 'equal_mass', got {binning!r}")
    return np.searchsorted(inner, probabilities, side="left").astype(np.int64)
