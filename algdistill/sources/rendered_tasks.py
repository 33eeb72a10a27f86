"""Tasks that a learner sees through their frames, all on the device they are simulated on.

A simulator moves and draws; a callable turns frames into what the learner sees and is paid. Neither
is known here: the reward can be a vision-language model's, whose one forward pass gives both.

Axis letters: ``N`` tasks, ``K`` some of them, ``H W`` pixels, ``D`` features of a frame, ``P``
numbers known without looking, ``F`` = D + P, ``Q`` words of a frame.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Bool, Float, Int, Int64, UInt8
from torch import Tensor
from torch.nn import functional

from algdistill.tasks import StepResult

Perceive = Callable[[UInt8[Tensor, "K H W 3"]], tuple[Float[Tensor, "K D"], Float[Tensor, " K"]]]
"""Turns frames into features and rewards, each frame's independent of the frames beside it."""


@runtime_checkable
class SimulatorStep(Protocol):
    """What one action in every task led to."""

    @property
    def env_reward(self) -> Float[Tensor, " N"]:
        """Ground truth, for logging only."""
        ...

    @property
    def terminated(self) -> Bool[Tensor, " N"]:
        """The task itself ended the episode."""
        ...

    @property
    def truncated(self) -> Bool[Tensor, " N"]:
        """A time limit cut the episode."""
        ...


@runtime_checkable
class Simulator(Protocol):
    """``N`` tasks that are stepped and drawn together; none begins a new episode by itself."""

    num_tasks: int
    num_actions: int
    episode_length: int
    device: torch.device

    def restart(self) -> None:
        """Begin the first episode of every task; chance repeats itself as well."""

    def begin(self, ended: Bool[Tensor, " N"]) -> None:
        """Begin the next episode where the last one ended."""

    def step(self, actions: Int[Tensor, " N"]) -> SimulatorStep:
        """Take one action in every task."""
        ...

    def render(self, rows: Int[Tensor, " K"]) -> UInt8[Tensor, "K H W 3"]:
        """Draw some of the tasks."""
        ...

    def known(self) -> Float[Tensor, "N P"]:
        """What the learner knows of every task beside its frame; ``P`` may be 0."""
        ...


_WORD_SIZE = 8  # bytes


class RenderedTasks:
    """A simulator's tasks as `BatchedTasks`, seen and paid by their frames.

    A frame that is the same as one of the last few of its task is not looked at again. Everything
    stays on the simulator's device; the host learns only how many frames are to be looked at.

    Args:
        simulator: Moves and draws.
        perceive: Sees and pays; it is called without gradients.
        ends_when_paid: End an episode with the first step that is paid.
        num_remembered: Frames of each task that are remembered with what was seen in them.

    Attributes:
        num_perceived: Frames looked at so far.

    Raises:
        ValueError: If no frame is to be remembered.

    Example:
        ``docs/device_agent.md`` trains an agent on one.
    """

    observation_dtype = torch.float32

    def __init__(
        self,
        simulator: Simulator,
        perceive: Perceive,
        *,
        ends_when_paid: bool = False,
        num_remembered: int = 8,
    ) -> None:
        if num_remembered < 1:
            raise ValueError(f"got num_remembered={num_remembered}, expected at least 1")
        self._simulator = simulator
        self._num_remembered = num_remembered
        self._perceive = perceive
        self._ends_when_paid = ends_when_paid
        self.num_tasks = simulator.num_tasks
        self.num_actions = simulator.num_actions
        self.episode_length = simulator.episode_length
        self.device = simulator.device
        self.task_ids = torch.arange(self.num_tasks, device=self.device)
        self.num_perceived = 0
        self.observation_shape = tuple(self.reset().shape[1:])

    def reset(self) -> Float[Tensor, "N F"]:
        """Begin the first episode of every task."""
        self._simulator.restart()
        frames = self._simulator.render(self.task_ids)
        self._memory = _FrameMemory(self._num_remembered, frames, *self._look(frames))
        return self._observe()

    def step(self, actions: Int[Tensor, " N"]) -> StepResult:
        """Take one action in every task; those that end begin anew within the call."""
        result = self._simulator.step(actions)
        self._look_again(self.task_ids)
        _, reward = self._memory.seen
        terminated = result.terminated
        if self._ends_when_paid:
            terminated = terminated | (reward > 0)
        next_obs = obs = self._observe()
        ended = terminated | result.truncated
        rows = ended.nonzero()[:, 0]
        if len(rows):
            self._simulator.begin(ended)
            self._look_again(rows)
            obs = self._observe()
        return StepResult(obs, next_obs, reward, result.env_reward, terminated, result.truncated)

    def _look_again(self, rows: Int[Tensor, " K"]) -> None:
        """Draw some tasks, and look at the frames that are not remembered."""
        frames = self._simulator.render(rows)
        is_new = self._memory.recall(rows, frames)
        rows, frames = rows[is_new], frames[is_new]
        if len(rows):
            self._memory.store(rows, frames, *self._look(frames))

    @torch.no_grad()
    def _look(
        self, frames: UInt8[Tensor, "K H W 3"]
    ) -> tuple[Float[Tensor, "K D"], Float[Tensor, " K"]]:
        self.num_perceived += len(frames)
        return self._perceive(frames)

    def _observe(self) -> Float[Tensor, "N F"]:
        features, _ = self._memory.seen
        return torch.cat([features, self._simulator.known()], dim=1)


