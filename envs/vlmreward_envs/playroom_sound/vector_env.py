"""The Playroom with sound as a Gymnasium ``VectorEnv``: all rooms in one batch of tensors."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from gymnasium import spaces
from gymnasium.vector import AutoresetMode

from vlmreward_envs.goal_env import observation_space
from vlmreward_envs.goal_vector_env import GoalVectorEnv
from vlmreward_envs.playroom import Action
from vlmreward_envs.playroom.vector_env import known_spaces
from vlmreward_envs.playroom_sound.dynamics import PlayroomSoundConfig
from vlmreward_envs.playroom_sound.rooms import PlayroomSoundRooms
from vlmreward_envs.playroom_sound.synthesis import STEP_SAMPLES


def known_sound_spaces(config: PlayroomSoundConfig) -> dict[str, spaces.Space[Any]]:
    """Return the spaces of what one room tells beside its frame: ``audio`` and ``position``."""
    audio = spaces.Box(-1.0, 1.0, (STEP_SAMPLES,), np.float32)
    return {"audio": audio, **known_spaces(config.playroom)}


class PlayroomSoundVectorEnv(GoalVectorEnv):
    """Many Playrooms with sound at once; see :class:`PlayroomSoundEnv` for the task itself.

    Room ``i`` of ``reset(seed=s)`` is the room of ``PlayroomSoundEnv.reset(seed=s + i)``.
    ``reset(options={"reset_mask": mask})`` resets some rooms only, in every autoreset mode.

    Args:
        num_envs: Number of rooms.
        goals: Goal sentences; each episode draws one.
        config: The Playroom, who has a voice, and the pauses.
        max_episode_steps: Steps after which an episode is truncated.
        terminate_on_success: End an episode where its goal is true (ground truth).
        frame_size: Height and width of the frames, in pixels.
        render_mode: ``"rgb_array"`` or ``None``.
        autoreset_mode: One of Gymnasium's three.
        device: Where the rooms live; observations are NumPy arrays all the same.

    Example:
        >>> envs = PlayroomSoundVectorEnv(64, "a bell is ringing")
        >>> obs, info = envs.reset(seed=0)
        >>> obs["pixels"].shape, obs["audio"].shape
        ((64, 96, 96, 3), (64, 1600))
    """

    def __init__(
        self,
        num_envs: int,
        goals: str | Sequence[str] | None = None,
        *,
        config: PlayroomSoundConfig | None = None,
        max_episode_steps: int = 200,
        terminate_on_success: bool = False,
        frame_size: int = 96,
        render_mode: str | None = "rgb_array",
        autoreset_mode: AutoresetMode = AutoresetMode.NEXT_STEP,
        device: torch.device | str = "cpu",
    ) -> None:
        self.rooms = PlayroomSoundRooms(
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
            observation_space(frame_size, known_sound_spaces(self.rooms.config)),
            len(Action),
            render_mode=render_mode,
            autoreset_mode=autoreset_mode,
        )
