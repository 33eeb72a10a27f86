"""Goal–baseline regularisation of VLM-RM (Rocamonde et al. 2024, arXiv 2310.12921).

Axes: `B` batch.

Paper to code: `s` the observation, `g` the goal, `b` the baseline, `alpha` alpha.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from vlmreward.heads.base import DenseHead, Similarities


@dataclass(frozen=True)
class GoalBaselineHead(DenseHead):
    r"""Pays for what moves an observation from the baseline towards the goal, at most 1.

    .. math::
        r(s) = 1 - \tfrac12 \lVert \alpha \, \mathrm{proj}_L(s) + (1 - \alpha) s - g \rVert^2

    is Definition 1 of the paper, with unit vectors `s`, `g`, `b` and `L` the line through `b` and
    `g`. With `u = (g - b) / |g - b|` and `t = (s - b) . u`, the projection is `b + t u`. The
    difference splits into a part along `L` and a part across it, so that no projection matrix is
    needed: only the cosines `s.g`, `s.b` and `g.b`,

    .. math::
        r = 1 - \tfrac12 \bigl( (t - \lVert g - b \rVert)^2
            + (1 - \alpha)^2 (\lVert s - b \rVert^2 - t^2) \bigr).

    `alpha = 0` gives the cosine. At `alpha = 1` nothing across the line counts, and the range is
    another: a threshold is for one alpha.

    Attributes:
        alpha: Strength, in [0, 1].

    Example:
        `b = (1, 0, 0)`, `g = (0, 1, 0)` and an observation `s = (0, 0, 1)` that is neither: its
        projection is `(.5, .5, 0)`, half way. So at alpha 1 the reward is
        `1 - (.25 + .25) / 2 = .75`, and at alpha 0 the cosine, 0.

        >>> import torch
        >>> from vlmreward.heads import Similarities
        >>> zero = torch.zeros(1)
        >>> seen = Similarities.of(zero, baseline=zero, goal_to_baseline=zero)
        >>> GoalBaselineHead(alpha=1.0).score(seen), GoalBaselineHead(alpha=0.0).score(seen)
        (tensor([0.7500]), tensor([0.]))

    Raises:
        ValueError: If alpha is outside [0, 1].
    """

    alpha: float

    needs_baseline = True

    def __post_init__(self) -> None:
        if not 0 <= self.alpha <= 1:
            raise ValueError(f"expected alpha from 0 (the cosine) to 1, got {self.alpha}")

    def score(self, similarities: Similarities) -> Float[Tensor, " B"]:
        """Computes Definition 1."""
        to_goal, to_baseline = similarities.goal.double(), similarities.baseline.double()
        between = similarities.goal_to_baseline.double()
        gap = (2 - 2 * between).sqrt()  # |g - b|
        along = (to_goal - to_baseline - between + 1) / gap  # t
        across = 2 - 2 * to_baseline - along**2
        distance = (along - gap) ** 2 + (1 - self.alpha) ** 2 * across
        return (1 - distance / 2).to(torch.float32)
