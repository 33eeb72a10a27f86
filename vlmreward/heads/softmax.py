"""The reward of Baumli et al. 2023 (arXiv 2312.09187): softmax over negatives, then a threshold.

Axes: `B` batch, `M` candidates: the goal first, then its negatives.

Paper to code: `f(o) . g(l)` similarity, `tau` temperature, `beta` threshold, `L` candidates.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from jaxtyping import Bool, Float
from torch import Tensor


@dataclass(frozen=True)
class SoftmaxHead:
    r"""Turns similarities of a frame to a goal and to its negatives into a binary reward.

    .. math::
        p(o, l) = \frac{\exp(f(o) \cdot g(l) / \tau)}
                       {\sum_{l' \in L} \exp(f(o) \cdot g(l') / \tau)},
        \qquad r_t = \mathbb{1}[\, p(o_{t+1}, l) > \beta \,]

    are Eq. 1 and Eq. 2 of the paper. `L` includes the goal `l` itself, and the inequality is
    strict.

    Attributes:
        temperature: Divides the cosines, in the same unit (a CLIP's own is about 0.01).
        threshold: The probability, from 0 to below 1, that a rewarded frame must exceed.

    Example:
        Similarities .30 to the goal and .20 to one negative, at temperature .1, give
        `e**3 / (e**3 + e**2) = 1 / (1 + 1/e) = .7311`, which exceeds .7 but not .8.

        >>> import torch
        >>> similarity = torch.tensor([[0.30, 0.20]])
        >>> SoftmaxHead(temperature=0.1, threshold=0.7).probability(similarity)
        tensor([0.7311])
        >>> SoftmaxHead(temperature=0.1, threshold=0.7).reward(torch.tensor([0.7311]))
        tensor([1.])
        >>> SoftmaxHead(temperature=0.1, threshold=0.8).reward(torch.tensor([0.7311]))
        tensor([0.])

    Raises:
        ValueError: If the temperature is not a positive number, or the threshold is outside
            [0, 1).
    """

    temperature: float
    threshold: float

    def __post_init__(self) -> None:
        if not (math.isfinite(self.temperature) and self.temperature > 0):
            raise ValueError(
                f"expected a positive temperature, got {self.temperature}: a CLIP's own is "
                "1 / encoder.logit_scale"
            )
        if not 0 <= self.threshold < 1:
            raise ValueError(
                f"expected a threshold from 0 to below 1, got {self.threshold}: no probability "
                "exceeds 1, so no frame would ever be rewarded"
            )

    def probability(
        self, similarity: Float[Tensor, "B M"], candidate: Bool[Tensor, "B M"] | None = None
    ) -> Float[Tensor, " B"]:
        """Computes Eq. 1.

        Args:
            similarity: Cosines; the goal's own is in the first column.
            candidate: False where a column is padding and takes no part in the sum.
        """
        logits = similarity / self.temperature
        if candidate is not None:
            logits = logits.masked_fill(~candidate, -math.inf)
        return logits.softmax(dim=-1)[..., 0]

    def reward(self, probability: Float[Tensor, " B"]) -> Float[Tensor, " B"]:
        """Computes Eq. 2: 1 where the probability exceeds the threshold, else 0."""
        return (probability > self.threshold).to(probability.dtype)