class _FrameMemory:
    """The last different frames of each task, and which of them is the present one.

    A frame is kept as words of eight bytes (``Q`` of them), and found by a digest of one word; that
    it is the same is then known from a comparison in full.
    """

    def __init__(
        self,
        num_remembered: int,
        frames: UInt8[Tensor, "N H W 3"],
        features: Float[Tensor, "N D"],
        paid: Float[Tensor, " N"],
    ) -> None:
        self._tasks = torch.arange(len(frames), device=frames.device)
        self._num_remembered = num_remembered
        self._present = torch.zeros_like(self._tasks)  # slots of a task
        self._oldest = torch.zeros_like(self._tasks)
        words = _words(frames)
        generator = torch.Generator().manual_seed(0)
        factors = torch.randint(-(2**62), 2**62, words.shape[1:], generator=generator)
        self._factors = factors.to(frames.device)
        columns = (words, self._digest(words), features, paid)
        self._frames, self._digests, self._features, self._paid = (
            column.repeat_interleave(num_remembered, dim=0) for column in columns
        )

    @property
    def seen(self) -> tuple[Float[Tensor, "N D"], Float[Tensor, " N"]]:
        """Features and reward of every task's present frame."""
        at = self._tasks * self._num_remembered + self._present
        return self._features[at], self._paid[at]

    def recall(
        self, rows: Int[Tensor, " K"], frames: UInt8[Tensor, "K H W 3"]
    ) -> Bool[Tensor, " K"]:
        """Make remembered frames the present ones, and return which are not remembered."""
        words = _words(frames)
        digests = self._digests.view(-1, self._num_remembered)
        slot = (digests[rows] == self._digest(words)[:, None]).int().argmax(dim=1)
        at = rows * self._num_remembered + slot
        is_known = (self._frames.index_select(0, at) == words).all(dim=1)
        self._present[rows] = torch.where(is_known, slot, self._present[rows])
        return ~is_known

    def store(
        self,
        rows: Int[Tensor, " K"],
        frames: UInt8[Tensor, "K H W 3"],
        features: Float[Tensor, "K D"],
        paid: Float[Tensor, " K"],
    ) -> None:
        """Put new frames, each the present one of its task, in the place of the oldest."""
        words = _words(frames)
        at = rows * self._num_remembered + self._oldest[rows]
        self._frames[at] = words
        self._digests[at] = self._digest(words)
        self._features[at] = features
        self._paid[at] = paid
        self._present[rows] = self._oldest[rows]
        self._oldest[rows] = (self._oldest[rows] + 1) % self._num_remembered

    def _digest(self, words: Int64[Tensor, "K Q"]) -> Int64[Tensor, " K"]:
        return (words * self._factors).sum(dim=1)  # overflow wraps around


def _words(frames: UInt8[Tensor, "K H W 3"]) -> Int64[Tensor, "K Q"]:
    """Each frame's bytes, eight to a number; those of a last one that are missing are 0."""
    flat = frames.flatten(1)
    return functional.pad(flat, (0, -flat.shape[1] % _WORD_SIZE)).view(torch.int64)
