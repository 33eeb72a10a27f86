"""The Playroom as a Gymnasium ``VectorEnv``: all rooms in one batch of tensors."""

from collections.abc import Sequence
from typing import Any

import torch
from gymnasium import spaces
from gymnasium.vector import AutoresetMode

from vlmreward_envs.goal_env import observation_space
from vlmreward_envs.goal_vector_env import GoalVectorEnv
from vlmreward_envs.playroom.dynamics import Action, PlayroomConfig
from vlmreward_envs.playroom.rooms import PlayroomRooms


def known_spaces(config: PlayroomConfig) -> dict[str, spaces.Space[Any]]:
    """Return the space of what one room tells beside its frame: ``position`` (cell x, y)."""
    return {"position": spaces.MultiDiscrete([config.grid_size, config.grid_size])}


class PlayroomVectorEnv(GoalVectorEnv):
    """Many Playrooms stepped and drawn at once; see :class:`PlayroomEnv` for the task itself.

    Room ``i`` of ``reset(seed=s)`` is the room of ``PlayroomEnv.reset(seed=s + i)``.
    ``reset(options={"reset_mask": mask})`` resets some rooms only, in every autoreset mode.

    Args:
        num_envs: Number of rooms.
        goals: Goal sentences; each episode draws one.
        config: Grid size, number of objects, start cell.
        max_episode_steps: Steps after which an episode is truncated.
        terminate_on_success: End an episode where its goal is true (ground truth).
        frame_size: Height and width of the frames, in pixels.
        render_mode: ``"rgb_array"`` or ``None``.
        autoreset_mode: One of Gymnasium's three.
        device: Where the rooms live; observations are NumPy arrays all the same.

    Example:
        >>> envs = PlayroomVectorEnv(64, "the person is holding the red ball")
        >>> obs, info = envs.reset(seed=0)
        >>> obs["pixels"].shape
        (64, 96, 96, 3)
    """

    def __init__(
        self,
        num_envs: int,
        goals: str | Sequence[str] | None = None,
        *,
        config: PlayroomConfig | None = None,
        max_episode_steps: int = 50,
        terminate_on_success: bool = False,
        frame_size: int = 96,
        render_mode: str | None = "rgb_array",
        autoreset_mode: AutoresetMode = AutoresetMode.NEXT_STEP,
        device: torch.device | str = "cpu",
    ) -> None:
        self.rooms = PlayroomRooms(
            num_envs,
            goals,
            config=config,
            max_episode_steps=max_episode_steps,
            terminate_on_success=terminate_on_success,
            frame_size=frame_size,
            device=device,
        )
        super().__init__(
            self.rooms,
            observation_space(frame_size, known_spaces(self.rooms.config)),
            len(Action),
            render_mode=render_mode,
            autoreset_mode=autoreset_mode,
        )
