"""A batch of simulators with goals in words, clocks, and a random stream each.

Axis letters: ``B`` simulators, ``H W`` pixels, ``A`` numbers of an action (or none).
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Generic

import torch
from jaxtyping import Bool, Float, Int64, Shaped, UInt8
from torch import Tensor

from vlmreward_envs import counter_rng
from vlmreward_envs.tensor_state import State

_GOAL_STREAM = 11


@dataclass(frozen=True)
class GoalStep:
    """What one step of every simulator returns.

    Attributes:
        env_reward: Ground truth: 1.0 where the goal is true after the step, else 0.0.
        terminated: The goal is true and episodes end on success.
        truncated: The time limit is reached.
    """

    env_reward: Float[Tensor, " B"]
    terminated: Bool[Tensor, " B"]
    truncated: Bool[Tensor, " B"]


class GoalTasks(ABC, Generic[State]):
    """Simulators that are stepped together, each with its own seed, episode count, goal and clock.

    A simulator depends on its own seed and episode number alone: alone, among thousands, and on
    every device it is the same. Nothing resets by itself.

    Args:
        num_envs: B.
        goals: Sentences; each episode draws one uniformly.
        max_episode_steps: Steps after which an episode is truncated.
        terminate_on_success: End the episode where the goal is true.
        device: Where everything lives.

    Attributes:
        state: What the simulators are in.
        goal_index: Which of ``goals`` each is about.
        num_steps: Steps taken in this episode.

    Raises:
        ValueError: If a number is below 1, or there is no goal.
    """

    state: State

    def __init__(
        self,
        num_envs: int,
        goals: Sequence[str],
        *,
        max_episode_steps: int,
        terminate_on_success: bool,
        device: torch.device | str,
    ) -> None:
        if num_envs < 1:
            raise ValueError(f"got a batch of {num_envs}, expected at least 1")
        if max_episode_steps < 1:
            raise ValueError(f"max_episode_steps must be at least 1, got {max_episode_steps}")
        if not goals:
            raise ValueError("got no goals; give at least one sentence, or None for all")
        self.num_envs = num_envs
        self.goals = tuple(goals)
        self.max_episode_steps = max_episode_steps
        self.terminate_on_success = terminate_on_success
        self.device = torch.device(device)
        zeros = torch.zeros(num_envs, dtype=torch.int64, device=self.device)
        self.seed, self.episode, self.num_steps = zeros, zeros - 1, zeros
        self.goal_index = zeros

    def reset(
        self, seed: Int64[Tensor, " B"] | None = None, mask: Bool[Tensor, " B"] | None = None
    ) -> None:
        """Begin new episodes.

        Args:
            seed: New seeds, which also set the episode number back to 0; ``None`` goes on to the
                next episode of each simulator's stream.
            mask: Which simulators to reset; all if ``None``.
        """
        if mask is None:
            mask = torch.ones(self.num_envs, dtype=torch.bool, device=self.device)
        if seed is None:
            self.episode = torch.where(mask, self.episode + 1, self.episode)
        else:
            self.seed = torch.where(mask, seed.to(self.device), self.seed)
            self.episode = torch.where(mask, 0, self.episode)
        episode_seed = counter_rng.fold(counter_rng.fold(self.seed, self.episode), _GOAL_STREAM)
        drawn = counter_rng.integers(episode_seed, 1, 0, len(self.goals))[:, 0]
        self.goal_index = torch.where(mask, drawn, self.goal_index)
        self.state = self._draw().where(mask, self.state)
        self.num_steps = torch.where(mask, 0, self.num_steps)

    def step(self, action: Shaped[Tensor, " B *A"]) -> GoalStep:
        """Take one action in each simulator; what an action is, the simulator says."""
        self.state = self._act(action)
        self.num_steps = self.num_steps + 1
        success = self.success
        return GoalStep(
            env_reward=success.float(),
            terminated=success & self.terminate_on_success,
            truncated=self.num_steps >= self.max_episode_steps,
        )

    @property
    @abstractmethod
    def success(self) -> Bool[Tensor, " B"]:
        """Ground truth: is each simulator's goal true now?"""

    @abstractmethod
    def render(self, rows: Tensor | slice = slice(None)) -> UInt8[Tensor, "B H W 3"]:
        """Draw all simulators (or those selected), as uint8 RGB 0–255."""

    @abstractmethod
    def known(self) -> dict[str, Tensor]:
        """What an agent observes beside the frame, by name, one row per simulator."""

    @abstractmethod
    def _draw(self) -> State:
        """Draw the first state that each seed, episode and goal asks for."""

    @abstractmethod
    def _act(self, action: Tensor) -> State:
        """Return the state that one action in each simulator leads to."""


AnyGoalTasks = GoalTasks[Any]
