"""A batch of simulators with goals as a Gymnasium ``VectorEnv``."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from gymnasium import spaces
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space
from numpy.typing import NDArray

from vlmreward_envs.goal_env import RENDERING, Observation
from vlmreward_envs.goal_tasks import AnyGoalTasks
from vlmreward_envs.gym_inputs import check_render_mode, checked_actions, row_seeds


class GoalVectorEnv(VectorEnv[Observation, NDArray[np.int64], NDArray[Any]]):
    """Many environments stepped and drawn at once, in one batch of tensors.

    Environment ``i`` of ``reset(seed=s)`` is that of a single one's ``reset(seed=s + i)``.
    ``reset(options={"reset_mask": mask})`` resets some only, in every autoreset mode.

    Args:
        tasks: The simulators.
        single_observation_space: Of ``pixels`` and what the tasks know beside.
        num_actions: Discrete actions of each.
        render_mode: ``"rgb_array"`` or ``None``.
        autoreset_mode: One of Gymnasium's three.
    """

    metadata: dict[str, Any] = RENDERING

    def __init__(
        self,
        tasks: AnyGoalTasks,
        single_observation_space: spaces.Dict,
        num_actions: int,
        *,
        render_mode: str | None,
        autoreset_mode: AutoresetMode,
    ) -> None:
        check_render_mode(render_mode)
        self.tasks = tasks
        self.num_envs = tasks.num_envs
        self._num_actions = num_actions
        self.render_mode = render_mode
        self.autoreset_mode = AutoresetMode(autoreset_mode)
        self.metadata = RENDERING | {"autoreset_mode": self.autoreset_mode}
        self.single_observation_space = single_observation_space
        self.single_action_space = spaces.Discrete(num_actions)
        self.observation_space = batch_space(self.single_observation_space, self.num_envs)
        self.action_space = batch_space(self.single_action_space, self.num_envs)
        self._done = np.zeros(self.num_envs, dtype=np.bool_)

    def reset(
        self,
        *,
        seed: int | Sequence[int] | None = None,
        options: dict[str, Any] | None = None,
    ) -> tuple[Observation, dict[str, Any]]:
        """Begin new episodes, everywhere or in those of ``options["reset_mask"]``."""
        mask = self._reset_mask(options)
        self.tasks.reset(row_seeds(self, seed), mask=torch.from_numpy(mask).to(self.tasks.device))
        self._done &= ~mask
        return self._observe(), self._infos(np.zeros(self.num_envs), mask)

    def step(
        self, actions: NDArray[np.int64]
    ) -> tuple[
        Observation, NDArray[np.float64], NDArray[np.bool_], NDArray[np.bool_], dict[str, Any]
    ]:
        """Take a step everywhere; what ends is reset as the autoreset mode says.

        Raises:
            ValueError: An action outside the space or of the wrong shape, or (autoreset disabled)
                a step where an episode has ended.
        """
        action = checked_actions(actions, self.num_envs, self._num_actions).to(self.tasks.device)
        before = self._done.copy()
        if self.autoreset_mode is AutoresetMode.DISABLED and before.any():
            raise ValueError(
                f"environments {np.nonzero(before)[0].tolist()} have ended; with autoreset "
                'disabled, reset them first: reset(options={"reset_mask": mask})'
            )
        result = self.tasks.step(action)
        env_reward = result.env_reward.cpu().numpy().astype(np.float64)
        terminated, truncated = result.terminated.cpu().numpy(), result.truncated.cpu().numpy()
        if self.autoreset_mode is AutoresetMode.NEXT_STEP and before.any():
            self.tasks.reset(mask=torch.from_numpy(before).to(self.tasks.device))
            env_reward[before], terminated[before], truncated[before] = 0.0, False, False
        self._done = terminated | truncated
        infos = self._infos(env_reward, np.ones(self.num_envs, dtype=np.bool_))
        if self.autoreset_mode is AutoresetMode.SAME_STEP and self._done.any():
            infos = self._reset_ended(infos)
        return self._observe(), env_reward, terminated, truncated, infos

    def render(self) -> tuple[NDArray[np.uint8], ...]:
        """Return one frame per environment."""
        return tuple(self.tasks.render().cpu().numpy())

    def _reset_ended(self, infos: dict[str, Any]) -> dict[str, Any]:
        """Reset what ended, keeping the last observations and infos (SAME_STEP)."""
        ended = self._done.copy()
        rows = np.nonzero(ended)[0]
        last = self._observe(rows)
        final_obs = np.full(self.num_envs, None, dtype=object)
        for index, row in enumerate(rows):
            final_obs[row] = {name: values[index] for name, values in last.items()}
        final_info = {
            name: ended.copy() if name.startswith("_") else values for name, values in infos.items()
        }
        self.tasks.reset(mask=torch.from_numpy(ended).to(self.tasks.device))
        self._done[:] = False
        infos = self._infos(np.where(ended, 0.0, infos["env_reward"]), np.ones_like(ended))
        return infos | {
            "final_obs": final_obs,
            "_final_obs": ended,
            "final_info": final_info,
            "_final_info": ended.copy(),
        }

    def _observe(self, rows: NDArray[np.int64] | None = None) -> Observation:
        chosen = slice(None) if rows is None else torch.from_numpy(rows).to(self.tasks.device)
        known = {name: value[chosen].cpu().numpy() for name, value in self.tasks.known().items()}
        return {"pixels": self.tasks.render(chosen).cpu().numpy(), **known}

    def _infos(self, env_reward: NDArray[np.float64], mask: NDArray[np.bool_]) -> dict[str, Any]:
        goals = np.array(self.tasks.goals, dtype=object)[self.tasks.goal_index.cpu().numpy()]
        values: dict[str, Any] = {
            "success": self.tasks.success.cpu().numpy(),
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
