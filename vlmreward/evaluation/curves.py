"""Precision, recall and false-positive rate of one goal's scores against labels.

A reward model is a binary classifier of frames: "is the goal achieved here?". Before an agent is
trained on it, that question can be asked offline, on labelled frames, at every threshold. Offline
accuracy ordered the agents' true returns in Baumli et al. 2023 (arXiv 2312.09187, section 4).

Shapes: N frames, K distinct thresholds. Scores are any real numbers, higher meaning "achieved".
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from jaxtyping import Bool, Float64
from sklearn import metrics

Labels = Bool[np.ndarray, " N"]
Scores = Float64[np.ndarray, " N"]


@dataclass(frozen=True)
class PrecisionRecallCurve:
    """Precision and recall at every threshold that separates two scores.

    Point k pays a reward to scores of at least `thresholds[k]`. Points run from every frame paid
    (recall 1) to only the highest-scoring frames paid.

    Attributes:
        precision: Share of paid frames in which the goal is achieved, in [0, 1].
        recall: Share of achieved frames that are paid, in [0, 1], non-increasing.
        thresholds: Distinct scores, increasing.
        positive_rate: Share of achieved frames: the precision of paying every frame.
    """

    precision: Float64[np.ndarray, " K"]
    recall: Float64[np.ndarray, " K"]
    thresholds: Float64[np.ndarray, " K"]
    positive_rate: float

    def to_dict(self) -> dict[str, float | list[float]]:
        """Return plain numbers and lists, ready for JSON."""
        return {
            "precision": self.precision.tolist(),
            "recall": self.recall.tolist(),
            "thresholds": self.thresholds.tolist(),
            "positive_rate": self.positive_rate,
        }


@dataclass(frozen=True)
class OperatingPoint:
    """Counts of right and wrong rewards at one threshold, and the rates they give.

    Attributes:
        threshold: A reward is paid where the score is strictly greater.
        true_positives: Achieved and paid.
        false_positives: Not achieved but paid.
        num_positives: Achieved.
        num_negatives: Not achieved.
    """

    threshold: float
    true_positives: int
    false_positives: int
    num_positives: int
    num_negatives: int

    @property
    def precision(self) -> float:
        """Share of paid frames that deserve it; 1 when none is paid, as no reward is wrong."""
        paid = self.true_positives + self.false_positives
        return self.true_positives / paid if paid else 1.0

    @property
    def recall(self) -> float:
        """Share of achieved frames that are paid."""
        return self.true_positives / self.num_positives

    @property
    def false_positive_rate(self) -> float:
        """Share of frames without the goal that are paid all the same."""
        return self.false_positives / self.num_negatives

    def to_dict(self) -> dict[str, float | int]:
        """Return the counts and the rates, ready for JSON."""
        return {
            "threshold": self.threshold,
            "precision": self.precision,
            "recall": self.recall,
            "false_positive_rate": self.false_positive_rate,
            "num_positives": self.num_positives,
            "num_negatives": self.num_negatives,
        }


def precision_recall_curve(labels: npt.ArrayLike, scores: npt.ArrayLike) -> PrecisionRecallCurve:
    """Trace precision against recall over every threshold.

    Args:
        labels: Whether the goal is achieved in each frame, bool [N].
        scores: What the reward model says of each frame, finite [N].

    Raises:
        TypeError: If labels are not bool.
        ValueError: If shapes differ or are not one-axis, a score is not finite, or the labels are
            all the same.

    Example:
        >>> curve = precision_recall_curve([False, True, False, True], [0.1, 0.4, 0.6, 0.9])
        >>> curve.thresholds.tolist(), curve.recall.tolist()
        ([0.1, 0.4, 0.6, 0.9], [1.0, 1.0, 0.5, 0.5])
    """
    checked_labels, checked_scores = check_labels_and_scores(labels, scores)
    precision, recall, thresholds = metrics.precision_recall_curve(checked_labels, checked_scores)
    # scikit-learn appends the point (recall 0, precision 1), which belongs to no threshold.
    return PrecisionRecallCurve(
        np.asarray(precision[:-1], dtype=np.float64),
        np.asarray(recall[:-1], dtype=np.float64),
        np.asarray(thresholds, dtype=np.float64),
        positive_rate=float(checked_labels.mean()),
    )


def average_precision(labels: npt.ArrayLike, scores: npt.ArrayLike) -> float:
    """Area under the precision–recall curve as a step function: Σ_k (R_k − R_{k−1}) P_k.

    A random score gives the share of positive labels; a perfect one gives 1.

    Args:
        labels: Whether the goal is achieved in each frame, bool [N].
        scores: What the reward model says of each frame, finite [N].

    Raises:
        TypeError: If labels are not bool.
        ValueError: If shapes differ or are not one-axis, a score is not finite, or the labels are
            all the same.

    Example:
        >>> average_precision([False, True, False, True], [0.1, 0.4, 0.6, 0.9])  # (1 + 2/3) / 2
        0.8333333333333333
    """
    checked_labels, checked_scores = check_labels_and_scores(labels, scores)
    return float(metrics.average_precision_score(checked_labels, checked_scores))


def operating_point(
    labels: npt.ArrayLike, scores: npt.ArrayLike, threshold: float
) -> OperatingPoint:
    """Count right and wrong rewards when scores strictly above the threshold are paid.

    Args:
        labels: Whether the goal is achieved in each frame, bool [N].
        scores: What the reward model says of each frame, finite [N].
        threshold: β of Baumli et al., Eq. 2: r = 1[score > β].

    Raises:
        TypeError: If labels are not bool.
        ValueError: If shapes differ or are not one-axis, a score is not finite, or the labels are
            all the same.

    Example:
        >>> point = operating_point([False, True, False, True], [0.1, 0.4, 0.6, 0.9], 0.4)
        >>> point.precision, point.recall, point.false_positive_rate
        (0.5, 0.5, 0.5)
    """
    checked_labels, checked_scores = check_labels_and_scores(labels, scores)
    paid = checked_scores > threshold
    return OperatingPoint(
        threshold=float(threshold),
        true_positives=int((paid & checked_labels).sum()),
        false_positives=int((paid & ~checked_labels).sum()),
        num_positives=int(checked_labels.sum()),
        num_negatives=int((~checked_labels).sum()),
    )


def check_labels_and_scores(labels: npt.ArrayLike, scores: npt.ArrayLike) -> tuple[Labels, Scores]:
    """Return both as arrays, or say what is wrong with them.

    Raises:
        TypeError: If labels are not bool.
        ValueError: If shapes differ or are not one-axis, a score is not finite, or the labels are
            all the same.
    """
    label_array = np.asarray(labels)
    score_array = np.asarray(scores, dtype=np.float64)
    if label_array.dtype != np.bool_:
        raise TypeError(
            f"labels must be bool, got {label_array.dtype}; compare explicitly, e.g. labels == 1"
        )
    if label_array.ndim != 1 or label_array.shape != score_array.shape:
        raise ValueError(
            "labels and scores must both have shape [N], "
            f"got {list(label_array.shape)} and {list(score_array.shape)}"
        )
    num_bad = int((~np.isfinite(score_array)).sum())
    if num_bad:
        raise ValueError(
            f"scores must be finite, got {num_bad} of {score_array.size} that are NaN or infinite"
        )
    if not label_array.any() or label_array.all():
        missing = "achieved (True)" if not label_array.any() else "not achieved (False)"
        raise ValueError(
            f"none of the {label_array.size} labels is {missing}, so accuracy is undefined; "
            "add frames of both kinds for this goal"
        )
    return label_array, score_array
