"""The Playroom as a Gymnasium ``VectorEnv``: all rooms in one batch of tensors."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from gymnasium import spaces
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space
from numpy.typing import NDArray

from vlmreward_envs.gym_inputs import check_render_mode, checked_actions, row_seeds
from vlmreward_envs.playroom.dynamics import Action, PlayroomConfig
from vlmreward_envs.playroom.rooms import PlayroomRooms

Observation = dict[str, NDArray[Any]]
RENDERING = {"render_modes": ["rgb_array"], "render_fps": 10}


def observation_space(config: PlayroomConfig, frame_size: int) -> spaces.Dict:
    """Return the space of one room: ``pixels`` (uint8 HWC) and ``position`` (cell x, y)."""
    return spaces.Dict(
        {
            "pixels": spaces.Box(0, 255, (frame_size, frame_size, 3), np.uint8),
            "position": spaces.MultiDiscrete([config.grid_size, config.grid_size]),
        }
    )


class PlayroomVectorEnv(VectorEnv[Observation, NDArray[np.int64], NDArray[Any]]):
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

    metadata: dict[str, Any] = RENDERING

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
        check_render_mode(render_mode)
        self.rooms = PlayroomRooms(
            num_envs,
            goals,
            config=config,
            max_episode_steps=max_episode_steps,
            terminate_on_success=terminate_on_success,
            frame_size=frame_size,
            device=device,
        )
        self.num_envs = num_envs
        self.render_mode = render_mode
        self.autoreset_mode = AutoresetMode(autoreset_mode)
        self.metadata = RENDERING | {"autoreset_mode": self.autoreset_mode}
        self.single_observation_space = observation_space(self.rooms.config, frame_size)
        self.single_action_space = spaces.Discrete(len(Action))
        self.observation_space = batch_space(self.single_observation_space, num_envs)
        self.action_space = batch_space(self.single_action_space, num_envs)
        self._done = np.zeros(num_envs, dtype=np.bool_)

    def reset(
        self,
        *,
        seed: int | Sequence[int] | None = None,
        options: dict[str, Any] | None = None,
    ) -> tuple[Observation, dict[str, Any]]:
        """Begin new episodes, in all rooms or in those of ``options["reset_mask"]``."""
        mask = self._reset_mask(options)
        self.rooms.reset(row_seeds(self, seed), mask=torch.from_numpy(mask).to(self.rooms.device))
        self._done &= ~mask
        return self._observe(), self._infos(np.zeros(self.num_envs), mask)

    def step(
        self, actions: NDArray[np.int64]
    ) -> tuple[
        Observation, NDArray[np.float64], NDArray[np.bool_], NDArray[np.bool_], dict[str, Any]
    ]:
        """Step every room; rooms that end are reset as the autoreset mode says.

        Raises:
            ValueError: An action outside 0..6 or of the wrong shape, or (autoreset disabled) a
                step in a room that has ended.
        """
        action = checked_actions(actions, self.num_envs, len(Action)).to(self.rooms.device)
        before = self._done.copy()
        if self.autoreset_mode is AutoresetMode.DISABLED and before.any():
            raise ValueError(
                f"rooms {np.nonzero(before)[0].tolist()} have ended; with autoreset disabled, "
                'reset them first: reset(options={"reset_mask": mask})'
            )
        result = self.rooms.step(action)
        env_reward = result.env_reward.cpu().numpy().astype(np.float64)
        terminated, truncated = result.terminated.cpu().numpy(), result.truncated.cpu().numpy()
        if self.autoreset_mode is AutoresetMode.NEXT_STEP and before.any():
            self.rooms.reset(mask=torch.from_numpy(before).to(self.rooms.device))
            env_reward[before], terminated[before], truncated[before] = 0.0, False, False
        self._done = terminated | truncated
        infos = self._infos(env_reward, np.ones(self.num_envs, dtype=np.bool_))
        if self.autoreset_mode is AutoresetMode.SAME_STEP and self._done.any():
            infos = self._reset_ended(infos)
        return self._observe(), env_reward, terminated, truncated, infos

    def render(self) -> tuple[NDArray[np.uint8], ...]:
        """Return one frame per room."""
        return tuple(self.rooms.render().cpu().numpy())

    def _reset_ended(self, infos: dict[str, Any]) -> dict[str, Any]:
        """Reset the rooms that ended, keeping their last observation and info (SAME_STEP)."""
        ended = self._done.copy()
        rows = np.nonzero(ended)[0]
        last = self._observe(rows)
        final_obs = np.full(self.num_envs, None, dtype=object)
        for index, row in enumerate(rows):
            final_obs[row] = {name: values[index] for name, values in last.items()}
        final_info = {
            name: ended.copy() if name.startswith("_") else values for name, values in infos.items()
        }
        self.rooms.reset(mask=torch.from_numpy(ended).to(self.rooms.device))
        self._done[:] = False
        infos = self._infos(np.where(ended, 0.0, infos["env_reward"]), np.ones_like(ended))
        return infos | {
            "final_obs": final_obs,
            "_final_obs": ended,
            "final_info": final_info,
            "_final_info": ended.copy(),
        }

    def _observe(self, rows: NDArray[np.int64] | None = None) -> Observation:
        rooms = slice(None) if rows is None else torch.from_numpy(rows).to(self.rooms.device)
        return {
            "pixels": self.rooms.render(rooms).cpu().numpy(),
            "position": self.rooms.state.position[rooms].cpu().numpy(),
        }

    def _infos(self, env_reward: NDArray[np.float64], mask: NDArray[np.bool_]) -> dict[str, Any]:
        goals = np.array(self.rooms.goals, dtype=object)[self.rooms.goal_index.cpu().numpy()]
        values: dict[str, Any] = {
            "success": self.rooms.success.cpu().numpy(),
            "env_reward": env_reward.copy(),
            "goal": goals,
        }
        return values | {f"_{name}": mask.copy() for name in values}

    def _reset_mask(self, options: dict[str, Any] | None) -> NDArray[np.bool_]:
        mask = (options or {}).get("reset_mask")
        if mask is None:
            return np.ones(self.num_envs, dtype=np.bool_)
        mask = np.asarray(mask)
        if mask.shape != (self.num_envs,) or mask.dtype != np.bool_:
            raise ValueError(
                f"reset_mask must be a boolean array of shape ({self.num_envs},), got "
                f"{mask.dtype} {mask.shape}"
            )
        return mask
