"""Accuracy of a reward model over many goals, with bootstrap intervals.

Shapes: N scored (frame, goal) pairs, G goals, R bootstrap resamples.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from jaxtyping import Float64

from vlmreward.evaluation.bootstrap import (
    Estimate,
    check_settings,
    percentile_interval,
    resampled_rows,
)
from vlmreward.evaluation.curves import (
    OperatingPoint,
    average_precision,
    check_labels_and_scores,
    operating_point,
)


@dataclass(frozen=True)
class GoalAccuracy:
    """One goal's average precision, and its rewards at the threshold."""

    goal_index: int
    average_precision: float
    at_threshold: OperatingPoint

    def to_dict(self) -> dict[str, float | int]:
        """Return flat numbers, ready for JSON."""
        return {
            "goal_index": self.goal_index,
            "average_precision": self.average_precision,
            **self.at_threshold.to_dict(),
        }


@dataclass(frozen=True)
class RewardAccuracy:
    """Accuracy over goals.

    Attributes:
        average_precision: Mean over goals of each goal's average precision.
        false_positive_rate: Wrongly paid frames over frames without the goal, all goals pooled.
        precision: Rightly paid frames over paid frames, pooled; 1 when none is paid.
        recall: Rightly paid frames over achieved frames, pooled.
        positive_rate: Mean over goals of the share of achieved frames: the average precision that
            random scores would have.
        threshold: Scores strictly above it are paid.
        confidence: Coverage of the intervals, in (0, 1).
        per_goal: One entry per goal, by increasing goal index.
    """

    average_precision: Estimate
    false_positive_rate: Estimate
    precision: Estimate
    recall: Estimate
    positive_rate: float
    threshold: float
    confidence: float
    per_goal: tuple[GoalAccuracy, ...]

    def to_dict(self) -> dict[str, object]:
        """Return nested plain data, ready for JSON."""
        return {
            "average_precision": self.average_precision.to_dict(),
            "false_positive_rate": self.false_positive_rate.to_dict(),
            "precision": self.precision.to_dict(),
            "recall": self.recall.to_dict(),
            "positive_rate": self.positive_rate,
            "threshold": self.threshold,
            "confidence": self.confidence,
            "per_goal": [goal.to_dict() for goal in self.per_goal],
        }


def evaluate_reward(
    labels: npt.ArrayLike,
    scores: npt.ArrayLike,
    goal_index: npt.ArrayLike,
    *,
    threshold: float,
    generator: np.random.Generator,
    num_resamples: int = 1000,
    confidence: float = 0.95,
) -> RewardAccuracy:
    """Measure how well scores tell achieved goals from the rest.

    Intervals are bootstrap percentiles. What is resampled is the goal, with all its frames, as
    frames of one goal err together; with a single goal it is the frames, achieved and not achieved
    separately, which must then be independent (not neighbours in one episode).

    Args:
        labels: Whether row n's goal is achieved in its frame, bool [N].
        scores: What the reward model says of row n, finite [N].
        goal_index: Which goal row n is about, integer [N].
        threshold: Scores strictly above it are paid.
        generator: Source of the resamples.
        num_resamples: R, at least 1.
        confidence: Coverage of the intervals, in (0, 1).

    Raises:
        TypeError: If labels are not bool or goal indices not integers.
        ValueError: If shapes differ, a score is not finite, or some goal has only one kind of
            label.

    Example:
        >>> labels = [False, True, True, False, True, False]
        >>> scores = [0.1, 0.9, 0.8, 0.3, 0.2, 0.7]
        >>> accuracy = evaluate_reward(
        ...     labels, scores, [0, 0, 0, 1, 1, 1], threshold=0.5,
        ...     generator=np.random.default_rng(0),
        ... )
        >>> round(accuracy.average_precision.value, 3)  # (1 + 1/3) / 2
        0.667
    """
    check_settings(num_resamples, confidence)
    per_goal = _evaluate_each_goal(labels, scores, goal_index, threshold)
    if len(per_goal) > 1:
        resampled = _resample_goals(per_goal, num_resamples, generator)
    else:
        resampled = _resample_frames(labels, scores, threshold, num_resamples, generator)

    def estimate(statistic: Callable[[Sequence[GoalAccuracy]], float]) -> Estimate:
        values = [statistic(sample) for sample in resampled]
        return percentile_interval(statistic(per_goal), values, confidence)

    return RewardAccuracy(
        average_precision=estimate(_mean_average_precision),
        false_positive_rate=estimate(lambda goals: _pool(goals).false_positive_rate),
        precision=estimate(lambda goals: _pool(goals).precision),
        recall=estimate(lambda goals: _pool(goals).recall),
        positive_rate=float(np.mean([_positive_rate(goal.at_threshold) for goal in per_goal])),
        threshold=float(threshold),
        confidence=confidence,
        per_goal=per_goal,
    )


