"""The softmax over a goal and its negatives of Baumli et al. 2023 (arXiv 2312.09187).

Axes: `B` batch.

Paper to code: `f(o) . g(l)` similarity, `tau` temperature, `L` the goal and its negatives.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from vlmreward.heads.base import DenseHead, Similarities


@dataclass(frozen=True)
class SoftmaxHead(DenseHead):
    r"""Pays the probability that a frame shows the goal and not one of its negatives, in [0, 1].

    .. math::
        p(o, l) = \frac{\exp(f(o) \cdot g(l) / \tau)}
                       {\sum_{l' \in L} \exp(f(o) \cdot g(l') / \tau)}

    is Eq. 1 of the paper; `L` includes the goal `l` itself. Put a `ThresholdHead` around it for
    Eq. 2, the binary reward that the paper trains on.

    Attributes:
        temperature: Divides the cosines, in the same unit (a CLIP's own is about 0.01).

    Example:
        Similarities .30 to the goal and .20 to one negative, at temperature .1, give
        `e**3 / (e**3 + e**2) = 1 / (1 + 1/e) = .7311`.

        >>> import torch
        >>> from vlmreward.heads import Similarities
        >>> seen = Similarities.of(torch.tensor([0.30]), negatives=torch.tensor([[0.20]]))
        >>> SoftmaxHead(temperature=0.1).score(seen)
        tensor([0.7311])

    Raises:
        ValueError: If the temperature is not a positive number.
    """

    temperature: float

    needs_negatives = True

    def __post_init__(self) -> None:
        if not (math.isfinite(self.temperature) and self.temperature > 0):
            raise ValueError(
                f"expected a positive temperature, got {self.temperature}: a CLIP's own is "
                "1 / encoder.logit_scale"
            )

    def score(self, similarities: Similarities) -> Float[Tensor, " B"]:
        """Computes Eq. 1."""
        negatives = similarities.negatives.masked_fill(~similarities.is_negative, -math.inf)
        cosines = torch.cat([similarities.goal[:, None], negatives], dim=1)
        return (cosines / self.temperature).softmax(dim=1)[:, 0]
