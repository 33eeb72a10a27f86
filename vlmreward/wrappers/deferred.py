"""Rewards that are worked out later: many steps in one batch, while the environments go on.

Axes: `D` width of the embedding.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from typing import Any

import torch
from jaxtyping import Float

from vlmreward.reward_stream import RewardStream, StreamStep
from vlmreward.step_plan import PlannedStep

_MAX_IN_FLIGHT = 2  # one batch that is being encoded, and one that waits behind it


class _AtOnce(Executor):
    """Calls what is submitted."""

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        future: Future[Any] = Future()
        try:
            future.set_result(fn(*args, **kwargs))
        except Exception as error:  # as from a thread, whoever asks for the result gets it
            future.set_exception(error)
        return future


def executor_for(device: torch.device) -> Executor:
    """Returns where an encoder works: in a thread, or at once on a device that does not wait."""
    if device.type == "cpu":
        return ThreadPoolExecutor(max_workers=1, thread_name_prefix="vlmreward-encoder")
    return _AtOnce()


class DeferredStep:
    """What one step of all environments will have earned.

    Attributes:
        is_taken: Whether somebody has said that they will ask for the result.
    """

    def __init__(
        self,
        scoring: DeferredScoring,
        planned: PlannedStep,
        on_paid: Callable[[StreamStep], None] | None,
    ) -> None:
        self.is_taken = False
        self._scoring = scoring
        self._planned: PlannedStep | None = planned
        self._on_paid = on_paid
        self._paid: StreamStep | None = None

    @property
    def is_paid(self) -> bool:
        """Whether `result` returns at once."""
        return self._paid is not None

    @property
    def planned(self) -> PlannedStep:
        """What is to be encoded, until it is paid."""
        assert self._planned is not None
        return self._planned

    def pay(self, stream: RewardStream, embedding: Float[torch.Tensor, "_ D"]) -> None:
        """Notes what the step has earned, and lets go of its frames."""
        self._paid = stream.pay(self.planned, embedding)
        self._planned = None
        if self._on_paid is not None:
            self._on_paid(self._paid)

    def result(self) -> StreamStep:
        """Pays for all steps up to this one, waiting for the encoder if need be.

        Raises:
            Exception: Whatever the encoder raised.
        """
        self._scoring.settle(self)
        assert self._paid is not None
        return self._paid


class DeferredScoring:
    """Encodes the frames of many steps in one batch, beside whoever steps, and pays in order.

    Rewards are those of `RewardStream.step`, bit for bit where the batches are the same and to
    what the encoder resolves where they are larger. An encoder on a CPU works in a thread of its
    own, which torch lets run while it computes. One on another device is called at once, which only
    hands it its work: nobody waits until the result is asked for.

    At most three batches of frames are held. When a fourth is due, `add` waits for the first.

    Args:
        stream: Plans and pays; nobody else steps it while steps are pending.
        batch_size: How many frames make a batch.

    Raises:
        ValueError: If the batch size is not positive.

    Example:
        >>> import numpy as np
        >>> from vlmreward import CosineHead, FakeEncoder, Goal, RewardModel
        >>> reward_model = RewardModel(FakeEncoder(), Goal("a black room"), CosineHead())
        >>> stream = RewardStream(reward_model, num_envs=1)
        >>> scoring = DeferredScoring(stream, batch_size=32)
        >>> frames = {"pixels": np.zeros((1, 8, 8, 3), np.uint8)}
        >>> steps = [scoring.add(stream.planner.plan(frames)) for _ in range(3)]
        >>> [step.is_paid for step in steps]
        [False, False, False]
        >>> steps[2].result().reward, steps[0].is_paid
        (array([1.], dtype=float32), True)
        >>> scoring.close()
    """

    def __init__(self, stream: RewardStream, batch_size: int) -> None:
        if batch_size < 1:
            raise ValueError(f"expected a positive batch_size, got {batch_size}")
        self.batch_size = batch_size
        self._stream = stream
        self._executor = executor_for(stream.reward_model.encoder.device)
        self._open: list[DeferredStep] = []
        self._num_open = 0
        self._in_flight: deque[tuple[list[DeferredStep], Future[list[torch.Tensor]]]] = deque()

    def add(
        self, planned: PlannedStep, on_paid: Callable[[StreamStep], None] | None = None
    ) -> DeferredStep:
        """Takes the next step.

        Args:
            planned: What the stream's planner said of it. Its frames must stay as they are.
            on_paid: Called with what the step has earned, steps in their order.
        """
        step = DeferredStep(self, planned, on_paid)
        self._open.append(step)
        self._num_open += planned.num_rows
        if self._num_open >= self.batch_size:
            self._hand_over()
        return step

    def settle(self, until: DeferredStep | None = None) -> None:
        """Pays for all steps, or for those up to one.

        Raises:
            Exception: Whatever the encoder raised.
        """
        if self._open and (until is None or until in self._open):
            self._hand_over()
        while self._in_flight and (until is None or not until.is_paid):
            self._pay_oldest()

    def close(self) -> None:
        """Gives up what is pending."""
        self._open, self._num_open = [], 0
        self._in_flight.clear()
        self._executor.shutdown(cancel_futures=True)

    def _hand_over(self) -> None:
        while len(self._in_flight) >= _MAX_IN_FLIGHT:
            self._pay_oldest()
        steps, self._open, self._num_open = self._open, [], 0
        planned = [step.planned for step in steps]
        self._in_flight.append((steps, self._executor.submit(self._stream.encode, planned)))

    def _pay_oldest(self) -> None:
        steps, encoded = self._in_flight[0]
        embeddings = encoded.result()
        self._in_flight.popleft()
        for step, embedding in zip(steps, embeddings, strict=True):
            step.pay(self._stream, embedding)
