"""The binary reward of Baumli et al. 2023 (arXiv 2312.09187), around any other head.

Axes: `B` batch.

Paper to code: `beta` threshold.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

from vlmreward.heads.base import Head, Similarities


@dataclass(frozen=True)
class ThresholdHead:
    r"""Pays 1 where another head's score exceeds a threshold, else 0.

    .. math:: r_t = \mathbb{1}[\, p(o_{t+1}, l) > \beta \,]

    is Eq. 2 of the paper, with a strict inequality. The score is still the other head's.

    Attributes:
        head: Gives the score.
        threshold: What a rewarded score must exceed, in that head's unit.

    Example:
        At temperature .1, similarities .30 and .25 to the goal and .20 to one negative give the
        probabilities `1 / (1 + e**-1) = .7311` and `1 / (1 + e**-.5) = .6225`: one exceeds .7.

        >>> import torch
        >>> from vlmreward.heads import Similarities, SoftmaxHead
        >>> head = ThresholdHead(SoftmaxHead(temperature=0.1), threshold=0.7)
        >>> cosines = torch.tensor([0.30, 0.25])
        >>> score = head.score(Similarities.of(cosines, negatives=torch.full((2, 1), 0.20)))
        >>> score, head.reward(score)
        (tensor([0.7311, 0.6225]), tensor([1., 0.]))

    Raises:
        ValueError: If the threshold is not finite.
    """

    head: Head
    threshold: float

    def __post_init__(self) -> None:
        if not math.isfinite(self.threshold):
            raise ValueError(f"expected a finite threshold, got {self.threshold}")

    @property
    def needs_negatives(self) -> bool:
        """What the other head needs."""
        return self.head.needs_negatives

    @property
    def needs_baseline(self) -> bool:
        """What the other head needs."""
        return self.head.needs_baseline

    def score(self, similarities: Similarities) -> Float[Tensor, " B"]:
        """Returns the other head's score."""
        return self.head.score(similarities)

    def reward(self, score: Float[Tensor, " B"]) -> Float[Tensor, " B"]:
        """Computes Eq. 2."""
        return (score > self.threshold).to(score.dtype)
