"""What happens to a reward when a sensor drops out in mid-episode.

Axis letters: ``M`` steps, ``D`` width, ``G`` goals.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from jaxtyping import Bool, Float
from torch import Tensor

from playroom_sound_calibration import (
    CALIBRATED_ON,
    STREAM_LEFT,
    pooled_similarities,
    present_scores,
)
from playroom_sound_domain import GOALS_OF_KIND, sound_goals
from vlmreward import Goal, Head
from vlmreward.backbone import MultimodalEncoder


def measure_dropout(
    encoder: MultimodalEncoder,
    embedded: Mapping[str, Float[Tensor, "M D"]],
    is_true: Bool[Tensor, "M G"],
    fusion_head: Head,
) -> dict[str, Any]:
    """Reward the same steps with both sensors and with one, for the goals that one can judge.

    Args:
        encoder: Of ``stream="present"``, with the head that was calibrated for it.
        embedded: What each stream makes of the steps.
        is_true: Which of `SENTENCES` is true of them.
        fusion_head: Calibrated for both sensors alone.

    Returns:
        Of each sensor that is cut: ``recall`` and ``false_positives`` of the reward with both
        sensors, and with the other alone, ``..._cut``; and ``changed``, the share of steps and
        goals whose reward is another. ``calibrated`` by the encoder's own head, and
        ``not_calibrated`` by the head of both sensors, with cosines as they are.

    Raises:
        ValueError: If the encoder has no head.
    """
    head = encoder.calibrated_head
    if head is None:
        raise ValueError(f"{encoder.name} has no head for stream='present': save it with one")

    def calibrated(stream: str, goals: Sequence[Goal]) -> Tensor:
        return head.reward(present_scores(encoder, embedded[stream], stream, goals)) > 0

    def not_calibrated(stream: str, goals: Sequence[Goal]) -> Tensor:
        similarities = pooled_similarities(encoder, embedded[stream], goals)
        return fusion_head.reward(fusion_head.score(similarities)) > 0

    found: dict[str, Any] = {}
    for sensor, left in STREAM_LEFT.items():
        (kind,) = CALIBRATED_ON[left]
        goals = sound_goals(kind)
        labels = is_true[:, GOALS_OF_KIND[kind]].T.flatten()
        found[sensor] = {
            pays.__name__: _compare(pays("fusion", goals), pays(left, goals), labels)
            for pays in (calibrated, not_calibrated)
        }
    return found


def _compare(
    whole: Bool[Tensor, " MG"], cut: Bool[Tensor, " MG"], labels: Bool[Tensor, " MG"]
) -> dict[str, float]:
    shares = {
        "recall": whole[labels],
        "recall_cut": cut[labels],
        "false_positives": whole[~labels],
        "false_positives_cut": cut[~labels],
        "changed": whole != cut,
    }
    return {name: float(of.float().mean()) for name, of in shares.items()}
