"""Warnings about rewards that teach something else than was meant."""

from __future__ import annotations

import warnings

from vlmreward.heads import Head, ThresholdHead
from vlmreward.timing import RewardTiming

_PAGE = "see docs/termination.md"


class RewardDesignWarning(UserWarning):
    """A combination of reward and termination that is known to mislead learners."""


def is_binary(head: Head, timing: RewardTiming) -> bool:
    """Tells whether rewards are 0 or 1, so that "success" means something."""
    return isinstance(head, ThresholdHead) and timing.discount is None


class TerminationGuard:
    """Decides whether success ends episodes, and warns where ends and dense rewards meet.

    A dense positive reward teaches to avoid the end of the episode; a negative one to seek it. The
    learner then reads the termination rather than the reward. Each warning is given once.

    Args:
        head: The reward's.
        timing: The reward's.
        terminate_on_success: What the user asked for; None asks for it exactly where the reward is
            binary.
    """

    def __init__(self, head: Head, timing: RewardTiming, terminate_on_success: bool | None) -> None:
        binary = is_binary(head, timing)
        self.ends_on_success = binary if terminate_on_success is None else terminate_on_success
        # A potential difference is paid back at true ends, so that they may come at any time.
        self._minds_ends = not binary and timing.discount is None
        if self.ends_on_success and not binary:
            warnings.warn(
                f"success ends episodes, but {type(head).__name__} pays a dense reward: a learner "
                "earns more by staying near the goal than by reaching it. Put a ThresholdHead "
                f"around it, or pass terminate_on_success=False; {_PAGE}",
                RewardDesignWarning,
                stacklevel=3,
            )

    def saw_terminated(self) -> None:
        """Notes that the environment ended an episode by itself before its time limit."""
        if self._minds_ends:
            self._minds_ends = False
            warnings.warn(
                "the environment ended an episode before its time limit while a dense reward is "
                "paid: the length of an episode then rewards or punishes by itself. Use a fixed "
                f"horizon or a binary reward; {_PAGE}",
                RewardDesignWarning,
                stacklevel=3,
            )
