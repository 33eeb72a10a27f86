"""Tell which agents walk in circles without being paid: the failure of greedy agents in context.

Axis letters: ``L`` steps of an episode, ``N`` tasks; ``*obs`` and ``*action`` the shapes of an
observation and of an action.
"""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float, Int64, Shaped
from torch import Tensor

_MULTIPLIER = 0x9E3779B97F4A7C15 - 2**64
"""Odd, so that its powers modulo 2**64 never vanish."""


class LoopDetector:
    """Watches what is done in ``N`` tasks, one call a step, and judges each episode at its end.

    A step is its observation and its action, bit for bit. In an episode, a task *loops* if

    - the episode ends in steps that repeat with some period ``p``, at least ``num_repeats`` times
      and over at least half of the episode, none of them paid more than 0; or
    - the episode and the ``num_repeats - 1`` before it are the same, step for step, and unpaid.

    Whoever repeats what pays does not loop. Steps are compared by a 64-bit hash.

    Args:
        num_tasks: ``N``.
        episode_length: ``L``.
        num_repeats: How often the same must be done to be a loop.
        device: Where observations and actions are.

    Raises:
        ValueError: If ``num_repeats < 2``.

    Example:
        >>> detector = LoopDetector(num_tasks=1, episode_length=6, device=torch.device("cpu"))
        >>> for position in (0, 1, 0, 1, 0, 1):
        ...     detector.observe(torch.tensor([[position]]), torch.tensor([2]), torch.zeros(1))
        >>> detector.episode_loops()
        tensor([True])
    """

    def __init__(
        self, num_tasks: int, episode_length: int, *, device: torch.device, num_repeats: int = 3
    ) -> None:
        if num_repeats < 2:
            raise ValueError(f"got num_repeats={num_repeats}, expected at least 2")
        self.num_repeats = num_repeats
        self._steps = torch.zeros(episode_length, num_tasks, dtype=torch.long, device=device)
        self._paid = torch.zeros(episode_length, num_tasks, dtype=torch.bool, device=device)
        self._episode = torch.zeros(num_tasks, dtype=torch.long, device=device)
        self._num_same = torch.zeros(num_tasks, dtype=torch.long, device=device)
        self._num_steps = 0
        self._powers = torch.ones(0, dtype=torch.long, device=device)

    def observe(
        self,
        obs: Shaped[Tensor, " N *obs"],
        actions: Shaped[Tensor, " N *action"],
        rewards: Float[Tensor, " N"],
    ) -> None:
        """Take note of one step: what was seen, what was done on it, and what it was paid.

        Raises:
            RuntimeError: If the episode has all its steps and was not judged.
        """
        if self._num_steps == len(self._steps):
            raise RuntimeError(f"got {self._num_steps} steps, call `episode_loops` after the last")
        step = torch.cat([_whole_numbers(obs), _whole_numbers(actions)], dim=1)
        self._steps[self._num_steps] = self._hashed(step)
        torch.gt(rewards, 0.0, out=self._paid[self._num_steps])
        self._num_steps += 1

    def episode_loops(self) -> Bool[Tensor, " N"]:
        """Judge the episode whose steps were observed, in every task, and begin the next.

        Raises:
            RuntimeError: If the episode lacks steps.
        """
        length = len(self._steps)
        if self._num_steps < length:
            raise RuntimeError(f"got {self._num_steps} steps of an episode, expected {length}")
        self._num_steps = 0
        # How many steps up to the last are unpaid.
        num_unpaid = (~self._paid).flip(0).long().cumprod(0).sum(0)
        loops = self._repeats_itself(num_unpaid == length)
        for period in range(1, length // self.num_repeats + 1):
            needed = max(self.num_repeats * period, -(-length // 2))
            tail = self._steps[length - needed :]
            loops |= (tail[period:] == tail[:-period]).all(0) & (num_unpaid >= needed)
        return loops

    def _repeats_itself(self, unpaid: Bool[Tensor, " N"]) -> Bool[Tensor, " N"]:
        """Whether the episode is the same as those before it, all unpaid."""
        episode = self._hashed(self._steps.T)
        again = unpaid & (episode == self._episode) & (self._num_same > 0)
        self._num_same = torch.where(again, self._num_same + 1, unpaid.long())
        self._episode = episode
        return self._num_same >= self.num_repeats

    def _hashed(self, values: Int64[Tensor, "N K"]) -> Int64[Tensor, " N"]:
        """Each row as one number: a polynomial of its values, modulo 2**64."""
        size = values.shape[1]
        if len(self._powers) < size:
            factors = torch.full((size,), _MULTIPLIER, device=values.device)
            self._powers = factors.cumprod(0)
        # GPUs have no matrix product of whole numbers.
        return (values * self._powers[:size]).sum(1)


def _whole_numbers(values: Shaped[Tensor, " N *shape"]) -> Int64[Tensor, "N K"]:
    """The values of each row as whole numbers, floats by their bits."""
    flat = values.reshape(len(values), -1)
    return (flat.view(torch.int32) if flat.is_floating_point() else flat).long()
