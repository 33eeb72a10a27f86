"""The pairwise probability of SigLIP (Zhai et al. 2023, arXiv 2303.15343).

Axes: `B` batch.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

from vlmreward.heads.base import DenseHead, Similarities


@dataclass(frozen=True)
class SigmoidHead(DenseHead):
    r"""Pays the probability that frame and goal belong together, whatever else is true, in [0, 1].

    .. math:: p(o, l) = \frac{1}{1 + \exp(-(t \, f(o) \cdot g(l) + b))}

    A SigLIP is trained on this and not on a softmax: it needs no negatives, and two goals can both
    be true. The model's own are `SigmoidHead(encoder.logit_scale, encoder.logit_bias)`.

    Attributes:
        scale: `t`, multiplies the cosines.
        bias: `b`, about -10 to -16 in published models.

    Example:
        At scale 10 and bias -2, cosines .2 and .3 give the logits 0 and 1, so 1/2 and
        `1 / (1 + 1/e) = .7311`.

        >>> import torch
        >>> from vlmreward.heads import Similarities
        >>> SigmoidHead(scale=10.0, bias=-2.0).score(Similarities.of(torch.tensor([0.2, 0.3])))
        tensor([0.5000, 0.7311])

    Raises:
        ValueError: If the scale is not positive or the bias is not finite.
    """

    scale: float
    bias: float

    def __post_init__(self) -> None:
        if not (math.isfinite(self.scale) and self.scale > 0 and math.isfinite(self.bias)):
            raise ValueError(
                f"expected a positive scale and a finite bias, got {self.scale}, {self.bias}"
            )

    def score(self, similarities: Similarities) -> Float[Tensor, " B"]:
        """Computes the probabilities."""
        return (self.scale * similarities.goal + self.bias).sigmoid()
