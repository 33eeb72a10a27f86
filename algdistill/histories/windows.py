"""Training windows: pieces of learning histories that span episodes and never leave their history.

A window starts where an episode starts, as a context of the in-context agent does. Some start at
the very beginning of a history: that is where an agent with an empty context stands.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from algdistill.histories.pool import HistoryPool, WindowBatch
from algdistill.histories.schema import LearningHistory


class WindowSource(ABC):
    """Draws training windows; what `algdistill.training.Trainer` asks for.

    Args:
        pool: Histories in memory.
        window_length: Time steps of the longest windows.
        shorter_lengths: Lengths that a batch may have instead, each as likely as
            ``window_length``: whole episodes, ``range(20, 100, 20)``, or any, ``range(1, 100)``.
        start_fraction: Share of windows that start at the first step of their history; the others
            start at any episode that leaves room for a whole window.
        keep_every: Train on every ``keep_every``-th whole episode only.
        generator: The only source of randomness.

    Attributes:
        space: Observation and action spaces of the histories.
        num_steps: Time steps of all histories.

    Raises:
        ValueError: If a share or a length is out of its range.
    """

    num_steps: int

    def __init__(
        self,
        pool: HistoryPool,
        *,
        window_length: int,
        shorter_lengths: Sequence[int],
        start_fraction: float,
        keep_every: int,
        generator: np.random.Generator,
    ) -> None:
        if not 0.0 <= start_fraction <= 1.0:
            raise ValueError(f"got start_fraction={start_fraction}, expected 0 to 1")
        if window_length < 1:
            raise ValueError(f"got window_length={window_length}, expected at least 1")
        if not all(1 <= length < window_length for length in shorter_lengths):
            raise ValueError(
                f"got shorter_lengths={list(shorter_lengths)}, expected lengths from 1 up to, not "
                f"including, window_length={window_length}"
            )
        self.space = pool.space
        self.window_length = window_length
        self.start_fraction = start_fraction
        self.keep_every = keep_every
        self.generator = generator
        self._pool = pool
        self._lengths = (*shorter_lengths, window_length)

    def sample(self, batch_size: int) -> WindowBatch:
        """Draw windows of one length: a history uniformly, then a start in it."""
        length = self._lengths[0]
        if len(self._lengths) > 1:
            length = self._lengths[self.generator.integers(len(self._lengths))]
        return self._pool.draw(self.generator, batch_size, length, self.start_fraction)

    def _fill(
        self,
        slot: int,
        histories: Sequence[LearningHistory],
        targets: Sequence[LearningHistory] | None = None,
    ) -> None:
        """Put the kept episodes of histories, and what to predict, into a slot of the pool."""
        kept = self._kept(histories)
        check_length(min(len(history) for history in kept), self.window_length)
        self._pool.fill(slot, kept, None if targets is None else self._kept(targets))

    def _kept(self, histories: Sequence[LearningHistory]) -> Sequence[LearningHistory]:
        if self.keep_every == 1:
            return histories
        return [history.keep_every(self.keep_every) for history in histories]

    @abstractmethod
    def state_dict(self) -> dict[str, Any]:
        """What JSON can hold; loading it continues the very same sequence of windows."""

    @abstractmethod
    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue where a source of the same histories and settings stood."""


class WindowSampler(WindowSource):
    """Draws windows from learning histories that are all held in memory, in their stored types.

    Args:
        histories: Histories of one space.
        window_length: See `WindowSource`, as for all others.
        targets: The same histories with the actions that are to be predicted; without them, those
            that were taken. `algdistill.sources.optimal_targets` makes some.
        start_fraction: Share of windows that start at the first step of their history.
        generator: The only source of randomness.
        keep_every: Train on every ``keep_every``-th whole episode only.
        shorter_lengths: Lengths that a batch may have instead.

    Raises:
        ValueError: If there are no histories, their spaces differ, one is shorter than a window,
            or ``targets`` differ in more than their actions.
    """

    def __init__(
        self,
        histories: Sequence[LearningHistory],
        *,
        window_length: int,
        start_fraction: float,
        generator: np.random.Generator,
        keep_every: int = 1,
        shorter_lengths: Sequence[int] = (),
        targets: Sequence[LearningHistory] | None = None,
    ) -> None:
        if not histories:
            raise ValueError("got no learning histories, expected at least one: collect some first")
        spaces = {history.space for history in histories}
        if len(spaces) > 1:
            raise ValueError(f"got histories of several spaces, expected one: {spaces}")
        (space,) = spaces
        if targets is not None:
            _check_targets(histories, targets)
        super().__init__(
            HistoryPool(space, [sum(len(history) for history in histories)]),
            window_length=window_length,
            shorter_lengths=shorter_lengths,
            start_fraction=start_fraction,
            keep_every=keep_every,
            generator=generator,
        )
        self._fill(0, histories, targets)
        self.num_steps = self._pool.num_steps(0)

    def state_dict(self) -> dict[str, Any]:
        """State of the generator: loading it continues the very same sequence of windows."""
        return {"generator": self.generator.bit_generator.state}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue where a sampler over the same histories stood."""
        self.generator.bit_generator.state = state["generator"]


def _check_targets(
    histories: Sequence[LearningHistory], targets: Sequence[LearningHistory]
) -> None:
    """Refuse targets that are not those of the histories with a `ValueError`."""
    if len(targets) != len(histories):
        raise ValueError(
            f"got {len(targets)} targets for {len(histories)} histories, expected one each"
        )
    for index, (history, target) in enumerate(zip(histories, targets, strict=True)):
        if (history.space, history.task_id) != (target.space, target.task_id) or not np.array_equal(
            history.observations, target.observations
        ):
            raise ValueError(
                f"got {target} as the target of history {index}, {history}, expected the same in "
                "all but its actions"
            )


def check_length(shortest: int, window_length: int) -> None:
    """Refuse histories shorter than a window with a `ValueError`."""
    if shortest < window_length:
        raise ValueError(
            f"got a history of {shortest} kept steps, expected at least window_length="
            f"{window_length}: train the sources for longer or shorten the window"
        )
