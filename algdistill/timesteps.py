"""What an agent knows when it is about to act, for many windows of experience at once.

Axis letters: ``B`` batch of windows, ``T`` time steps, ``*obs`` and ``*action`` the shapes of an
observation and of an action.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Shaped
from torch import Tensor


@dataclass(frozen=True)
class TimestepBatch:
    """What is known at each time step, before acting on it.

    Attributes:
        obs: Observations, as the tasks show them.
        prev_action: The action of the step before; where there is none, on the very first step of a
            learning history, what the action space calls ``none``.
        prev_reward: What that action was paid; 0 where there is none.
        episode_start: Whether the observation is the first of an episode.
    """

    obs: Shaped[Tensor, "B T *obs"]
    prev_action: Shaped[Tensor, "B T *action"]
    prev_reward: Float[Tensor, "B T"]
    episode_start: Bool[Tensor, "B T"]

    def __getitem__(self, steps: slice) -> TimestepBatch:
        """The same windows, cut to some of their time steps."""
        return TimestepBatch(
            self.obs[:, steps],
            self.prev_action[:, steps],
            self.prev_reward[:, steps],
            self.episode_start[:, steps],
        )

    def windows(self, rows: slice) -> TimestepBatch:
        """Some of the windows, whole."""
        return TimestepBatch(
            self.obs[rows], self.prev_action[rows], self.prev_reward[rows], self.episode_start[rows]
        )

    def to(self, device: torch.device) -> TimestepBatch:
        """The same windows on a device."""
        return TimestepBatch(
            self.obs.to(device),
            self.prev_action.to(device),
            self.prev_reward.to(device),
            self.episode_start.to(device),
        )

    @property
    def num_steps(self) -> int:
        """``T``."""
        return self.obs.shape[1]
