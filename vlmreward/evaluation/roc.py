"""The ROC curve: how many achieved frames are paid for how many false rewards.

Unlike precision, neither of its rates depends on how common the goal is. So it compares reward
models across sets of frames, but hides that a rare goal drowns in false positives: read it beside
the precision–recall curve.

Shapes: N frames, K distinct scores.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from jaxtyping import Float64
from sklearn import metrics

from vlmreward.evaluation.curves import check_labels_and_scores


@dataclass(frozen=True)
class RocCurve:
    """Recall against the false-positive rate at every threshold that separates two scores.

    Point k pays a reward to scores of at least `thresholds[k]`, as in `PrecisionRecallCurve`.
    Points run from every frame paid (1, 1) down; (0, 0), where none is paid, has no threshold.

    Attributes:
        false_positive_rate: Share of frames without the goal that are paid, in [0, 1].
        recall: Share of achieved frames that are paid, in [0, 1].
        thresholds: Distinct scores, increasing.
        auc: Area under the curve, (0, 0) included; see `roc_auc`.
    """

    false_positive_rate: Float64[np.ndarray, " K"]
    recall: Float64[np.ndarray, " K"]
    thresholds: Float64[np.ndarray, " K"]
    auc: float

    def to_dict(self) -> dict[str, float | list[float]]:
        """Return plain numbers and lists, ready for JSON."""
        return {
            "false_positive_rate": self.false_positive_rate.tolist(),
            "recall": self.recall.tolist(),
            "thresholds": self.thresholds.tolist(),
            "auc": self.auc,
        }


def roc_curve(labels: npt.ArrayLike, scores: npt.ArrayLike) -> RocCurve:
    """Trace recall against the false-positive rate over every threshold.

    Args:
        labels: Whether the goal is achieved in each frame, bool [N].
        scores: What the reward model says of each frame, finite [N].

    Raises:
        TypeError: If labels are not bool.
        ValueError: If shapes differ or are not one-axis, a score is not finite, or the labels are
            all the same.

    Example:
        >>> curve = roc_curve([False, True, False, True], [0.1, 0.4, 0.6, 0.9])
        >>> curve.false_positive_rate.tolist(), curve.recall.tolist(), curve.auc
        ([1.0, 0.5, 0.5, 0.0], [1.0, 1.0, 0.5, 0.5], 0.75)
    """
    checked_labels, checked_scores = check_labels_and_scores(labels, scores)
    # scikit-learn puts the point where none is paid first, with a threshold of infinity.
    false_positive_rate, recall, thresholds = (
        np.asarray(values, dtype=np.float64)[:0:-1]
        for values in metrics.roc_curve(checked_labels, checked_scores, drop_intermediate=False)
    )
    return RocCurve(
        false_positive_rate, recall, thresholds, roc_auc(checked_labels, checked_scores)
    )


def roc_auc(labels: npt.ArrayLike, scores: npt.ArrayLike) -> float:
    """Area under the ROC curve: P(achieved scores higher) + P(both score the same) / 2.

    The two probabilities are over one achieved and one other frame, each drawn at random (Hanley
    and McNeil 1982). A random score gives 1/2, a perfect one 1.

    Args:
        labels: Whether the goal is achieved in each frame, bool [N].
        scores: What the reward model says of each frame, finite [N].

    Raises:
        TypeError: If labels are not bool.
        ValueError: If shapes differ or are not one-axis, a score is not finite, or the labels are
            all the same.

    Example:
        >>> roc_auc([False, True, False, True], [0.1, 0.4, 0.6, 0.9])  # 3 of 4 pairs
        0.75
    """
    checked_labels, checked_scores = check_labels_and_scores(labels, scores)
    return float(metrics.roc_auc_score(checked_labels, checked_scores))
