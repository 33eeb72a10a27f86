"""The plain cosine reward.

Axes: `B` batch.
"""

from __future__ import annotations

from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

from vlmreward.heads.base import DenseHead, Similarities


@dataclass(frozen=True)
class CosineHead(DenseHead):
    r"""Pays the cosine of the observation and the goal, in [-1, 1].

    .. math:: r(o) = f(o) \cdot g(l)

    for unit embeddings `f` of the observation and `g` of the goal (Rocamonde et al. 2024, arXiv
    2310.12921, Eq. 2). A CLIP's cosines lie in a narrow band around .2 to .3: compare frames with
    each other, and normalise before a learner that minds the scale.

    Example:
        The unit vectors (.6, .8) and (1, 0) have cosine .6.

        >>> import torch
        >>> from vlmreward.heads import Similarities
        >>> goal = torch.tensor([[0.6, 0.8]]) @ torch.tensor([1.0, 0.0])
        >>> CosineHead().score(Similarities.of(goal))
        tensor([0.6000])
    """

    def score(self, similarities: Similarities) -> Float[Tensor, " B"]:
        """Returns the cosines."""
        return similarities.goal
