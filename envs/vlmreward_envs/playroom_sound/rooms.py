"""Playrooms with sound, goals and time limits, as plain tensors: the task itself.

Axis letters: ``B`` rooms, ``H W`` pixels, ``S`` samples of a step.
"""

from collections.abc import Sequence

import torch
from jaxtyping import Bool, Float, Int64, UInt8
from torch import Tensor

from vlmreward_envs.goal_tasks import GoalTasks
from vlmreward_envs.playroom import PlayroomRenderer
from vlmreward_envs.playroom_sound.dynamics import (
    PlayroomSoundConfig,
    PlayroomSoundState,
    reset_sound_rooms,
    step_sound_rooms,
)
from vlmreward_envs.playroom_sound.ground_truth import goal_reached, goal_tensor
from vlmreward_envs.playroom_sound.language import GoalKind, all_goals, parse_goal
from vlmreward_envs.playroom_sound.synthesis import PlayroomSynthesiser


class PlayroomSoundRooms(GoalTasks[PlayroomSoundState]):
    """A batch of Playrooms with sound, each with its own seed, episode count, goal and clock.

    A room depends on its own seed and episode number alone: alone, among thousands, and on every
    device it is the same. What is seen of it is
    :class:`~vlmreward_envs.playroom.PlayroomRooms`. Nothing resets by itself.

    Args:
        num_rooms: B.
        goals: Sentences (see :func:`~vlmreward_envs.playroom_sound.parse_goal`). Each episode
            draws one uniformly and its room contains the object that the goal names. All HEARD
            goals if ``None``.
        config: The Playroom, who has a voice, and the pauses.
        max_episode_steps: Steps after which an episode is truncated.
        terminate_on_success: End the episode where the goal is true. Off by default: an ending
            would tell a learner the ground truth.
        frame_size: Height and width of the frames, in pixels.
        device: Where everything lives.

    Raises:
        ValueError: A goal that the grammar does not have, or a non-positive count.

    Example:
        >>> rooms = PlayroomSoundRooms(64, ["a bell is ringing"])
        >>> rooms.reset(torch.arange(64))
        >>> step = rooms.step(torch.randint(0, 7, (64,)))
        >>> rooms.render().shape, rooms.listen().shape
        (torch.Size([64, 96, 96, 3]), torch.Size([64, 1600]))
    """

    def __init__(
        self,
        num_rooms: int,
        goals: str | Sequence[str] | None = None,
        *,
        config: PlayroomSoundConfig | None = None,
        max_episode_steps: int = 200,
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
        self.config = config or PlayroomSoundConfig()
        self._goal_rows = goal_tensor(parsed, self.device)
        self._renderer = PlayroomRenderer(self.config.playroom, frame_size, self.device)
        self._synthesiser = PlayroomSynthesiser(self.config, self.device)
        self.state = self._draw()
        self.reset(self.seed)

    @property
    def goal(self) -> Int64[Tensor, "B 6"]:
        """Each room's goal as a row of :func:`~vlmreward_envs.playroom_sound.goal_tensor`."""
        return self._goal_rows[self.goal_index]

    @property
    def success(self) -> Bool[Tensor, " B"]:
        """Ground truth: is each room's goal true now?"""
        return goal_reached(self.state, self.goal)

    def render(self, rooms: Tensor | slice = slice(None)) -> UInt8[Tensor, "B H W 3"]:
        """Draw the rooms (or those selected), as uint8 RGB 0–255."""
        return self._renderer(self.state[rooms])

    def listen(self, rooms: Tensor | slice = slice(None)) -> Float[Tensor, "B S"]:
        """Return what was heard during the last step, each sample in [-1, 1]."""
        return self._synthesiser(self.state[rooms])

    def known(self) -> dict[str, Tensor]:
        """Return the ``position`` of each person, cell (x, y), and the ``audio`` of the step."""
        return {"audio": self.listen(), "position": self.state.position}

    def _draw(self) -> PlayroomSoundState:
        kinds = self.goal[:, 2:3]
        return reset_sound_rooms(self.config, self.seed, self.episode, kinds)

    def _act(self, action: Int64[Tensor, " B"]) -> PlayroomSoundState:
        return step_sound_rooms(self.config, self.state, action)


def _as_sentences(goals: str | Sequence[str] | None) -> Sequence[str]:
    if goals is None:
        return [goal.sentence for goal in all_goals(GoalKind.HEARD)]
    return [goals] if isinstance(goals, str) else goals
