"""Watches a reward while a learner works against it.

A learner visits whatever pays, so the frames that it shows are not those on which a threshold was
chosen. Three checks say when the promise no longer holds; `vlmreward.drift` has their tests.

Axes: `N` environments.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Float64, Int64
from numpy.typing import NDArray

from vlmreward.drift import RateLook, RateTest, ReturnsLook, ReturnsTest
from vlmreward.guard import is_binary
from vlmreward.reward_model import RewardModel

_NUM_CHECKS = 3  # they share the significance


@dataclass(frozen=True)
class MonitorReport:
    """What the last looks found; None for a check that is off, or has seen too little.

    Attributes:
        num_steps: Steps seen so far, all environments counted.
        false_positives: Paid frames among frames without the goal, against the calibrated rate.
        returns: The VLM return against the true one.
        disagreement: Paid frames for which the second opinion would not pay.
        first_alarm: For each check that ever alarmed, the number of steps at that look.
    """

    num_steps: int
    false_positives: RateLook | None
    returns: ReturnsLook | None
    disagreement: RateLook | None
    first_alarm: Mapping[str, int]

    @property
    def alarms(self) -> tuple[str, ...]:
        """The checks whose last look alarmed."""
        looks = {
            "false_positives": self.false_positives,
            "returns": self.returns,
            "disagreement": self.disagreement,
        }
        return tuple(name for name, look in looks.items() if look is not None and look.alarm)

    def to_dict(self) -> dict[str, Any]:
        """Describes the report as JSON types."""
        looks = (self.false_positives, self.returns, self.disagreement)
        described = [None if look is None else look.to_dict() for look in looks]
        return {
            "num_steps": self.num_steps,
            "alarms": list(self.alarms),
            "first_alarm": dict(self.first_alarm),
            **dict(zip(("false_positives", "returns", "disagreement"), described, strict=True)),
        }


class RewardMonitor:
    r"""Compares what is paid with what is true, or with a second opinion, step by step.

    Three checks, each on where its data come in:

    - *False positives*, where `achieved` is given: the share of paid frames among frames without
      the goal, against `calibrated_rate`. Of falsely paid frames in a row, in one environment, only
      the first is counted: a learner that stands still in front of the fooling frame has been
      fooled once. The test then needs no independence, only that a frame whose predecessor was not
      falsely paid is falsely paid with probability at most `calibrated_rate`, given the past.
    - *Returns*, where `env_reward` is given: the VLM return rises while the true one does not.
    - *Disagreement*, where `second_reward` is given: the share of paid frames that the second
      opinion would not pay, against `max_disagreement`. Here too a run of paid frames counts once,
      as the first of it that was asked about.

    The checks look at their last data every `look_every` steps, and share `significance` equally;
    a look spends the part of it that `vlmreward.drift` states. So a run in which shares stay within
    their limits and the VLM return does not rise raises any alarm, ever, with probability at most
    `significance`. The checks read `reward > 0` as paid: with a dense reward, leave
    `calibrated_rate` and `max_disagreement` out.

    Args:
        num_envs: N.
        calibrated_rate: The false-positive rate that was promised, in (0, 1). It is taken as
            exact: of an estimate, give the upper end of its interval.
        max_disagreement: Largest acceptable share of paid frames that the second opinion would not
            pay, in (0, 1).
        window: How many of the last counted frames a look at a share takes in.
        episodes: How many episodes are compared with as many at half-time.
        look_every: Steps between looks, all environments counted.
        significance: Of all checks and looks together, in (0, 1).

    Raises:
        ValueError: If a setting is out of range.

    Example:
        One environment that never reaches its goal, and is paid on every other step:

        >>> monitor = RewardMonitor(1, calibrated_rate=0.01, look_every=10)
        >>> for step in range(20):
        ...     paid = np.array([float(step % 2)])
        ...     monitor.update(paid, ended=np.array([False]), achieved=[False])
        >>> report = monitor.report()
        >>> report.alarms, report.false_positives.rate, dict(report.first_alarm)
        (('false_positives',), 0.5, {'false_positives': 10})
    """

    def __init__(
        self,
        num_envs: int,
        *,
        calibrated_rate: float | None = None,
        max_disagreement: float | None = None,
        window: int = 2000,
        episodes: int = 100,
        look_every: int = 1000,
        significance: float = 0.01,
    ) -> None:
        if num_envs < 1 or look_every < 1:
            raise ValueError(
                f"expected num_envs and look_every of at least 1, got {num_envs} and {look_every}"
            )
        part = significance / _NUM_CHECKS
        self.num_envs = num_envs
        self.look_every = look_every
        self._false_positives = (
            None if calibrated_rate is None else RateTest(calibrated_rate, window, part)
        )
        self._disagreement = (
            None if max_disagreement is None else RateTest(max_disagreement, window, part)
        )
        self._returns = ReturnsTest(episodes, part)
        self._num_steps = 0
        self._last_look = 0
        self._looks: dict[str, Any] = {}
        self._first_alarm: dict[str, int] = {}
        self._was_false = np.zeros(num_envs, dtype=bool)
        self._was_asked = np.zeros(num_envs, dtype=bool)
        self._vlm_return: Float64[NDArray[Any], " N"] = np.zeros(num_envs)
        self._env_return: Float64[NDArray[Any], " N"] = np.zeros(num_envs)

    @property
    def watches_false_positives(self) -> bool:
        """Whether there is a `calibrated_rate`."""
        return self._false_positives is not None

    @property
    def watches_disagreement(self) -> bool:
        """Whether there is a `max_disagreement`."""
        return self._disagreement is not None

    def update(
        self,
        reward: Float[NDArray[Any], " N"],
        ended: Bool[NDArray[Any], " N"],
        *,
        achieved: Sequence[bool | None] | None = None,
        env_reward: Float[NDArray[Any], " N"] | None = None,
        second_reward: Float[NDArray[Any], " N"] | None = None,
        scored: Bool[NDArray[Any], " N"] | None = None,
    ) -> None:
        """Notes one step of every environment, and looks where a look is due.

        Args:
            reward: What the learner was paid.
            ended: Where the step was the last of its episode.
            achieved: Whether the frame that was paid for shows the goal in truth; None where that
                is unknown.
            env_reward: The environment's own reward.
            second_reward: What the second opinion would pay; NaN where it was not asked.
            scored: False where the reward model did not look; all True if None.

        Raises:
            ValueError: If something has not one entry per environment.
        """
        given = (reward, ended, achieved, env_reward, second_reward, scored)
        for values in given:
            if values is not None and len(values) != self.num_envs:
                raise ValueError(
                    f"expected one entry for each of {self.num_envs} environments, got "
                    f"{len(values)}"
                )
        seen = np.ones(self.num_envs, dtype=bool) if scored is None else scored
        paid = reward > 0
        if achieved is not None and self._false_positives is not None:
            lacks = np.array([value is not None and not value for value in achieved]) & seen
            self._false_positives.add(paid[lacks & ~(self._was_false & paid)])
            self._was_false = np.where(seen, lacks & paid, self._was_false) & ~ended
        if second_reward is not None and self._disagreement is not None:
            asked = paid & ~np.isnan(second_reward)
            self._disagreement.add(~(second_reward[asked & ~self._was_asked] > 0))
            self._was_asked = np.where(seen, paid & (self._was_asked | asked), self._was_asked)
            self._was_asked &= ~ended
        self._count_returns(reward, env_reward, ended)
        self._num_steps += self.num_envs
        if self._num_steps - self._last_look >= self.look_every:
            self._last_look = self._num_steps
            self._look()

    def report(self) -> MonitorReport:
        """Returns what the last looks found; it looks no further itself."""
        return MonitorReport(
            num_steps=self._num_steps,
            false_positives=self._looks.get("false_positives"),
            returns=self._looks.get("returns"),
            disagreement=self._looks.get("disagreement"),
            first_alarm=dict(self._first_alarm),
        )

    def _count_returns(
        self,
        reward: Float[NDArray[Any], " N"],
        env_reward: Float[NDArray[Any], " N"] | None,
        ended: Bool[NDArray[Any], " N"],
    ) -> None:
        if env_reward is None:
            return
        self._vlm_return += reward
        self._env_return += env_reward
        for index in np.flatnonzero(ended):
            self._returns.add(float(self._vlm_return[index]), float(self._env_return[index]))
        self._vlm_return[ended] = self._env_return[ended] = 0.0

    def _look(self) -> None:
        tests = {
            "false_positives": self._false_positives,
            "returns": self._returns,
            "disagreement": self._disagreement,
        }
        for name, test in tests.items():
            look = None if test is None else test.look()
            if look is not None:
                self._looks[name] = look
                if look.alarm:
                    self._first_alarm.setdefault(name, self._num_steps)


class SecondOpinion:
    """Asks another reward model about a sample of the frames that were paid.

    Another encoder errs on other frames; another set of prompts, over the same encoder, shows how
    much hangs on the wording. Only paid frames are ever scored, so it costs little where rewards
    are rare.

    Args:
        reward_model: Pays 0 or 1, for the same goals in the same order. It scores each frame by
            itself, whatever its `timing`.
        share: Probability that a paid frame is asked about, in (0, 1].
        generator: The source of the draws.

    Raises:
        ValueError: If the share is out of range, or if its reward is not 0 or 1.

    Example:
        >>> from vlmreward import CosineHead, FakeEncoder, Goal, RewardModel, ThresholdHead
        >>> head = ThresholdHead(CosineHead(), threshold=0.9)
        >>> second = RewardModel(FakeEncoder(), Goal("a red room"), head)
        >>> opinion = SecondOpinion(second, share=1.0, generator=np.random.default_rng(0))
        >>> black = np.zeros((2, 8, 8, 3), np.uint8)
        >>> opinion({"pixels": black}, np.array([True, False]), np.array([0, 0]))
        array([ 0., nan])
    """

    def __init__(
        self, reward_model: RewardModel, *, share: float, generator: np.random.Generator
    ) -> None:
        if not 0 < share <= 1:
            raise ValueError(f"expected a share above 0 and at most 1, got {share}")
        if not is_binary(reward_model.head, reward_model.timing):
            raise ValueError(
                "a second opinion pays 0 or 1: put a ThresholdHead around "
                f"{type(reward_model.head).__name__}, and leave RewardTiming(discount=...) out"
            )
        self.reward_model = reward_model
        self.share = share
        self._generator = generator

    def __call__(
        self,
        obs: Mapping[str, Any],
        paid: Bool[NDArray[Any], " N"],
        goal_index: Int64[NDArray[Any], " N"],
    ) -> Float64[NDArray[Any], " N"]:
        """Returns what it would pay for the paid rows that it draws, NaN for the others."""
        second = np.full(len(paid), np.nan)
        drawn = np.flatnonzero(paid & (self._generator.random(len(paid)) < self.share))
        if len(drawn):
            keys = self.reward_model.encoder.modalities
            rows = {key: obs[key][drawn] for key in keys if key in obs}
            second[drawn] = self.reward_model(rows, goal_index[drawn]).cpu().numpy()
        return second
