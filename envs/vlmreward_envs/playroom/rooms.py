"""Playrooms with goals and time limits, as plain tensors: the one implementation of the task.

Axis letters: ``B`` rooms, ``H W`` pixels.
"""

from collections.abc import Sequence

import torch
from jaxtyping import Bool, Int64, UInt8
from torch import Tensor

from vlmreward_envs.goal_tasks import GoalTasks
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


class PlayroomRooms(GoalTasks[PlayroomState]):
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
        parsed = [parse_goal(goal) for goal in _as_sentences(goals)]
        super().__init__(
            num_rooms,
            [goal.sentence for goal in parsed],
            max_episode_steps=max_episode_steps,
            terminate_on_success=terminate_on_success,
            device=device,
        )
        self.config = config or PlayroomConfig()
        if any(len(goal.kinds) > self.config.num_objects for goal in parsed):
            raise ValueError("a goal names two objects but num_objects is 1; raise num_objects")
        self._goal_rows = goal_tensor(parsed, self.device)
        self._renderer = PlayroomRenderer(self.config, frame_size, self.device)
        self.state = self._draw()
        self.reset(self.seed)

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

    def known(self) -> dict[str, Tensor]:
        """Return the ``position`` of each person: cell (x, y), y downwards."""
        return {"position": self.state.position}

    def _draw(self) -> PlayroomState:
        num_kinds = min(2, self.config.num_objects)
        kinds = self.goal[:, 1 : 1 + num_kinds]
        return reset_rooms(self.config, self.seed, self.episode, kinds)

    def _act(self, action: Int64[Tensor, " B"]) -> PlayroomState:
        return step_rooms(self.config, self.state, action)


def _as_sentences(goals: str | Sequence[str] | None) -> Sequence[str]:
    if goals is None:
        return [goal.sentence for goal in all_goals(Family.FIND)]
    return [goals] if isinstance(goals, str) else goals
