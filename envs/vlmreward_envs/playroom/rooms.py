"""Playrooms with goals and time limits, as plain tensors: the one implementation of the task.

Axis letters: ``B`` rooms, ``H W`` pixels.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int64, UInt8
from torch import Tensor

from vlmreward_envs import counter_rng
from vlmreward_envs.playroom.dynamics import (
    PlayroomConfig,
    PlayroomState,
    goal_reached,
    goal_tensor,
    reset_rooms,
    step_rooms,
)
from vlmreward_envs.playroom.language import Family, all_goals, parse_goal
from vlmreward_envs.playroom.rendering import PlayroomRenderer

_GOAL_STREAM = 11


@dataclass(frozen=True)
class RoomsStep:
    """What one step of every room returns.

    Attributes:
        env_reward: Ground truth: 1.0 where the goal is true after the step, else 0.0.
        terminated: The goal is true and rooms end on success.
        truncated: The time limit is reached.
    """

    env_reward: Float[Tensor, " B"]
    terminated: Bool[Tensor, " B"]
    truncated: Bool[Tensor, " B"]


class PlayroomRooms:
    """A batch of Playrooms, each with its own seed, episode count, goal and clock.

    A room depends on its own seed and episode number alone: alone, among thousands, and on every
    device it is the same. Nothing resets by itself.

    Args:
        num_rooms: B.
        goals: Sentences (see :func:`~vlmreward_envs.playroom.language.parse_goal`). Each episode
            draws one uniformly and its room contains the objects that the goal names. All 36
            FIND goals if ``None``.
        config: Grid size, number of objects, start cell.
        max_episode_steps: Steps after which an episode is truncated.
        terminate_on_success: End the episode where the goal is true. Off by default: an ending
            would tell a learner the ground truth.
        frame_size: Height and width of the frames, in pixels.
        device: Where everything lives.

    Raises:
        ValueError: A goal that the grammar does not have, a room too small for a goal's objects,
            or a non-positive count.

    Example:
        >>> rooms = PlayroomRooms(1024, ["the person is holding the red ball"])
        >>> rooms.reset(torch.arange(1024))
        >>> step = rooms.step(torch.randint(0, 7, (1024,)))
        >>> rooms.render().shape
        torch.Size([1024, 96, 96, 3])
    """

    def __init__(
        self,
        num_rooms: int,
        goals: str | Sequence[str] | None = None,
        *,
        config: PlayroomConfig | None = None,
        max_episode_steps: int = 50,
        terminate_on_success: bool = False,
        frame_size: int = 96,
        device: torch.device | str = "cpu",
    ) -> None:
        for name, value in (("num_rooms", num_rooms), ("max_episode_steps", max_episode_steps)):
            if value < 1:
                raise ValueError(f"{name} must be at least 1, got {value}")
        self.num_rooms = num_rooms
        self.config = config or PlayroomConfig()
        self.max_episode_steps = max_episode_steps
        self.terminate_on_success = terminate_on_success
        self.device = torch.device(device)
        parsed = [parse_goal(goal) for goal in _as_sentences(goals)]
        if any(len(goal.kinds) > self.config.num_objects for goal in parsed):
            raise ValueError("a goal names two objects but num_objects is 1; raise num_objects")
        self.goals = tuple(goal.sentence for goal in parsed)
        self._goal_rows = goal_tensor(parsed, self.device)
        self._renderer = PlayroomRenderer(self.config, frame_size, self.device)
        zeros = torch.zeros(num_rooms, dtype=torch.int64, device=self.device)
        self._seed, self._episode, self.num_steps = zeros, zeros - 1, zeros
        self.goal_index = zeros
        self.state = self._draw_rooms()
        self.reset(zeros)

    def reset(
        self, seed: Int64[Tensor, " B"] | None = None, mask: Bool[Tensor, " B"] | None = None
    ) -> None:
        """Begin new episodes.

        Args:
            seed: New seeds, which also set the episode number back to 0; ``None`` goes on to the
                next episode of each room's stream.
            mask: Which rooms to reset; all if ``None``.
        """
        if mask is None:
            mask = torch.ones(self.num_rooms, dtype=torch.bool, device=self.device)
        if seed is None:
            self._episode = torch.where(mask, self._episode + 1, self._episode)
        else:
            self._seed = torch.where(mask, seed.to(self.device), self._seed)
            self._episode = torch.where(mask, 0, self._episode)
        episode_seed = counter_rng.fold(counter_rng.fold(self._seed, self._episode), _GOAL_STREAM)
        drawn = counter_rng.integers(episode_seed, 1, 0, len(self.goals))[:, 0]
        self.goal_index = torch.where(mask, drawn, self.goal_index)
        self.state = self._draw_rooms().where(mask, self.state)
        self.num_steps = torch.where(mask, 0, self.num_steps)

    def step(self, action: Int64[Tensor, " B"]) -> RoomsStep:
        """Apply one :class:`~vlmreward_envs.playroom.dynamics.Action` to each room."""
        self.state = step_rooms(self.config, self.state, action)
        self.num_steps = self.num_steps + 1
        success = self.success
        return RoomsStep(
            env_reward=success.float(),
            terminated=success & self.terminate_on_success,
            truncated=self.num_steps >= self.max_episode_steps,
        )

    @property
    def goal(self) -> Int64[Tensor, "B 3"]:
        """Each room's goal as (family, kind, other kind)."""
        return self._goal_rows[self.goal_index]

    @property
    def success(self) -> Bool[Tensor, " B"]:
        """Ground truth: is each room's goal true now?"""
        return goal_reached(self.state, self.goal)

    def render(self, rooms: Tensor | slice = slice(None)) -> UInt8[Tensor, "B H W 3"]:
        """Draw the rooms (or those selected), as uint8 RGB 0–255."""
        return self._renderer(self.state[rooms])

    def _draw_rooms(self) -> PlayroomState:
        """Draw the room that each seed, episode and goal asks for."""
        num_kinds = min(2, self.config.num_objects)
        kinds = self.goal[:, 1 : 1 + num_kinds]
        return reset_rooms(self.config, self._seed, self._episode, kinds)


def _as_sentences(goals: str | Sequence[str] | None) -> Sequence[str]:
    if goals is None:
        return [goal.sentence for goal in all_goals(Family.FIND)]
    sentences = [goals] if isinstance(goals, str) else goals
    if not sentences:
        raise ValueError("got no goals; give at least one sentence, or None for all FIND goals")
    return sentences
