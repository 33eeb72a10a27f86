"""What every agent that acts in a batch of tasks looks like, and the one that never learns.

Axis letters: ``N`` tasks; ``*obs`` and ``*action`` the shapes of an observation and of an action.
"""

from __future__ import annotations

from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Bool, Float, Shaped
from torch import Tensor

from algdistill.spaces import Discrete
from algdistill.tasks import TaskSpace


@runtime_checkable
class Agent(Protocol):
    """Acts in ``N`` tasks at once; memory of each task lasts from one `reset` to the next."""

    @property
    def space(self) -> TaskSpace:
        """The observation and action spaces the agent is made for."""
        ...

    def reset(self, num_tasks: int, generator: torch.Generator) -> None:
        """Forget everything; to be called before new tasks, not between episodes."""
        ...

    def act(self, obs: Shaped[Tensor, " N *obs"]) -> Shaped[Tensor, " N *action"]:
        """Choose an action in every task."""
        ...

    def observe(
        self,
        actions: Shaped[Tensor, " N *action"],
        rewards: Float[Tensor, " N"],
        episode_ended: Bool[Tensor, " N"],
    ) -> None:
        """Take note of what was done in every task and what it led to."""
        ...


class RandomAgent:
    """Draws every action uniformly: what does not learn at all."""

    def __init__(self, space: TaskSpace) -> None:
        self.space = space
        self._generator: torch.Generator | None = None

    def reset(self, num_tasks: int, generator: torch.Generator) -> None:
        """Start drawing from ``generator``."""
        del num_tasks
        self._generator = generator

    def act(self, obs: Shaped[Tensor, " N *obs"]) -> Shaped[Tensor, " N *action"]:
        """Draw one action for each row."""
        actions = self.space.actions
        if isinstance(actions, Discrete):
            return torch.randint(
                actions.num_actions, (len(obs),), generator=self._generator, device=obs.device
            )
        shape = (len(obs), actions.dim)
        return 2.0 * torch.rand(shape, generator=self._generator, device=obs.device) - 1.0

    def observe(
        self,
        actions: Shaped[Tensor, " N *action"],
        rewards: Float[Tensor, " N"],
        episode_ended: Bool[Tensor, " N"],
    ) -> None:
        """Learn nothing."""
