r"""Statistical tests that are looked at again and again while data come in.

Whoever tests a true hypothesis at 5 % every thousand steps rejects it sooner or later. Here look
number :math:`j` may reject only at

.. math:: \alpha_j = \frac{6}{\pi^2 j^2}\,\alpha, \qquad \sum_{j=1}^{\infty} \alpha_j = \alpha,

so that by the union bound (Bonferroni) the probability of *ever* rejecting a true hypothesis is at
most :math:`\alpha`, however long a run lasts and however much the looks' windows overlap.

Axes: `K` trials.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool
from numpy.typing import NDArray
from scipy import special, stats


@dataclass(frozen=True)
class RateLook:
    """One look at how often something happened.

    Attributes:
        events: How often it did, among the last `trials`.
        trials: How often it could have.
        limit: The share that it is held against.
        lower: The one-sided Clopper–Pearson limit at confidence `1 - significance`: the share is at
            least this. It exceeds `limit` exactly where there is an alarm.
        p_value: Probability of as many events or more if the share were `limit`.
        significance: What the p-value must be below, at this look.
        look: The number of the look, from 1.
    """

    events: int
    trials: int
    limit: float
    lower: float
    p_value: float
    significance: float
    look: int

    @property
    def rate(self) -> float:
        """The observed share, in [0, 1]."""
        return self.events / self.trials

    @property
    def alarm(self) -> bool:
        """Whether the share is above the limit, beyond chance."""
        return self.p_value < self.significance

    def to_dict(self) -> dict[str, Any]:
        """Describes the look as JSON types."""
        return {"rate": self.rate, **vars(self), "alarm": self.alarm}


class RateTest:
    r"""Asks, again and again, whether something happens more often than a limit allows.

    With :math:`k` events among :math:`n` trials the p-value is exact,

    .. math:: P(\mathrm{Bin}(n, p_0) \ge k) = I_{p_0}(k,\, n - k + 1)

    for the limit :math:`p_0` and the regularised incomplete beta function :math:`I`. Trials need
    not be independent: it is enough that each happens with probability at most :math:`p_0` *given
    those before it*.

    Args:
        limit: :math:`p_0`, in (0, 1).
        window: How many of the last trials a look takes in.
        significance: Probability of ever alarming where the limit is kept, in (0, 1).

    Raises:
        ValueError: If a setting is out of range.

    Example:
        Three events in ten trials, where one in ten was allowed, are no surprise; ten in ten are:

        >>> test = RateTest(limit=0.1, window=10, significance=0.01)
        >>> test.add([True, False, False] * 3 + [False])
        >>> look = test.look()
        >>> look.rate, round(look.p_value, 3), look.alarm
        (0.3, 0.07, False)
        >>> test.add([True] * 10)
        >>> test.look().alarm
        True
    """

    def __init__(self, limit: float, window: int, significance: float) -> None:
        if not 0 < limit < 1:
            raise ValueError(f"expected a limit between 0 and 1, got {limit}")
        if window < 1:
            raise ValueError(f"expected a window of at least 1, got {window}")
        _check_significance(significance)
        self.limit = limit
        self.significance = significance
        self._trials: deque[bool] = deque(maxlen=window)
        self._looks = 0
        self._is_new = False

    def add(self, trials: Sequence[bool] | Bool[NDArray[Any], " K"]) -> None:
        """Notes trials, True where it happened."""
        new = [bool(trial) for trial in trials]
        self._trials.extend(new)
        self._is_new |= bool(new)

    def look(self) -> RateLook | None:
        """Tests the last trials; None, and no look spent, where none came since the last look."""
        if not self._is_new:
            return None
        self._is_new = False
        self._looks += 1
        events, trials = sum(self._trials), len(self._trials)
        significance = significance_of_look(self.significance, self._looks)
        lower, p_value = 0.0, 1.0
        if events:
            lower = float(special.betaincinv(events, trials - events + 1, significance))
            p_value = float(special.betainc(events, trials - events + 1, self.limit))
        return RateLook(events, trials, self.limit, lower, p_value, significance, self._looks)


@dataclass(frozen=True)
class ReturnsLook:
    """One look at whether the reward's return and the true one go the same way.

    Attributes:
        vlm_before: Mean VLM return of the earlier episodes.
        vlm_after: Of the last ones.
        env_before: Mean return of the environment's own reward in the earlier episodes.
        env_after: In the last ones.
        p_value: One-sided Mann–Whitney, of no rise of the VLM return.
        significance: What the p-value must be below, at this look.
        look: The number of the look, from 1.
    """

    vlm_before: float
    vlm_after: float
    env_before: float
    env_after: float
    p_value: float
    significance: float
    look: int

    @property
    def alarm(self) -> bool:
        """Whether the VLM return rose, beyond chance, while the mean true return did not."""
        return self.p_value < self.significance and self.env_after <= self.env_before

    def to_dict(self) -> dict[str, Any]:
        """Describes the look as JSON types."""
        return {**vars(self), "alarm": self.alarm}


class ReturnsTest:
    """Asks, again and again, whether the VLM return rises while the true return does not.

    The rule: the last episodes have larger VLM returns than as many at half-time, those that ended
    just before half of all episodes so far had ended, by a one-sided Mann–Whitney test (normal
    approximation, ties corrected for); and their mean true return is no larger than at half-time.
    Half-time moves on with the run, so that neither a sudden nor a slow rise escapes.

    Args:
        episodes: How many episodes each side has, at least 10 for the approximation.
        significance: Probability of ever alarming where the VLM return does not rise, in (0, 1).

    Raises:
        ValueError: If a setting is out of range.

    Example:
        >>> test = ReturnsTest(episodes=20, significance=0.01)
        >>> for _ in range(20):
        ...     test.add(vlm_return=0.0, env_return=0.2)
        >>> for _ in range(20):
        ...     test.add(vlm_return=1.0, env_return=0.1)
        >>> test.look().alarm
        True
    """

    def __init__(self, episodes: int, significance: float) -> None:
        if episodes < 10:
            raise ValueError(f"expected at least 10 episodes to a side, got {episodes}")
        _check_significance(significance)
        self.episodes = episodes
        self.significance = significance
        self._returns: list[tuple[float, float]] = []
        self._looks = 0
        self._is_new = False

    def add(self, vlm_return: float, env_return: float) -> None:
        """Notes an episode that ended."""
        self._returns.append((float(vlm_return), float(env_return)))
        self._is_new = True

    def look(self) -> ReturnsLook | None:
        """Tests the last episodes; None while there are too few, or none ended since."""
        half_time = len(self._returns) // 2
        if not self._is_new or half_time < self.episodes:
            return None
        self._is_new = False
        self._looks += 1
        earlier = self._returns[half_time - self.episodes : half_time]
        vlm, env = np.array([earlier, self._returns[-self.episodes :]]).transpose(2, 0, 1)
        p_value = 1.0
        if np.ptp(vlm) > 0:  # else nothing rises, and the test's variance is 0
            test = stats.mannwhitneyu(vlm[1], vlm[0], alternative="greater", method="asymptotic")
            p_value = float(test.pvalue)
        return ReturnsLook(
            vlm_before=float(vlm[0].mean()),
            vlm_after=float(vlm[1].mean()),
            env_before=float(env[0].mean()),
            env_after=float(env[1].mean()),
            p_value=p_value,
            significance=significance_of_look(self.significance, self._looks),
            look=self._looks,
        )


def significance_of_look(significance: float, look: int) -> float:
    """Returns the part of a significance that a look, counted from 1, may spend."""
    return significance * 6 / (math.pi * look) ** 2


def _check_significance(significance: float) -> None:
    if not 0 < significance < 1:
        raise ValueError(f"expected a significance between 0 and 1, got {significance}")
