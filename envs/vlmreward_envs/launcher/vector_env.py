"""The Launcher as a Gymnasium ``VectorEnv``: all phones in one batch of tensors."""

from collections.abc import Sequence

import torch
from gymnasium.vector import AutoresetMode

from vlmreward_envs.goal_env import observation_space
from vlmreward_envs.goal_vector_env import GoalVectorEnv
from vlmreward_envs.launcher.dynamics import LauncherConfig
from vlmreward_envs.launcher.gestures import Gesture
from vlmreward_envs.launcher.layout import SCREEN_SIZE
from vlmreward_envs.launcher.phones import LauncherPhones


class LauncherVectorEnv(GoalVectorEnv):
    """Many phones tapped and drawn at once; see :class:`LauncherEnv` for the task itself.

    Phone ``i`` of ``reset(seed=s)`` is the phone of ``LauncherEnv.reset(seed=s + i)``.
    ``reset(options={"reset_mask": mask})`` resets some phones only, in every autoreset mode.

    Args:
        num_envs: Number of phones.
        goals: Goal sentences; each episode draws one.
        config: Pages, apps, folders, pop-ups.
        max_episode_steps: Gestures after which an episode is truncated.
        terminate_on_success: End an episode where its goal is true (ground truth).
        render_mode: ``"rgb_array"`` or ``None``.
        autoreset_mode: One of Gymnasium's three.
        device: Where the phones live; observations are NumPy arrays all the same.

    Example:
        >>> envs = LauncherVectorEnv(64, "the Mail app is open")
        >>> obs, info = envs.reset(seed=0)
        >>> obs["pixels"].shape
        (64, 96, 96, 3)
    """

    def __init__(
        self,
        num_envs: int,
        goals: str | Sequence[str] | None = None,
        *,
        config: LauncherConfig | None = None,
        max_episode_steps: int = 15,
        terminate_on_success: bool = False,
        render_mode: str | None = "rgb_array",
        autoreset_mode: AutoresetMode = AutoresetMode.NEXT_STEP,
        device: torch.device | str = "cpu",
    ) -> None:
        self.phones = LauncherPhones(
            num_envs,
            goals,
            config=config,
            max_episode_steps=max_episode_steps,
            terminate_on_success=terminate_on_success,
            device=device,
        )
        super().__init__(
            self.phones,
            observation_space(SCREEN_SIZE, {}),
            len(Gesture),
            render_mode=render_mode,
            autoreset_mode=autoreset_mode,
        )
