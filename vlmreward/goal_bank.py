"""The embeddings of a set of goals, each distinct direction once.

Axes: `B` batch, `D` width of the embedding, `G` goals, `M` negatives of a goal, padded to the
longest list, `U` distinct directions: every goal, negative and baseline once.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch.nn.functional import normalize

from vlmreward.encoders import ImageTextEncoder
from vlmreward.frames import PIXELS
from vlmreward.goals import Goal
from vlmreward.heads import Similarities

_NONE = -1  # the index of a baseline that is not there


@dataclass(frozen=True)
class GoalBank:
    """Goals as directions, and which of them each goal is compared with.

    Attributes:
        directions: Unit vectors, in double precision: a cosine, rounded to single precision, is
            then the same however the batch was split.
        goal: Row of `directions` of each goal.
        negatives: Rows of its negatives.
        is_negative: False where `negatives` is padding.
        baseline: Row of its baseline, -1 where it has none.
        goal_to_baseline: Cosine of the two, NaN where it has none.
    """

    directions: Float[torch.Tensor, "U D"]
    goal: Int[torch.Tensor, " G"]
    negatives: Int[torch.Tensor, "G M"]
    is_negative: Bool[torch.Tensor, "G M"]
    baseline: Int[torch.Tensor, " G"]
    goal_to_baseline: Float[torch.Tensor, " G"]

    @classmethod
    def of(cls, encoder: ImageTextEncoder, goals: Sequence[Goal]) -> GoalBank:
        """Embeds every text and image of some goals, each text once."""
        rows = _Rows(encoder)
        goal = [rows.of_goal(goal) for goal in goals]
        negatives = [[rows.of_texts((text,)) for text in goal.negative_prompts] for goal in goals]
        baseline = [
            rows.of_texts(goal.baseline_prompts) if goal.baseline_prompts else _NONE
            for goal in goals
        ]
        widest = max(map(len, negatives))
        lengths = torch.tensor([len(row) for row in negatives])
        padded = [row + [0] * (widest - len(row)) for row in negatives]
        directions = rows.directions()
        index_of_goal, index_of_baseline = torch.tensor(goal), torch.tensor(baseline)
        between = (directions[index_of_goal] * directions[index_of_baseline]).sum(dim=1)
        between[index_of_baseline == _NONE] = math.nan
        bank = (
            directions,
            index_of_goal,
            torch.tensor(padded, dtype=torch.long).view(len(goals), widest),
            torch.arange(widest) < lengths[:, None],
            index_of_baseline,
            between.float(),
        )
        if encoder.device.type == "mps":  # knows no double precision
            bank = (bank[0].float(), *bank[1:])
        return cls(*(tensor.to(encoder.device) for tensor in bank))

    def similarities(
        self, embedding: Float[torch.Tensor, "B D"], goal_index: Int[torch.Tensor, " B"]
    ) -> Similarities:
        """Compares each observation with the directions of its goal."""
        cosines = (embedding.to(self.directions.dtype) @ self.directions.T).float()
        baseline = self.baseline[goal_index]
        to_baseline = cosines.gather(1, baseline.clamp(min=0)[:, None])[:, 0]
        return Similarities(
            goal=cosines.gather(1, self.goal[goal_index][:, None])[:, 0],
            negatives=cosines.gather(1, self.negatives[goal_index]),
            is_negative=self.is_negative[goal_index],
            baseline=to_baseline.masked_fill(baseline == _NONE, math.nan),
            goal_to_baseline=self.goal_to_baseline[goal_index],
        )

    def goal_embeddings(self, goal_index: Int[torch.Tensor, " B"]) -> Float[torch.Tensor, "B D"]:
        """Returns the unit embeddings of goals, in single precision."""
        return self.directions[self.goal[goal_index]].float()


class _Rows:
    """Numbers distinct directions as they are asked for, and embeds all their texts in one call."""

    def __init__(self, encoder: ImageTextEncoder) -> None:
        self._encoder = encoder
        self._row_of: dict[tuple[object, ...], int] = {}
        self._goals: list[Goal | None] = []  # None for a direction of texts alone
        self._texts: list[tuple[str, ...]] = []

    def of_texts(self, texts: tuple[str, ...]) -> int:
        return self._row((texts, None), texts, None)

    def of_goal(self, goal: Goal) -> int:
        if goal.images is None:
            return self.of_texts(goal.prompts)
        key = (goal.prompts, goal.images_digest, goal.image_weight)
        return self._row(key, goal.prompts, goal)

    def directions(self) -> Float[torch.Tensor, "U D"]:
        flat = [text for texts in self._texts for text in texts]
        embedded = iter(self._encoder.encode_text(flat).double().cpu() if flat else ())
        directions = []
        for goal, texts in zip(self._goals, self._texts, strict=True):
            parts = [_unit_mean(torch.stack([next(embedded) for _ in texts]))] if texts else []
            if goal is not None:
                images = self._encoder.encode_obs({PIXELS: goal.images})
                parts.append(_unit_mean(images.double().cpu()))
            weights = [1.0] if len(parts) == 1 or goal is None else _shares(goal.image_weight)
            mixed = sum(weight * part for weight, part in zip(weights, parts, strict=True))
            directions.append(normalize(torch.as_tensor(mixed), dim=0))
        return torch.stack(directions)

    def _row(self, key: tuple[object, ...], texts: tuple[str, ...], goal: Goal | None) -> int:
        if key not in self._row_of:
            self._row_of[key] = len(self._texts)
            self._texts.append(texts)
            self._goals.append(goal)
        return self._row_of[key]


def _shares(image_weight: float) -> list[float]:
    return [1 - image_weight, image_weight]


def _unit_mean(rows: Float[torch.Tensor, "K D"]) -> Float[torch.Tensor, " D"]:
    return normalize(rows.mean(dim=0), dim=0)
