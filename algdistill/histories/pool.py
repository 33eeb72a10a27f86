"""Learning histories held in memory, and the one way windows are taken from them.

Axis letters: ``B`` windows, ``T`` time steps, ``H`` histories and ``E`` episodes of a slot,
``*action`` the shape of an action.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Int, Shaped
from torch import Tensor

from algdistill.histories.schema import LearningHistory
from algdistill.task_space import TaskSpace
from algdistill.timesteps import TimestepBatch


@dataclass(frozen=True)
class WindowBatch:
    """Windows and the action to predict at every one of their steps; mostly the source's own."""

    steps: TimestepBatch
    actions: Shaped[Tensor, "B T *action"]

    def to(self, device: torch.device) -> WindowBatch:
        """The same windows on a device."""
        return WindowBatch(self.steps.to(device), self.actions.to(device))


@dataclass(frozen=True)
class _Layout:
    """Rows of the histories of one slot: where each begins and ends, and where episodes start."""

    firsts: Int[np.ndarray, " H"]
    stops: Int[np.ndarray, " H"]
    starts: Int[np.ndarray, " E"]
    num_starts: Int[np.ndarray, " H"]


class HistoryPool:
    """Histories laid end to end, in slots that can be filled anew.

    Args:
        space: Observation and action spaces of the histories.
        slot_sizes: Time steps that each slot can hold.
    """

    def __init__(self, space: TaskSpace, slot_sizes: Sequence[int]) -> None:
        self.space = space
        self._offsets = np.cumsum([0, *slot_sizes])
        rows = int(self._offsets[-1])
        self._observations = np.empty(
            (rows, *space.observations.shape), space.observations.stored_dtype
        )
        self._actions = np.empty((rows, *space.actions.shape), space.actions.stored_dtype)
        self._targets = self._actions  # one array, until other targets come
        self._rewards = np.empty(rows, np.float32)
        self._episode_start = np.empty(rows, np.bool_)
        none = np.empty(0, np.int64)
        self._layouts = [_Layout(none, none, none, none) for _ in slot_sizes]

    def fill(
        self,
        slot: int,
        histories: Sequence[LearningHistory],
        targets: Sequence[LearningHistory] | None = None,
    ) -> None:
        """Put histories into a slot, in place of those that were there.

        Args:
            slot: Which one.
            histories: What windows show.
            targets: Like ``histories``, but with the actions to predict, where those differ from
                what was done.
        """
        if targets is not None and self._targets is self._actions:
            self._targets = self._actions.copy()
        offset = int(self._offsets[slot])
        firsts, stops, starts = [], [], []
        for history, target in zip(histories, targets or histories, strict=True):
            rows = slice(offset, offset + len(history))
            self._observations[rows] = history.observations
            self._actions[rows] = history.actions
            self._targets[rows] = target.actions
            self._rewards[rows] = history.rewards
            episode_starts = history.episode_starts + offset
            self._episode_start[rows] = False
            self._episode_start[episode_starts] = True
            firsts.append(rows.start)
            stops.append(rows.stop)
            starts.append(episode_starts)
            offset = rows.stop
        self._layouts[slot] = _Layout(
            np.array(firsts),
            np.array(stops),
            np.concatenate(starts),
            np.array([len(of_history) for of_history in starts]),
        )
        self._firsts, self._stops, self._starts, num_starts = (
            np.concatenate([getattr(layout, name) for layout in self._layouts])
            for name in ("firsts", "stops", "starts", "num_starts")
        )
        self._first_choice = np.cumsum(num_starts) - num_starts

    def num_steps(self, slot: int) -> int:
        """Time steps of the histories in a slot."""
        layout = self._layouts[slot]
        return int((layout.stops - layout.firsts).sum())

    def draw(
        self, generator: np.random.Generator, batch_size: int, length: int, start_fraction: float
    ) -> WindowBatch:
        """Draw windows: a history uniformly, then an episode of it that leaves room for a window.

        Args:
            generator: Draws.
            batch_size: Windows.
            length: Time steps of each; no history may be shorter.
            start_fraction: Probability of starting at the history's first step instead.
        """
        draws = generator.random((3, batch_size))
        history = (draws[0] * len(self._firsts)).astype(np.int64)
        first, first_choice = self._firsts[history], self._first_choice[history]
        latest = self._stops[history] - length
        num_choices = np.searchsorted(self._starts, latest, side="right") - first_choice
        choice = (draws[1] * num_choices).astype(np.int64)
        starts = self._starts[first_choice + choice]
        starts = np.where(draws[2] < start_fraction, first, starts)
        return self._windows(starts, length, starts == first)

    def _windows(
        self, starts: Int[np.ndarray, " B"], length: int, at_first: Bool[np.ndarray, " B"]
    ) -> WindowBatch:
        """The windows that start at given rows; ``at_first`` marks those that begin a history."""
        rows = starts[:, None] + np.arange(length)
        previous = np.maximum(rows - 1, 0)
        prev_action = self._as_taken(self._actions[previous])
        prev_reward = self._rewards[previous]
        prev_action[torch.from_numpy(at_first), 0] = self.space.actions.none()
        prev_reward[at_first, 0] = 0.0
        steps = TimestepBatch(
            torch.from_numpy(self._observations[rows]).to(self.space.observations.dtype),
            prev_action,
            torch.from_numpy(prev_reward),
            torch.from_numpy(self._episode_start[rows]),
        )
        return WindowBatch(steps, self._as_taken(self._targets[rows]))

    def _as_taken(
        self, actions: Shaped[np.ndarray, "B T *action"]
    ) -> Shaped[Tensor, "B T *action"]:
        """Stored actions as tasks take them."""
        return torch.from_numpy(actions).to(self.space.actions.dtype)
