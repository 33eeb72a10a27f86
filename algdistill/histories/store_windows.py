"""Training windows from a store that does not fit in memory.

Blocks of whole histories, one chunk of the store each, are read ahead of need; windows are drawn
from several of them at once, and the one that has been held longest makes room for the next. An
epoch reads every block once, in an order drawn from the generator.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from algdistill.histories.pool import HistoryPool, WindowBatch
from algdistill.histories.store import HistoryStore
from algdistill.histories.windows import WindowSource, check_length


class StoreWindowSampler(WindowSource):
    """Draws windows from some blocks of a store, and replaces the blocks as they are used up.

    The block held longest is replaced once as many time steps were drawn, from all blocks held, as
    it has itself: so in an epoch as many steps are drawn as are read. A store of no more than
    ``num_blocks`` blocks is read once and stays in memory.

    Args:
        store: Where histories are read from; those appended later are left out.
        num_blocks: Blocks of ``store.block_size`` histories held in memory.
        window_length: See `WindowSource`, as for all others.
        start_fraction: Share of windows that start at the first step of their history.
        generator: The only source of randomness.
        keep_every: Train on every ``keep_every``-th whole episode only.
        shorter_lengths: Lengths that a batch may have instead.

    Raises:
        ValueError: If the store is empty, ``num_blocks < 1``, or a history is shorter than a
            window; where ``keep_every`` made it so, only once its block is read.
        HistoryStoreError: If the store is damaged.

    Example:
        >>> import tempfile
        >>> from pathlib import Path
        >>> from algdistill.sources import TabularQLearning, TabularQLearningConfig
        >>> from algdistill.tasks import TaskSpace
        >>> from algdistill.tasks_fake import dark_room_tasks
        >>> tasks = dark_room_tasks(size=3)
        >>> fleet = TabularQLearning(tasks, TabularQLearningConfig(num_episodes=5), tasks.task_ids)
        >>> store = HistoryStore.create(
        ...     Path(tempfile.mkdtemp()) / "s", TaskSpace.of(tasks), num_steps=100, block_size=2
        ... )
        >>> store.append(fleet.train())
        >>> windows = StoreWindowSampler(
        ...     store,
        ...     num_blocks=3,
        ...     window_length=40,
        ...     start_fraction=0.2,
        ...     generator=np.random.default_rng(0),
        ... )
        >>> windows.sample(8).actions.shape
        torch.Size([8, 40])
    """

    def __init__(
        self,
        store: HistoryStore,
        *,
        num_blocks: int,
        window_length: int,
        start_fraction: float,
        generator: np.random.Generator,
        keep_every: int = 1,
        shorter_lengths: Sequence[int] = (),
    ) -> None:
        if len(store) == 0:
            raise ValueError(f"got {store!r}, expected histories in it: append some first")
        if num_blocks < 1:
            raise ValueError(f"got num_blocks={num_blocks}, expected at least 1")
        lengths = store.lengths()
        check_length(int(lengths.min()), window_length)
        self.num_steps = int(lengths.sum())
        self._store = store
        self._num_histories = len(store)
        self._num_blocks = -(-len(store) // store.block_size)
        num_held = min(num_blocks, self._num_blocks)
        super().__init__(
            HistoryPool(store.space, [store.block_size * store.num_steps] * num_held),
            window_length=window_length,
            shorter_lengths=shorter_lengths,
            start_fraction=start_fraction,
            keep_every=keep_every,
            generator=generator,
        )
        self._ahead: deque[int] = deque()
        self._held = [-1] * num_held
        self._oldest = 0
        self._num_drawn = 0
        for slot in range(num_held):
            self._read(slot, self._next_block())

    def sample(self, batch_size: int) -> WindowBatch:
        """Draw windows of one length: a history in memory uniformly, then a start in it."""
        while len(self._held) < self._num_blocks and self._oldest_is_used_up():
            self._num_drawn -= self._pool.num_steps(self._oldest)
            self._read(self._oldest, self._next_block())
            self._oldest = (self._oldest + 1) % len(self._held)
        batch = super().sample(batch_size)
        self._num_drawn += batch.steps.prev_reward.numel()
        return batch

    def _oldest_is_used_up(self) -> bool:
        return self._num_drawn >= self._pool.num_steps(self._oldest)

    def _next_block(self) -> int:
        """The block to read next; every epoch has all of them in an order of its own."""
        if not self._ahead:
            self._ahead.extend(self.generator.permutation(self._num_blocks).tolist())
        return self._ahead.popleft()

    def _read(self, slot: int, block: int) -> None:
        """Put a block of the store into a slot of the pool."""
        start = block * self._store.block_size
        stop = min(start + self._store.block_size, self._num_histories)
        self._fill(slot, self._store.read(start, stop))
        self._held[slot] = block

    def state_dict(self) -> dict[str, Any]:
        """The generator, the blocks held and those ahead: enough to continue within an epoch."""
        return {
            "generator": self.generator.bit_generator.state,
            "num_histories": self._num_histories,
            "held": list(self._held),
            "oldest": self._oldest,
            "num_drawn": self._num_drawn,
            "ahead": list(self._ahead),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue where a sampler over the same store and with the same settings stood.

        Raises:
            ValueError: If the store had another number of histories, or other blocks were held.
        """
        here = (self._num_histories, len(self._held))
        there = (state["num_histories"], len(state["held"]))
        if here != there:
            raise ValueError(
                f"got a state of {there[0]} histories with {there[1]} blocks held, expected "
                f"{here[0]} and {here[1]}: continue with the same store and `num_blocks`"
            )
        for slot, block in enumerate(state["held"]):
            if self._held[slot] != block:
                self._read(slot, block)
        self._oldest = state["oldest"]
        self._num_drawn = state["num_drawn"]
        self._ahead = deque(state["ahead"])
        self.generator.bit_generator.state = state["generator"]
