"""One simulator with goals as a Gymnasium ``Env``."""

from typing import Any

import gymnasium as gym
import numpy as np
import torch
from gymnasium import spaces
from numpy.typing import NDArray

from vlmreward_envs.goal_tasks import AnyGoalTasks
from vlmreward_envs.gym_inputs import check_render_mode

Observation = dict[str, NDArray[Any]]
RENDERING = {"render_modes": ["rgb_array"], "render_fps": 10}


def observation_space(frame_size: int, known: dict[str, spaces.Space[Any]]) -> spaces.Dict:
    """Return the space of ``pixels``, uint8 HWC, and of what is known beside the frame."""
    pixels = spaces.Box(0, 255, (frame_size, frame_size, 3), np.uint8)
    return spaces.Dict({"pixels": pixels, **known})


class GoalEnv(gym.Env[Observation, np.int64]):
    """A batch of one: observations ``pixels`` and what the task knows; infos as told below.

    ``info`` has ``success``, ``env_reward`` (the ground truth, which is also the reward) and
    ``goal``, the sentence.

    Args:
        tasks: The simulator, alone.
        single_observation_space: Of ``pixels`` and what the task knows beside.
        num_actions: Discrete actions.
        render_mode: ``"rgb_array"`` or ``None``.
    """

    metadata: dict[str, Any] = RENDERING

    def __init__(
        self,
        tasks: AnyGoalTasks,
        single_observation_space: spaces.Dict,
        num_actions: int,
        *,
        render_mode: str | None,
    ) -> None:
        check_render_mode(render_mode)
        self.tasks = tasks
        self.render_mode = render_mode
        self.observation_space = single_observation_space  # type: ignore[assignment]
        self.action_space = spaces.Discrete(num_actions)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Observation, dict[str, Any]]:
        """Begin a new episode; a seed begins the stream of episodes anew."""
        is_first = self._np_random is None
        super().reset(seed=seed)
        if seed is None and is_first:
            seed = int(self.np_random.integers(2**62))
        self.tasks.reset(None if seed is None else torch.tensor([seed]))
        return self._observe(), self._info(0.0)

    def step(self, action: np.int64 | int) -> tuple[Observation, float, bool, bool, dict[str, Any]]:
        """Take one action.

        Raises:
            ValueError: An action outside the space.
        """
        if not self.action_space.contains(np.int64(action)):
            last = int(self.action_space.n) - 1  # type: ignore[attr-defined]
            raise ValueError(f"action must be an integer in 0..{last}, got {action!r}")
        result = self.tasks.step(torch.tensor([int(action)]))
        env_reward = float(result.env_reward)
        terminated, truncated = bool(result.terminated), bool(result.truncated)
        return self._observe(), env_reward, terminated, truncated, self._info(env_reward)

    def render(self) -> NDArray[np.uint8]:
        """Return the current frame, uint8 (H, W, 3)."""
        return self.tasks.render()[0].numpy()

    def _observe(self) -> Observation:
        known = {name: value[0].numpy().copy() for name, value in self.tasks.known().items()}
        return {"pixels": self.render(), **known}

    def _info(self, env_reward: float) -> dict[str, Any]:
        goal = self.tasks.goals[int(self.tasks.goal_index)]
        return {"success": bool(self.tasks.success), "env_reward": env_reward, "goal": goal}
