"""Temperature and threshold of a binary reward, chosen together, with the promise on record.

Shapes: N frames, n of them without the goal.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import Literal

import numpy as np
import numpy.typing as npt
import torch
from jaxtyping import Bool, Float64

from vlmreward.evaluation.calibration import (
    threshold_for_false_positive_rate,
    threshold_for_precision,
)
from vlmreward.evaluation.curves import check_labels_and_scores
from vlmreward.evaluation.temperature import fit_temperature
from vlmreward.heads import Similarities, SoftmaxHead, ThresholdHead, head_config


@dataclass(frozen=True)
class CalibratedHead:
    """A binary head, and what was promised of it.

    Attributes:
        head: `ThresholdHead(SoftmaxHead(τ), β)`. `heads.head_config` writes it down, and
            `heads.head_from_config` reads it.
        promised: What the target is a bound of.
        target: At most this false-positive rate, or at least this precision.
        guarantee: In what sense, and under which condition.
        confidence: Of a promised precision; None for a false-positive rate, which holds on average
            over the draw of the frames.
        num_threshold_frames: How many frames chose the threshold: those without the goal (or
            unlabelled) for a false-positive rate, labelled ones for a precision.
        num_temperature_frames: How many other frames chose the temperature, 0 if it was given.
    """

    head: ThresholdHead
    promised: Literal["false_positive_rate", "precision"]
    target: float
    guarantee: str
    confidence: float | None
    num_threshold_frames: int
    num_temperature_frames: int

    def to_dict(self) -> dict[str, object]:
        """Return nested plain data, ready for JSON."""
        return {
            "head": head_config(self.head),
            "promised": self.promised,
            "target": self.target,
            "guarantee": self.guarantee,
            "confidence": self.confidence,
            "num_threshold_frames": self.num_threshold_frames,
            "num_temperature_frames": self.num_temperature_frames,
        }


def calibrate_for_false_positive_rate(
    similarities: Similarities,
    labels: npt.ArrayLike,
    rate: float,
    *,
    temperature: float | None = None,
    generator: np.random.Generator | None = None,
) -> CalibratedHead:
    """Choose a head that wrongly pays at most a given share of frames without the goal.

    Without a temperature, a random half of the frames of each label fits it and the other half
    chooses the threshold: frames that fitted the scores could promise nothing of them. Then see
    `threshold_for_false_positive_rate` for the promise.

    Args:
        similarities: Of N frames with their goals and negatives; see `similarities_of`.
        labels: Whether the goal is achieved in each frame, bool [N].
        rate: Largest acceptable share of frames without the goal that are paid, in (0, 1).
        temperature: τ, such as `1 / encoder.logit_scale`; fitted if None.
        generator: Source of the split; needed when no temperature is given.

    Raises:
        TypeError: If labels are not bool.
        ValueError: If lengths differ, the labels are all the same, there are too few frames without
            the goal for the rate, neither a temperature nor a generator is given, or
            `fit_temperature` cannot.

    Example:
        >>> rng = np.random.default_rng(0)
        >>> labels = rng.random(800) < 0.3
        >>> goal = torch.tensor(0.2 + 0.1 * labels + rng.normal(0.0, 0.04, 800))
        >>> seen = Similarities.of(goal, negatives=torch.full((800, 1), 0.25))
        >>> calibrated = calibrate_for_false_positive_rate(seen, labels, 0.02, generator=rng)
        >>> calibrated.promised, calibrated.target, calibrated.num_temperature_frames
        ('false_positive_rate', 0.02, 400)
    """
    softmax, scores, kept_labels, num_fitted = _split(similarities, labels, temperature, generator)
    negatives = scores[~kept_labels]
    threshold = threshold_for_false_positive_rate(negatives, rate)
    return CalibratedHead(
        head=ThresholdHead(softmax, threshold),
        promised="false_positive_rate",
        target=float(rate),
        guarantee=(
            "split-conformal: on average over the draw of the labelled frames, for a new frame "
            "without the goal that is exchangeable with them"
        ),
        confidence=None,
        num_threshold_frames=negatives.size,
        num_temperature_frames=num_fitted,
    )


def calibrate_for_precision(
    similarities: Similarities,
    labels: npt.ArrayLike,
    precision: float,
    *,
    confidence: float = 0.95,
    temperature: float | None = None,
    generator: np.random.Generator | None = None,
) -> CalibratedHead:
    """Choose a head whose rewards are deserved at least at a given rate.

    The split is that of `calibrate_for_false_positive_rate`, the promise that of
    `threshold_for_precision`: it is for frames in which the goal is as common as in these.

    Args:
        similarities: Of N frames with their goals and negatives; see `similarities_of`.
        labels: Whether the goal is achieved in each frame, bool [N].
        precision: Share of paid frames in which the goal shall be achieved, in (0, 1).
        confidence: Of the promise, in (0, 1).
        temperature: τ, such as `1 / encoder.logit_scale`; fitted if None.
        generator: Source of the split; needed when no temperature is given.

    Raises:
        TypeError: If labels are not bool.
        ValueError: If lengths differ, the labels are all the same, no threshold can be promised the
            precision, neither a temperature nor a generator is given, or
            `fit_temperature` cannot.

    Example:
        >>> rng = np.random.default_rng(0)
        >>> labels = rng.random(800) < 0.3
        >>> goal = torch.tensor(0.2 + 0.1 * labels + rng.normal(0.0, 0.04, 800))
        >>> seen = Similarities.of(goal, negatives=torch.full((800, 1), 0.25))
        >>> calibrated = calibrate_for_precision(seen, labels, 0.8, temperature=0.01)
        >>> calibrated.confidence, calibrated.num_threshold_frames
        (0.95, 800)
    """
    softmax, scores, kept_labels, num_fitted = _split(similarities, labels, temperature, generator)
    found = threshold_for_precision(kept_labels, scores, precision, confidence=confidence)
    return CalibratedHead(
        head=ThresholdHead(softmax, found.threshold),
        promised="precision",
        target=float(precision),
        guarantee=(
            f"Clopper-Pearson lower bound over {found.num_candidates} candidate thresholds "
            "(Bonferroni), for independent frames in which the goal is as common as here"
        ),
        confidence=confidence,
        num_threshold_frames=scores.size,
        num_temperature_frames=num_fitted,
    )


def calibrate_on_unlabelled(
    similarities: Similarities, rate: float, *, temperature: float
) -> CalibratedHead:
    """Choose a head from frames without labels, such as a random policy's, taken as negatives.

    Of such frames an unknown share π does achieve the goal. Let β be the split-conformal threshold
    of all n scores, and F and R the false-positive rate and the recall at β, on average over the
    draw of the frames. A new frame drawn as they were exceeds β with probability at most `rate`
    (`threshold_for_false_positive_rate`), and it is achieved with probability π, so

        (1 − π) F + π R ≤ rate.

    - If R ≥ F, that is if the reward at β is no worse than chance, F ≤ (1 − π) F + π R ≤ rate. The
      promise holds, and it is conservative: what contamination costs is recall.
    - Whatever the reward, R ≥ 0, so F ≤ rate / (1 − π): a rare goal does little harm.

    Frame by frame: β is an order statistic of n scores, of a rank that n and `rate` fix, and that
    never falls when one of the scores rises. So a true negative that is replaced by an achieved
    frame which scores higher can only raise β. One that scores lower can lower it: a reward
    that prefers frames without the goal cannot be found out without labels.

    The promise is for frames like these. A trained agent sees others.

    Args:
        similarities: Of n frames with their goals and negatives; see `similarities_of`. Frames
            known to be negatives may be among them.
        rate: Largest acceptable share of frames without the goal that are paid, in (0, 1).
        temperature: τ, such as `1 / encoder.logit_scale`: fitting it needs labels.

    Raises:
        ValueError: If the temperature is not positive, a score is not finite, or there are too few
            frames for the rate.

    Example:
        >>> rng = np.random.default_rng(0)
        >>> goal = torch.tensor(rng.normal(0.2, 0.04, 199))
        >>> seen = Similarities.of(goal, negatives=torch.full((199, 1), 0.25))
        >>> calibrated = calibrate_on_unlabelled(seen, 0.05, temperature=0.01)
        >>> float((calibrated.head.score(seen) > calibrated.head.threshold).double().mean()) < 0.05
        True
    """
    softmax = SoftmaxHead(temperature)
    scores = _scores(softmax, similarities)
    threshold = threshold_for_false_positive_rate(scores, rate)
    return CalibratedHead(
        head=ThresholdHead(softmax, threshold),
        promised="false_positive_rate",
        target=float(rate),
        guarantee=(
            "split-conformal on unlabelled frames taken as negatives: on average over their draw, "
            "for new frames like them, provided that achieved frames exceed the threshold at "
            "least as often as the others; else the bound is the target over the share of "
            "negatives"
        ),
        confidence=None,
        num_threshold_frames=scores.size,
        num_temperature_frames=0,
    )


def _split(
    similarities: Similarities,
    labels: npt.ArrayLike,
    temperature: float | None,
    generator: np.random.Generator | None,
) -> tuple[SoftmaxHead, Float64[np.ndarray, " K"], Bool[np.ndarray, " K"], int]:
    """Returns the softmax head, scores and labels for the threshold, and how many fitted it."""
    checked, _ = check_labels_and_scores(labels, similarities.goal.double().cpu().numpy())
    if temperature is not None:
        softmax = SoftmaxHead(temperature)
        return softmax, _scores(softmax, similarities), checked, 0
    if generator is None:
        raise ValueError(
            "neither a temperature nor a generator was given: pass temperature=1 / "
            "encoder.logit_scale, or generator=numpy.random.default_rng(seed), by which the frames "
            "are split into those that fit the temperature and those that choose the threshold"
        )
    fits = np.zeros(checked.size, dtype=bool)
    for kind in (np.flatnonzero(checked), np.flatnonzero(~checked)):
        if kind.size < 2:
            raise ValueError(
                f"expected at least 2 frames of each label to split, got {kind.size}: add labelled "
                "frames, or pass a temperature"
            )
        fits[generator.permutation(kind)[: kind.size // 2]] = True
    softmax = SoftmaxHead(fit_temperature(_take(similarities, fits), checked[fits]))
    return softmax, _scores(softmax, _take(similarities, ~fits)), checked[~fits], int(fits.sum())


def _take(similarities: Similarities, chosen: Bool[np.ndarray, " N"]) -> Similarities:
    rows = torch.from_numpy(np.flatnonzero(chosen)).to(similarities.goal.device)
    return replace(
        similarities,
        **{field.name: getattr(similarities, field.name)[rows] for field in fields(similarities)},
    )


def _scores(head: SoftmaxHead, similarities: Similarities) -> Float64[np.ndarray, " N"]:
    return head.score(similarities).double().cpu().numpy()
