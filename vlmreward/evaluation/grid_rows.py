"""The rows of a grid of reward models, and their ranking.

Shapes: N frames, G goals, R resamples.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float64, Int64

from vlmreward.evaluation.bootstrap import Estimate, percentile_interval
from vlmreward.evaluation.curves import average_precision, check_labels_and_scores
from vlmreward.evaluation.epic import epic_distance
from vlmreward.evaluation.reliability import basic_interval, bin_of_each, reliability_curve
from vlmreward.evaluation.resampled import (
    Counts,
    calibration_errors,
    epic_distances,
    false_positive_rates,
    ranking_measures,
)
from vlmreward.evaluation.roc import roc_auc


@dataclass(frozen=True)
class GridRow:
    """One reward model of a grid, measured.

    Attributes:
        encoder: Its key in the grid.
        prompts: Its key in the grid.
        head: Its key in the grid.
        average_precision: Mean over goals; what rows are ranked by.
        roc_auc: Mean over goals.
        epic_distance: Of the reward to the labels as 0 and 1, mean over goals; lower is better.
        calibration_error: ECE in 10 bins of equal width, goals pooled; None unless the scores are
            probabilities (a softmax or a sigmoid head, thresholded or not).
        false_positive_rate: Wrongly paid frames over frames without the goal, goals pooled; None
            for heads without a threshold.
        threshold: Of the head, None where it has none.
    """

    encoder: str
    prompts: str
    head: str
    average_precision: Estimate
    roc_auc: Estimate
    epic_distance: Estimate
    calibration_error: Estimate | None
    false_positive_rate: Estimate | None
    threshold: float | None

    @property
    def name(self) -> str:
        """The three keys."""
        return f"{self.encoder} / {self.prompts} / {self.head}"

    def to_dict(self) -> dict[str, object]:
        """Return nested plain data, ready for JSON."""
        error, rate = self.calibration_error, self.false_positive_rate
        return {
            "encoder": self.encoder,
            "prompts": self.prompts,
            "head": self.head,
            "average_precision": self.average_precision.to_dict(),
            "roc_auc": self.roc_auc.to_dict(),
            "epic_distance": self.epic_distance.to_dict(),
            "calibration_error": None if error is None else error.to_dict(),
            "false_positive_rate": None if rate is None else rate.to_dict(),
            "threshold": self.threshold,
        }


@dataclass(frozen=True)
class GridReport:
    """A grid of reward models, the best first.

    Attributes:
        rows: By average precision, decreasing.
        lead: Average precision of the first row less that of the second, from the same resamples
            (paired); None if there is one row only.
        num_frames: N.
        num_positives: Frames in which their goal is achieved.
        positive_rate: Mean over goals of the share of achieved frames: the average precision that
            random scores would have.
        confidence: Coverage of the intervals, in (0, 1).
    """

    rows: tuple[GridRow, ...]
    lead: Estimate | None
    num_frames: int
    num_positives: int
    positive_rate: float
    confidence: float

    @property
    def predicted_best(self) -> GridRow:
        """The reward that is predicted to train the better agent."""
        return self.rows[0]

    @property
    def distinguishable(self) -> bool:
        """Whether the first row leads the second by more than chance: the interval is above 0."""
        return self.lead is not None and self.lead.low > 0.0

    @property
    def verdict(self) -> str:
        """The prediction and how sure it is, as a sentence."""
        best = self.predicted_best
        said = f"{best.name!r} is predicted to train the better agent"
        if self.lead is None:
            return f"{best.name!r} was not compared: average precision {best.average_precision}"
        second = self.rows[1]
        against = (
            f"average precision {best.average_precision} against {second.average_precision} of "
            f"{second.name!r}, lead {self.lead} at {self.confidence:.0%} confidence"
        )
        if self.distinguishable:
            return f"{said}: {against}"
        return f"{said}, but these {self.num_frames} frames cannot tell: {against}"

    def to_dict(self) -> dict[str, object]:
        """Return nested plain data, ready for JSON."""
        return {
            "rows": [row.to_dict() for row in self.rows],
            "predicted_best": self.predicted_best.name,
            "lead": None if self.lead is None else self.lead.to_dict(),
            "distinguishable": self.distinguishable,
            "num_frames": self.num_frames,
            "num_positives": self.num_positives,
            "positive_rate": self.positive_rate,
            "confidence": self.confidence,
        }


@dataclass(frozen=True)
class ScoredFrames:
    """What one reward model of the grid says of the labelled frames.

    Attributes:
        keys: Encoder, prompt set, head.
        scores: Of the head, before any threshold.
        rewards: What the learner would be paid.
        threshold: Of the head, if any.
        are_probabilities: Whether scores are probabilities.
    """

    keys: tuple[str, str, str]
    scores: Float64[np.ndarray, " N"]
    rewards: Float64[np.ndarray, " N"]
    threshold: float | None
    are_probabilities: bool


def rank(
    scored: Sequence[ScoredFrames],
    labels: Bool[np.ndarray, " N"],
    goal_index: Int64[np.ndarray, " N"],
    counts: Counts,
    confidence: float,
) -> GridReport:
    """Measure reward models on the same frames and the same resamples of them, and sort them.

    Raises:
        ValueError: If a score is not finite.
    """
    rows_of_goals = [np.flatnonzero(goal_index == goal) for goal in np.unique(goal_index)]
    measured = [_measure(one, labels, rows_of_goals, counts, confidence) for one in scored]
    # Sorting is stable: equals stay in the order in which they were given.
    order = sorted(range(len(measured)), key=lambda i: -measured[i][0].average_precision.value)
    rows = tuple(measured[index][0] for index in order)
    lead = None
    if len(order) > 1:
        paired = measured[order[0]][1] - measured[order[1]][1]
        value = rows[0].average_precision.value - rows[1].average_precision.value
        lead = percentile_interval(value, paired, confidence)
    return GridReport(
        rows=rows,
        lead=lead,
        num_frames=labels.size,
        num_positives=int(labels.sum()),
        positive_rate=float(np.mean([labels[rows].mean() for rows in rows_of_goals])),
        confidence=confidence,
    )


def _measure(
    scored: ScoredFrames,
    labels: Bool[np.ndarray, " N"],
    rows_of_goals: Sequence[Int64[np.ndarray, " K"]],
    counts: Counts,
    confidence: float,
) -> tuple[GridRow, Float64[np.ndarray, " R"]]:
    """Returns the row, and the average precision on each resample."""
    try:
        check_labels_and_scores(labels, scored.scores)
    except ValueError as error:
        raise ValueError(f"{' / '.join(scored.keys)}: {error}") from error
    true_rewards = labels.astype(np.float64)

    def mean(measure: Callable[..., float], *columns: np.ndarray) -> float:
        return float(np.mean([measure(*(c[rows] for c in columns)) for rows in rows_of_goals]))

    ranking = np.mean(
        [
            ranking_measures(labels[rows], scored.scores[rows], counts[:, rows])
            for rows in rows_of_goals
        ],
        axis=0,
    )
    epic = np.mean(
        [
            epic_distances(scored.rewards[rows], true_rewards[rows], counts[:, rows])
            for rows in rows_of_goals
        ],
        axis=0,
    )
    row = GridRow(
        *scored.keys,
        average_precision=percentile_interval(
            mean(average_precision, labels, scored.scores), ranking[0], confidence
        ),
        roc_auc=percentile_interval(mean(roc_auc, labels, scored.scores), ranking[1], confidence),
        epic_distance=percentile_interval(
            mean(epic_distance, scored.rewards, true_rewards), epic, confidence
        ),
        calibration_error=_calibration_error(scored, labels, counts, confidence),
        false_positive_rate=_false_positive_rate(scored, labels, counts, confidence),
        threshold=scored.threshold,
    )
    return row, ranking[0]


def _calibration_error(
    scored: ScoredFrames, labels: Bool[np.ndarray, " N"], counts: Counts, confidence: float
) -> Estimate | None:
    if not scored.are_probabilities:
        return None
    value = reliability_curve(labels, scored.scores).expected_calibration_error
    bins = bin_of_each(scored.scores, 10, "equal_width")
    resampled = calibration_errors(labels, scored.scores, bins, counts)
    return basic_interval(value, resampled, confidence)


def _false_positive_rate(
    scored: ScoredFrames, labels: Bool[np.ndarray, " N"], counts: Counts, confidence: float
) -> Estimate | None:
    if scored.threshold is None:
        return None
    # The reward says what is paid: the score was compared in the precision of the head.
    paid = scored.rewards > 0.0
    resampled = false_positive_rates(labels, paid, counts)
    return percentile_interval(float(paid[~labels].mean()), resampled, confidence)
