"""What a head is: cosines go in, one score per observation comes out.

Axes: `B` batch, `M` negatives of a goal, padded to the longest list.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Bool, Float
from torch import Tensor


@dataclass(frozen=True)
class Similarities:
    """Cosines between unit embeddings: all that a head needs to know of a batch.

    Attributes:
        goal: Of each observation and its goal, in [-1, 1].
        negatives: Of each observation and the negatives of its goal.
        is_negative: False where `negatives` is padding.
        baseline: Of each observation and the baseline of its goal; NaN where it has none.
        goal_to_baseline: Of each goal and its baseline; NaN where it has none.
    """

    goal: Float[Tensor, " B"]
    negatives: Float[Tensor, "B M"]
    is_negative: Bool[Tensor, "B M"]
    baseline: Float[Tensor, " B"]
    goal_to_baseline: Float[Tensor, " B"]

    @classmethod
    def of(
        cls,
        goal: Float[Tensor, " B"],
        *,
        negatives: Float[Tensor, "B M"] | None = None,
        baseline: Float[Tensor, " B"] | None = None,
        goal_to_baseline: Float[Tensor, " B"] | None = None,
    ) -> Similarities:
        """Returns similarities without padding; what is not given is not there."""
        absent = torch.full_like(goal, math.nan)
        negatives = goal.new_zeros(len(goal), 0) if negatives is None else negatives
        return cls(
            goal=goal,
            negatives=negatives,
            is_negative=torch.ones_like(negatives, dtype=torch.bool),
            baseline=absent if baseline is None else baseline,
            goal_to_baseline=absent if goal_to_baseline is None else goal_to_baseline,
        )


@runtime_checkable
class Head(Protocol):
    """Turns similarities into a score, and a score into a reward.

    A row's score depends on that row alone. Heads are frozen dataclasses: equal settings are equal
    heads, and `heads.head_config` writes them down.
    """

    @property
    def needs_negatives(self) -> bool:
        """Whether every goal must have negatives."""

    @property
    def needs_baseline(self) -> bool:
        """Whether every goal must have a baseline."""

    def score(self, similarities: Similarities) -> Float[Tensor, " B"]:
        """Says how well each observation shows its goal: more is better."""

    def reward(self, score: Float[Tensor, " B"]) -> Float[Tensor, " B"]:
        """Says what the learner is paid for a score."""


class DenseHead:
    """A head that pays its score as it is and needs nothing but the goal."""

    needs_negatives = False
    needs_baseline = False

    def reward(self, score: Float[Tensor, " B"]) -> Float[Tensor, " B"]:
        """Pays the score."""
        return score
