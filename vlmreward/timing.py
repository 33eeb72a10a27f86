"""When a reward is worked out, and from how much of the past."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal, get_args

Pooling = Literal["mean", "max", "last_minus_first"]


@dataclass(frozen=True)
class RewardTiming:
    r"""How the rewards of an episode follow from the observations of its steps.

    Attributes:
        window: How many of the last embeddings are pooled before the head sees them, the frame of
            the reset included; fewer at the start of an episode. 1 scores each frame alone.
        pooling: `mean` (RoboCLIP, Sontakke et al. 2023, arXiv 2310.07899), `max` of every
            coordinate, or `last_minus_first`, the direction of change, for goals that tell of one.
            What is pooled is scaled back to unit length; no change at all has cosine 0 to any goal.
        discount: If given, the learner is paid the potential difference
            :math:`F = \gamma \Phi(s') - \Phi(s)` of the head's reward :math:`\Phi`, with
            :math:`\Phi = 0` at true ends (`terminated`, never `truncated`). It moves no optimum of
            the reward it is added to (Ng et al. 1999), and telescopes: alone, its discounted sum is
            :math:`\gamma^T \Phi(s_T) - \Phi(s_0)`. Use the learner's own :math:`\gamma`, in (0, 1].
        score_every: Steps between scores, the last step of an episode included; or `episode_end`
            for that one alone. Steps without a score pay 0, and their frames are encoded only where
            a window reaches back to them: they wait, and go in one batch with the one scored.
        success_steps: How many scored steps in a row must pay before a binary reward is paid. More
            than 1 forgets false positives that flicker.

    Example:
        Scored once, at the end, from the last 16 frames; the frame of the reset can be one:

        >>> RewardTiming(window=16, score_every="episode_end").needs_first_frame
        True

    Raises:
        ValueError: If a setting is out of range, or if a potential difference is asked for together
            with skipped scores or success steps: each would break the telescoping sum.
    """

    window: int = 1
    pooling: Pooling = "mean"
    discount: float | None = None
    score_every: int | Literal["episode_end"] = 1
    success_steps: int = 1

    def __post_init__(self) -> None:
        for name in ("window", "success_steps"):
            if getattr(self, name) < 1:
                raise ValueError(f"expected {name} of at least 1, got {getattr(self, name)}")
        if self.pooling not in get_args(Pooling):
            raise ValueError(f"expected pooling among {get_args(Pooling)}, got {self.pooling!r}")
        every = self.score_every
        if every != "episode_end" and not (isinstance(every, int) and every >= 1):
            raise ValueError(f"expected score_every as a count or 'episode_end', got {every!r}")
        if self.discount is None:
            return
        if not 0 < self.discount <= 1:
            raise ValueError(f"expected a discount in (0, 1], got {self.discount}")
        if every != 1 or self.success_steps != 1:
            raise ValueError(
                "a potential difference needs the score of every step: leave score_every and "
                f"success_steps at 1, got {every!r} and {self.success_steps}"
            )

    @property
    def needs_first_frame(self) -> bool:
        """Whether the frame of a reset has a part in later rewards."""
        return self.window > 1 or self.discount is not None

    def config(self) -> dict[str, Any]:
        """Describes the settings as JSON types."""
        return asdict(self)