def _evaluate_each_goal(
    labels: npt.ArrayLike, scores: npt.ArrayLike, goal_index: npt.ArrayLike, threshold: float
) -> tuple[GoalAccuracy, ...]:
    label_array, score_array = np.asarray(labels), np.asarray(scores, dtype=np.float64)
    index_array = np.asarray(goal_index)
    if not np.issubdtype(index_array.dtype, np.integer):
        raise TypeError(f"goal_index must hold integers, got {index_array.dtype}")
    if not label_array.shape == score_array.shape == index_array.shape or index_array.ndim != 1:
        raise ValueError(
            "labels, scores and goal_index must all have shape [N], got "
            f"{list(label_array.shape)}, {list(score_array.shape)}, {list(index_array.shape)}"
        )
    if not index_array.size:
        raise ValueError("there is nothing to evaluate: labels, scores and goal_index are empty")
    results = []
    for goal in np.unique(index_array):
        rows = index_array == goal
        try:
            results.append(
                _evaluate_goal(int(goal), label_array[rows], score_array[rows], threshold)
            )
        except ValueError as error:
            raise ValueError(f"goal {goal}: {error}") from error
    return tuple(results)


def _evaluate_goal(
    goal_index: int, labels: npt.ArrayLike, scores: npt.ArrayLike, threshold: float
) -> GoalAccuracy:
    return GoalAccuracy(
        goal_index, average_precision(labels, scores), operating_point(labels, scores, threshold)
    )


def _resample_goals(
    per_goal: Sequence[GoalAccuracy], num_resamples: int, generator: np.random.Generator
) -> list[list[GoalAccuracy]]:
    draws = resampled_rows(len(per_goal), num_resamples, generator)
    return [[per_goal[index] for index in draw] for draw in draws]


def _resample_frames(
    labels: npt.ArrayLike,
    scores: npt.ArrayLike,
    threshold: float,
    num_resamples: int,
    generator: np.random.Generator,
) -> list[list[GoalAccuracy]]:
    label_array, score_array = check_labels_and_scores(labels, scores)
    draws = resampled_rows(label_array.size, num_resamples, generator, strata=label_array)
    return [[_evaluate_goal(0, label_array[rows], score_array[rows], threshold)] for rows in draws]


def _mean_average_precision(goals: Sequence[GoalAccuracy]) -> float:
    values: Float64[np.ndarray, " G"] = np.array([goal.average_precision for goal in goals])
    return float(values.mean())


def _positive_rate(point: OperatingPoint) -> float:
    return point.num_positives / (point.num_positives + point.num_negatives)


def _pool(goals: Sequence[GoalAccuracy]) -> OperatingPoint:
    points = [goal.at_threshold for goal in goals]
    return OperatingPoint(
        threshold=points[0].threshold,
        true_positives=sum(point.true_positives for point in points),
        false_positives=sum(point.false_positives for point in points),
        num_positives=sum(point.num_positives for point in points),
        num_negatives=sum(point.num_negatives for point in points),
    )
