"""What an agent knows when it is about to act, for many windows of experience at once.

Axis letters: ``B`` batch of windows, ``T`` time steps, ``O`` observation components.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor


@dataclass(frozen=True)
class TimestepBatch:
    """What is known at each time step, before acting on it.

    Attributes:
        obs: Symbolic observations.
        prev_action: The action of the step before; ``num_actions`` where there is none, on the
            very first step of a learning history.
        prev_reward: What that action was paid; 0 where there is none.
        episode_start: Whether the observation is the first of an episode.
    """

    obs: Int[Tensor, "B T O"]
    prev_action: Int[Tensor, "B T"]
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
