"""Temperatures and thresholds for the streams of a backbone, from labelled episodes.

Axis letters: ``M`` steps, ``D`` width, ``G`` sentences.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from playroom_sound_domain import GOALS_OF_KIND, sound_goals
from vlmreward import Goal, ImageTextEncoder, SoftmaxHead, ThresholdHead
from vlmreward.backbone import MultimodalEncoder
from vlmreward.evaluation import fit_temperature, precision_recall_curve
from vlmreward.heads import Similarities
from vlmreward_envs.playroom_sound import GoalKind

CALIBRATED_ON = {
    "video": (GoalKind.SEEN,),
    "audio": (GoalKind.HEARD,),
    "fusion": (GoalKind.SEEN, GoalKind.HEARD),
    "episode": (GoalKind.TOLD,),
}
"""The goals that each stream can know, and is calibrated on."""
STREAM_LEFT = {"microphone": "video", "camera": "audio"}
"""The stream that is left when a sensor is cut."""


@dataclass(frozen=True)
class StreamCalibration:
    """What makes cosines of a stream comparable with those of another.

    Attributes:
        temperature: Of a softmax over a goal and what may hold in its place.
        threshold: Of its probability.
    """

    temperature: float
    threshold: float

    @property
    def head(self) -> ThresholdHead:
        """The binary reward."""
        return ThresholdHead(SoftmaxHead(self.temperature), self.threshold)


def calibrate_streams(
    encoder: ImageTextEncoder,
    embedded: Mapping[str, Float[Tensor, "M D"]],
    is_true: Bool[Tensor, "M G"],
    trained: Mapping[str, float],
) -> dict[str, StreamCalibration]:
    """Calibrate each stream that is given, on the goals that it can know.

    Args:
        encoder: Embeds the sentences.
        embedded: What each stream makes of some steps.
        is_true: Which of `SENTENCES` is true of them.
        trained: Temperature that each stream was trained at.
    """
    found = {}
    for stream, vectors in embedded.items():
        kinds = CALIBRATED_ON[stream]
        goals = [goal for kind in kinds for goal in sound_goals(kind)]
        columns = np.concatenate([GOALS_OF_KIND[kind] for kind in kinds])
        found[stream] = calibrate(encoder, vectors, is_true[:, columns], goals, trained[stream])
    return found


def calibrate(
    encoder: ImageTextEncoder,
    vectors: Float[Tensor, "M D"],
    is_true: Bool[Tensor, "M G"],
    goals: Sequence[Goal],
    trained: float,
) -> StreamCalibration:
    """Fit a temperature to some goals, all of them pooled, and choose a threshold.

    Args:
        encoder: Embeds the sentences.
        vectors: Embeddings of some steps.
        is_true: Which goal is true of them.
        goals: With what may hold in their place.
        trained: Temperature of the encoder's training. It is kept, and that is said, where none
            fits, since the encoder says nothing of these goals.
    """
    similarities = pooled_similarities(encoder, vectors, goals)
    labels = is_true.T.flatten().numpy()
    try:
        temperature = fit_temperature(similarities, labels)
    except ValueError as error:
        temperature = trained
        print(f"{encoder.name}: the temperature of training is kept, {trained:.3g}: {error}")
    scores = SoftmaxHead(temperature).score(similarities).double().numpy()
    return StreamCalibration(temperature, choose_threshold(scores, labels))


def choose_threshold(scores: Float[np.ndarray, " MG"], labels: Bool[np.ndarray, " MG"]) -> float:
    """Return the threshold of the largest F1, half way from the smallest paid score to the next.

    Where goals are rarely true a rate of false positives says little: what is paid wrongly may be
    as much as what is paid rightly, and an agent finds it.
    """
    curve = precision_recall_curve(labels, scores)
    total = curve.precision + curve.recall
    f1 = np.divide(
        2 * curve.precision * curve.recall, total, out=np.zeros_like(total), where=total > 0
    )
    best = int(f1.argmax())
    below = curve.thresholds[best - 1] if best else 0.0
    return float(curve.thresholds[best] + below) / 2


def present_scores(
    encoder: MultimodalEncoder,
    vectors: Float[Tensor, "M D"],
    stream: str,
    goals: Sequence[Goal],
) -> Float[Tensor, " MG"]:
    """Return probabilities of every goal at every step, goal by goal, at one scale for all streams.

    Args:
        encoder: Of ``stream="present"``.
        vectors: What one stream makes of the steps.
        stream: Which.
        goals: With what may hold in their place.
    """
    shrunk = encoder.shrink(vectors, [stream] * len(vectors))
    return SoftmaxHead(1 / encoder.logit_scale).score(pooled_similarities(encoder, shrunk, goals))


def present_head(
    encoder: MultimodalEncoder,
    embedded: Mapping[str, Float[Tensor, "M D"]],
    is_true: Bool[Tensor, "M G"],
) -> ThresholdHead:
    """Choose one threshold for all streams of a step.

    Both sensors together are asked for all that is seen or heard, each alone for its own: their
    scores are pooled.

    Args:
        encoder: Of ``stream="present"``.
        embedded: What each stream makes of some steps.
        is_true: Which of `SENTENCES` is true of them.
    """
    scores, labels = [], []
    for stream in ("fusion", *STREAM_LEFT.values()):
        for kind in CALIBRATED_ON[stream]:
            scores.append(present_scores(encoder, embedded[stream], stream, sound_goals(kind)))
            labels.append(is_true[:, GOALS_OF_KIND[kind]].T.flatten())
    threshold = choose_threshold(torch.cat(scores).double().numpy(), torch.cat(labels).numpy())
    return ThresholdHead(SoftmaxHead(1 / encoder.logit_scale), threshold)


def pooled_similarities(
    encoder: ImageTextEncoder, vectors: Float[Tensor, "M D"], goals: Sequence[Goal]
) -> Similarities:
    """Return the cosines of every step with every goal and its negatives, goal by goal."""
    widest = max(len(goal.negative_prompts) for goal in goals)
    own, negatives, is_negative = [], [], []
    for goal in goals:
        text = encoder.encode_text([goal.prompts[0], *goal.negative_prompts]).cpu()
        cosines = vectors @ text[:, : vectors.shape[1]].T
        number = len(goal.negative_prompts)
        own.append(cosines[:, 0])
        negatives.append(torch.nn.functional.pad(cosines[:, 1:], (0, widest - number)))
        is_negative.append((torch.arange(widest) < number).expand(len(vectors), -1))
    nothing = torch.full((len(vectors) * len(goals),), torch.nan)
    return Similarities(
        torch.cat(own), torch.cat(negatives), torch.cat(is_negative), nothing, nothing
    )
