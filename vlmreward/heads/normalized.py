"""Another head's reward on a fixed scale.

Axes: `B` batch.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

from vlmreward.heads.base import Head, Similarities
from vlmreward.heads.threshold import ThresholdHead


@dataclass(frozen=True)
class NormalizedHead:
    r"""Pays another head's reward, shifted and scaled by numbers that never change.

    .. math:: r(o) = \frac{r'(o) - \mu}{\sigma}

    A CLIP's cosines lie in a band of a few hundredths, and a learner that minds the scale learns
    little from them. Running statistics (`gymnasium.wrappers.NormalizeReward`, SB3's
    `VecNormalize`) follow the learner; these are part of the reward, so that recorded frames,
    `dm_env` and a repeated run are paid alike. `evaluation.fit_normalized_head` measures both on
    frames, such as a random policy's. The score is still the other head's.

    With `RewardTiming(discount=...)` the potential is normalised. A difference is then divided by
    :math:`\sigma`, and the shift adds :math:`(1 - \gamma) \mu / \sigma` to every step but a true
    end, to which it adds :math:`\mu / \sigma`.

    Attributes:
        head: Gives the score, and a reward that is not binary.
        mean: :math:`\mu`, in that reward's unit. It decides which rewards are negative, which
            matters where episodes differ in length; 0 scales only.
        std: :math:`\sigma`, in the same unit.

    Example:
        With mean .25 and standard deviation .05, cosines .20 and .30 lie one below and one above.

        >>> import torch
        >>> from vlmreward.heads import CosineHead, Similarities
        >>> head = NormalizedHead(CosineHead(), mean=0.25, std=0.05)
        >>> score = head.score(Similarities.of(torch.tensor([0.20, 0.30])))
        >>> score, head.reward(score)
        (tensor([0.2000, 0.3000]), tensor([-1.0000,  1.0000]))

    Raises:
        ValueError: If the mean is not finite or the standard deviation not positive, or if the
            other head is binary.
    """

    head: Head
    mean: float
    std: float

    def __post_init__(self) -> None:
        if not (math.isfinite(self.mean) and math.isfinite(self.std) and self.std > 0):
            raise ValueError(
                f"expected a finite mean and a positive std, got {self.mean}, {self.std}"
            )
        if isinstance(self.head, ThresholdHead):
            raise ValueError(
                f"{self.head} pays 0 or 1, which is a scale already: leave it as it is, or "
                "normalise the head inside"
            )

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
        """Returns the other head's reward on the new scale."""
        return (self.head.reward(score) - self.mean) / self.std
