"""The measures of this package on many bootstrap resamples at once.

A resample is given as how often it holds each frame. That turns R passes over N frames into a few
array operations, so that a grid of reward models costs seconds. Tests hold each function to its
twin for a single sample.

Shapes: N frames, R resamples, K bins.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from jaxtyping import Bool, Float64, Int64

Counts = Float64[np.ndarray, "R N"]
"""How often each resample holds each frame."""

Values = Float64[np.ndarray, " R"]

_PIECE = 2_000_000  # numbers

_CONSTANT = 1e-12  # a share of variance that only rounding leaves


def counts_of_rows(resamples: Iterable[Int64[np.ndarray, " K"]], num_rows: int) -> Counts:
    """Turn rows into how often each occurs."""
    return np.array([np.bincount(rows, minlength=num_rows) for rows in resamples], np.float64)


def ranking_measures(
    labels: Bool[np.ndarray, " N"], scores: Float64[np.ndarray, " N"], counts: Counts
) -> tuple[Values, Values]:
    """Average precision and ROC AUC; every resample must hold both kinds of label."""
    order = np.argsort(-scores, kind="stable")
    # Piece by piece, as several arrays as large as the counts are needed.
    pieces = np.array_split(counts, -(-counts.size // _PIECE))
    measured = [
        _ranking_measures(labels[order], scores[order], piece[:, order]) for piece in pieces
    ]
    average_precision, auc = (np.concatenate(values) for values in zip(*measured, strict=True))
    return average_precision, auc


def _ranking_measures(
    labels: Bool[np.ndarray, " N"], scores: Float64[np.ndarray, " N"], counts: Counts
) -> tuple[Values, Values]:
    """Measures frames that are sorted, highest score first."""
    # Frames with equal scores are paid together: only the last of a tie is a point of the curves.
    last_of_tie = np.flatnonzero(np.append(np.diff(scores) != 0.0, True))
    paid = np.cumsum(counts, axis=1)[:, last_of_tie]
    true = np.cumsum(counts * labels, axis=1)[:, last_of_tie]
    false = paid - true
    new_true = np.diff(true, axis=1, prepend=0.0)
    new_false = np.diff(false, axis=1, prepend=0.0)
    precision = np.divide(true, paid, out=np.zeros_like(paid), where=paid > 0)
    num_true, num_false = true[:, -1], false[:, -1]
    average_precision = (new_true * precision).sum(axis=1) / num_true
    area = (new_false * (true - new_true / 2)).sum(axis=1)
    return average_precision, area / (num_true * num_false)


def epic_distances(
    rewards: Float64[np.ndarray, " N"], true_rewards: Float64[np.ndarray, " N"], counts: Counts
) -> Values:
    """EPIC distances; a reward that is constant on a resample is at √½, see `epic_distance`."""
    total = counts.sum(axis=1)
    first, second = rewards - rewards.mean(), true_rewards - true_rewards.mean()
    means = [counts @ values / total for values in (first, second)]
    variances = [
        counts @ values**2 / total - mean**2
        for values, mean in zip((first, second), means, strict=True)
    ]
    covariance = counts @ (first * second) / total - means[0] * means[1]
    varies = [
        variance > _CONSTANT * (values**2).max()
        for values, variance in zip((first, second), variances, strict=True)
    ]
    scale = np.sqrt(np.clip(variances[0] * variances[1], 0.0, None))
    defined = varies[0] & varies[1]
    correlation = np.divide(covariance, scale, out=np.zeros_like(scale), where=defined)
    distances: Values = np.sqrt((1.0 - np.clip(correlation, -1.0, 1.0)) / 2.0)
    return distances


def false_positive_rates(
    labels: Bool[np.ndarray, " N"], paid: Bool[np.ndarray, " N"], counts: Counts
) -> Values:
    """Paid frames among those without the goal."""
    rates: Values = (counts @ (paid & ~labels)) / (counts @ ~labels)
    return rates


def calibration_errors(
    labels: Bool[np.ndarray, " N"],
    probabilities: Float64[np.ndarray, " N"],
    bins: Int64[np.ndarray, " N"],
    counts: Counts,
) -> Values:
    """Expected calibration errors in given bins."""
    in_bin: Bool[np.ndarray, "N K"] = bins[:, None] == np.unique(bins)
    excess = counts @ (in_bin * (labels - probabilities)[:, None])
    errors: Values = np.abs(excess).sum(axis=1) / counts.sum(axis=1)
    return errors
