"""Positive minus negative: the contrasting reward of VLM-RL (Huang et al. 2024, arXiv 2412.15544).

Axes: `B` batch.
"""

from __future__ import annotations

from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

from vlmreward.heads.base import DenseHead, Similarities


@dataclass(frozen=True)
class ContrastHead(DenseHead):
    r"""Pays how much nearer a frame is to the goal than to the mean of its negatives, in [-2, 2].

    .. math:: r(o) = f(o) \cdot g(l) - \frac{1}{|N|} \sum_{n \in N} f(o) \cdot g(n)

    With one negative it is the difference of two cosines.

    Example:
        >>> import torch
        >>> from vlmreward.heads import Similarities
        >>> seen = Similarities.of(torch.tensor([0.30]), negatives=torch.tensor([[0.20, 0.10]]))
        >>> ContrastHead().score(seen)  # .30 - (.20 + .10) / 2
        tensor([0.1500])
    """

    needs_negatives = True

    def score(self, similarities: Similarities) -> Float[Tensor, " B"]:
        """Returns the differences."""
        negatives = similarities.negatives.masked_fill(~similarities.is_negative, 0.0)
        return similarities.goal - negatives.sum(dim=1) / similarities.is_negative.sum(dim=1)
