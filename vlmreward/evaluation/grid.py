"""Which reward to train on: encoders × prompt sets × heads on one labelled set of frames.

Training an agent costs hours, labelling some hundred frames costs minutes. In Baumli et al. 2023
(arXiv 2312.09187, section 4), the average precision on a fixed set of labelled trajectories
ordered reward models as the true return of the agents trained on them did.

Shapes: N frames, R resamples.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
from jaxtyping import Int64, Shaped

from vlmreward.encoders import ImageTextEncoder
from vlmreward.evaluation.bootstrap import check_settings, resampled_rows
from vlmreward.evaluation.curves import check_labels_and_scores
from vlmreward.evaluation.grid_rows import GridReport, ScoredFrames, rank
from vlmreward.evaluation.resampled import counts_of_rows
from vlmreward.frames import PIXELS, Frames
from vlmreward.goals import Goal
from vlmreward.heads import Head, NormalizedHead, SigmoidHead, SoftmaxHead, ThresholdHead
from vlmreward.reward_model import GoalIndex, RewardModel

HeadFor: TypeAlias = Head | Callable[[ImageTextEncoder], Head]
"""A head, or what makes one for an encoder, such as from its `logit_scale`."""


def evaluate_grid(
    encoders: Mapping[str, ImageTextEncoder],
    prompt_sets: Mapping[str, Goal | Sequence[Goal]],
    heads: Mapping[str, HeadFor],
    obs: Mapping[str, Any] | Frames,
    labels: npt.ArrayLike,
    *,
    generator: np.random.Generator,
    goal_index: GoalIndex = 0,
    episode_index: npt.ArrayLike | None = None,
    num_resamples: int = 1000,
    confidence: float = 0.95,
) -> GridReport:
    """Measure every combination of encoder, prompt set and head, and rank them.

    Each encoder sees the frames once. All rows are measured on the same resamples, so that the
    lead of the first over the second is a paired comparison: frames that are hard for both do not
    count against either. Every resample has as many achieved and other frames of each goal as
    the labelled set has; with `episode_index`, whole episodes are drawn, and at least one of each.

    The best of many rows is partly the luckiest: its average precision is optimistic, and a
    threshold, a temperature or a prompt chosen on these frames looks better here than elsewhere.
    Measure the choice once more on other frames. The prediction is a trend found within one
    family of encoders, not a law.

    Args:
        encoders: By name.
        prompt_sets: By name, several wordings of the same goals: one goal, or a list in which
            `goal_index` means the same task in every set.
        heads: By name. A callable is given the encoder and returns its head.
        obs: Frames `[N, H, W, 3]`, or a mapping of modalities with N rows.
        labels: Whether the goal is achieved in each frame, bool [N]; both kinds for each goal.
        generator: Source of the resamples.
        goal_index: Which goal each frame was labelled for: one for all, or one per row.
        episode_index: Which frames err together, [N]. Without it, frames must be independent, not
            neighbours in an episode.
        num_resamples: R, at least 1.
        confidence: Coverage of the intervals, in (0, 1).

    Raises:
        FrameError: If the frames are none; see `frames.check_frames`.
        TypeError: If labels are not bool or goal indices not whole numbers.
        ValueError: If part of the grid is empty, prompt sets differ in their number of goals, a
            goal lacks what a head needs, lengths differ, some goal has only one kind of label, or a
            setting is out of range.
        IndexError: If a goal index is out of range.

    Example:
        >>> from vlmreward import CosineHead, FakeEncoder, Goal, SoftmaxHead
        >>> rng = np.random.default_rng(0)
        >>> labels = rng.random(60) < 0.5
        >>> frames = rng.integers(0, 256, size=(60, 4, 4, 3), dtype=np.uint8)
        >>> frames[..., 0] = np.where(labels, 200, 60)[:, None, None]  # achieved: a red room
        >>> report = evaluate_grid(
        ...     {"fake": FakeEncoder()},
        ...     {"right": Goal("a red room", ["a green room"]),
        ...      "wrong": Goal("a blue room", ["a green room"])},
        ...     {"cosine": CosineHead(), "softmax": SoftmaxHead(temperature=0.1)},
        ...     frames, labels, generator=rng, num_resamples=200,
        ... )
        >>> report.rows[-1].prompts, len(report.rows)
        ('wrong', 4)
    """
    check_settings(num_resamples, confidence)
    for name, part in (("encoders", encoders), ("prompt_sets", prompt_sets), ("heads", heads)):
        if not part:
            raise ValueError(f"expected at least one entry in {name}, got none")
    models = _build(encoders, prompt_sets, heads)
    label_array = np.asarray(labels)
    if label_array.ndim != 1:
        raise ValueError(f"labels must have shape [N], got {list(label_array.shape)}")
    any_model = next(iter(models.values()))
    goal_array = any_model.check_goal_index(goal_index, label_array.size).cpu().numpy()
    _check_labels(label_array, goal_array)
    resamples = resampled_rows(
        label_array.size,
        num_resamples,
        generator,
        strata=2 * goal_array + label_array,
        groups=episode_index,
    )
    counts = counts_of_rows(resamples, label_array.size)
    scored = _score(encoders, models, obs, goal_array)
    return rank(scored, label_array, goal_array, counts, confidence)


def _build(
    encoders: Mapping[str, ImageTextEncoder],
    prompt_sets: Mapping[str, Goal | Sequence[Goal]],
    heads: Mapping[str, HeadFor],
) -> dict[tuple[str, str, str], RewardModel]:
    """Makes all reward models before a frame is encoded, so that a wrong one is found at once."""
    models = {
        (encoder_name, prompts_name, head_name): RewardModel(
            encoder, goals, head if isinstance(head, Head) else head(encoder)
        )
        for encoder_name, encoder in encoders.items()
        for prompts_name, goals in prompt_sets.items()
        for head_name, head in heads.items()
    }
    num_goals = {prompts: model.num_goals for (_, prompts, _), model in models.items()}
    if len(set(num_goals.values())) > 1:
        raise ValueError(
            f"expected the same number of goals in every prompt set, got {num_goals}: a goal index "
            "must mean the same task in all of them"
        )
    return models


def _check_labels(labels: Shaped[np.ndarray, " N"], goal_index: Int64[np.ndarray, " N"]) -> None:
    for goal in np.unique(goal_index):
        of_goal = labels[goal_index == goal]
        try:
            check_labels_and_scores(of_goal, np.zeros(of_goal.size))
        except ValueError as error:
            raise ValueError(f"goal {goal}: {error}") from error


def _score(
    encoders: Mapping[str, ImageTextEncoder],
    models: Mapping[tuple[str, str, str], RewardModel],
    obs: Mapping[str, Any] | Frames,
    goal_index: Int64[np.ndarray, " N"],
) -> list[ScoredFrames]:
    batch = obs if isinstance(obs, Mapping) else {PIXELS: obs}
    for name, encoder in encoders.items():
        lengths = {key: len(batch[key]) for key in encoder.modalities if key in batch}
        if set(lengths.values()) - {goal_index.size}:
            raise ValueError(
                f"expected {goal_index.size} rows in what encoder {name!r} reads, as many as "
                f"labels, got {lengths}"
            )
    scored = []
    for encoder_name, encoder in encoders.items():
        embedding = encoder.encode_obs(batch)
        for keys, model in models.items():
            if keys[0] == encoder_name:
                seen = model.score_embeddings(embedding, goal_index)
                scored.append(
                    ScoredFrames(
                        keys=keys,
                        scores=seen.score.double().cpu().numpy(),
                        rewards=seen.reward.double().cpu().numpy(),
                        threshold=_threshold(model.head),
                        are_probabilities=_gives_probabilities(model.head),
                    )
                )
    return scored


def _threshold(head: Head) -> float | None:
    return head.threshold if isinstance(head, ThresholdHead) else None


def _gives_probabilities(head: Head) -> bool:
    while isinstance(head, ThresholdHead | NormalizedHead):
        head = head.head
    return isinstance(head, SoftmaxHead | SigmoidHead)
