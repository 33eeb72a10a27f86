"""Training windows: pieces of learning histories that span episodes and never leave their history.

A window starts where an episode starts, as a context of the in-context agent does. Some start at
the very beginning of a history: that is where an agent with an empty context stands.

Axis letters: ``B`` windows, ``T`` time steps, ``*action`` the shape of an action.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Int, Shaped
from torch import Tensor

from algdistill.histories.schema import LearningHistory
from algdistill.timesteps import TimestepBatch


@dataclass(frozen=True)
class WindowBatch:
    """Windows and the source's action at every one of their steps."""

    steps: TimestepBatch
    actions: Shaped[Tensor, "B T *action"]

    def to(self, device: torch.device) -> WindowBatch:
        """The same windows on a device."""
        return WindowBatch(self.steps.to(device), self.actions.to(device))


class WindowSampler:
    """Draws windows from learning histories held in memory in their stored types.

    Args:
        histories: Histories of one space.
        window_length: Time steps of a window.
        start_fraction: Share of windows that start at the first step of their history; the others
            start at any episode that leaves room for a whole window.
        keep_every: Train on every ``keep_every``-th whole episode only.
        generator: The only source of randomness.

    Raises:
        ValueError: If there are no histories, their spaces differ, or one is shorter than a window.
    """

    def __init__(
        self,
        histories: Sequence[LearningHistory],
        *,
        window_length: int,
        start_fraction: float,
        generator: np.random.Generator,
        keep_every: int = 1,
    ) -> None:
        if not histories:
            raise ValueError("got no learning histories, expected at least one: collect some first")
        if not 0.0 <= start_fraction <= 1.0:
            raise ValueError(f"got start_fraction={start_fraction}, expected 0 to 1")
        spaces = {history.space for history in histories}
        if len(spaces) > 1:
            raise ValueError(f"got histories of several spaces, expected one: {spaces}")
        (self.space,) = spaces
        kept = [history.keep_every(keep_every) for history in histories]
        shortest = min(len(history) for history in kept)
        if shortest < window_length:
            raise ValueError(
                f"got a history of {shortest} kept steps, expected at least window_length="
                f"{window_length}: train the sources for longer or shorten the window"
            )
        self.window_length = window_length
        self.start_fraction = start_fraction
        self.generator = generator
        self._gather(kept)

    def _gather(self, histories: Sequence[LearningHistory]) -> None:
        """Lay all histories end to end and list where windows may start."""
        firsts, starts, counts = [], [], []
        offset = 0
        for history in histories:
            room = len(history) - self.window_length
            allowed = history.episode_starts[history.episode_starts <= room]
            firsts.append(offset)
            starts.append(allowed + offset)
            counts.append(len(allowed))
            offset += len(history)
        self.num_steps = offset
        self._firsts = np.array(firsts)
        self._starts = np.concatenate(starts)
        self._counts = np.array(counts)
        self._first_choice = np.cumsum(self._counts) - self._counts
        self._observations = np.concatenate([history.observations for history in histories])
        self._actions = np.concatenate([history.actions for history in histories])
        self._rewards = np.concatenate([history.rewards for history in histories])
        ended = np.concatenate([history.terminated | history.truncated for history in histories])
        self._episode_start = np.concatenate([[True], ended[:-1]])
        self._episode_start[self._firsts] = True

    def sample(self, batch_size: int) -> WindowBatch:
        """Draw windows: a history uniformly, then a start in it."""
        draws = self.generator.random((3, batch_size))
        history = (draws[0] * len(self._firsts)).astype(np.int64)
        choice = (draws[1] * self._counts[history]).astype(np.int64)
        starts = self._starts[self._first_choice[history] + choice]
        starts = np.where(draws[2] < self.start_fraction, self._firsts[history], starts)
        return self._windows(starts)

    def _windows(self, starts: Int[np.ndarray, " B"]) -> WindowBatch:
        """The windows that start at given rows of the histories laid end to end."""
        rows = starts[:, None] + np.arange(self.window_length)
        previous = np.maximum(rows - 1, 0)
        prev_action = self._taken(previous)
        prev_reward = self._rewards[previous].astype(np.float32)
        first = np.isin(starts, self._firsts)
        prev_action[torch.from_numpy(first), 0] = self.space.actions.none()
        prev_reward[first, 0] = 0.0
        steps = TimestepBatch(
            torch.from_numpy(self._observations[rows]).to(self.space.observations.dtype),
            prev_action,
            torch.from_numpy(prev_reward),
            torch.from_numpy(self._episode_start[rows]),
        )
        return WindowBatch(steps, self._taken(rows))

    def _taken(self, rows: Int[np.ndarray, "B T"]) -> Shaped[Tensor, "B T *action"]:
        """The actions at given rows, as tasks take them."""
        return torch.from_numpy(self._actions[rows]).to(self.space.actions.dtype)

    def state_dict(self) -> dict[str, Any]:
        """State of the generator: loading it continues the very same sequence of windows."""
        return {"generator": self.generator.bit_generator.state}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue where a sampler over the same histories stood."""
        self.generator.bit_generator.state = state["generator"]
