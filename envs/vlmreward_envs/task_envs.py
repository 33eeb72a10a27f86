"""Batches of tasks as Gymnasium environments: one task alone, or many as a ``VectorEnv``.

Axis letters: ``N`` tasks.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from gymnasium import spaces
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space
from jaxtyping import Int64
from numpy.typing import NDArray
from torch import Tensor

from vlmreward_envs.episodes import EpisodicTasks, Observations
from vlmreward_envs.gym_inputs import check_render_mode, checked_actions, row_seeds

_RENDERING = {"render_modes": ["rgb_array"], "render_fps": 5}

TASK_STREAM = 10
"""Stream of a seed from which a task is drawn; its episodes use others."""

Observation = NDArray[np.int64] | NDArray[np.uint8]
"""Whole numbers, or a frame; of all tasks at once in a :class:`TaskVectorEnv`."""

TaskDrawer = Callable[..., EpisodicTasks]
"""Makes one task for each seed (Int64[N]): ``draw_tasks(seeds, **choices)``.

A choice is ``None`` where the user made none. The seeds are also those of the tasks' streams.
"""


class TaskEnv(gym.Env[Observation, np.int64]):
    """One task as a Gymnasium environment.

    The task stays the same from episode to episode, until ``reset`` is given a seed, which begins
    the random stream anew and draws what the user has not chosen, or another choice in
    ``options``, which is kept. ``info`` holds ``env_reward``, the reward, and ``task_id``.

    Args:
        draw_tasks: Makes the task.
        choices: What the user has chosen about it, by name; ``None`` where they have not.
        render_mode: ``"rgb_array"`` or ``None``.

    Raises:
        ValueError: If the task does not exist, or for another render mode.
    """

    metadata: dict[str, Any] = _RENDERING

    def __init__(
        self, draw_tasks: TaskDrawer, choices: Mapping[str, Any], render_mode: str | None
    ) -> None:
        check_render_mode(render_mode)
        self.render_mode = render_mode
        self._draw_tasks = draw_tasks
        self._choices = dict(choices)
        self.tasks = draw_tasks(torch.zeros(1, dtype=torch.int64), **choices)
        self.observation_space = _observation_space(self.tasks)
        self.action_space = spaces.Discrete(self.tasks.num_actions)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Observation, dict[str, Any]]:
        """Begin a new episode; see the class for what a seed and options do.

        Raises:
            ValueError: If an option is unknown, or no such task exists.
        """
        is_first = self._np_random is None
        super().reset(seed=seed)
        self._choices = _updated(self._choices, options)
        if seed is None and not is_first and not options:
            obs = self.tasks.begin_episode(self.tasks.episode + 1)
        else:
            stream = int(self.np_random.integers(2**62)) if seed is None else seed
            self.tasks = self._draw_tasks(torch.tensor([stream]), **self._choices)
            obs = self.tasks.reset()
        return _to_numpy(obs)[0], self._info(0.0)

    def step(self, action: np.int64 | int) -> tuple[Observation, float, bool, bool, dict[str, Any]]:
        """Take one action.

        Raises:
            ValueError: If there is no such action.
            RuntimeError: If the episode is over.
        """
        if not self.action_space.contains(np.int64(action)):
            raise ValueError(
                f"action must be an integer in 0..{self.tasks.num_actions - 1}, got {action!r}"
            )
        reward = float(self.tasks.advance(torch.tensor([int(action)])))
        obs = _to_numpy(self.tasks.observe())[0]
        return obs, reward, False, self.tasks.is_over, self._info(reward)

    def render(self) -> NDArray[np.uint8]:
        """Return a picture of the task with all that the agent does not see, uint8 (H, W, 3)."""
        return self.tasks.render()[0].numpy()

    def _info(self, reward: float) -> dict[str, Any]:
        return {"env_reward": reward, "task_id": int(self.tasks.task_ids)}


class TaskVectorEnv(VectorEnv[Observation, NDArray[np.int64], NDArray[Any]]):
    """Many tasks as a Gymnasium ``VectorEnv``, all stepped in one batch of tensors.

    Task ``i`` after ``reset(seed=s)`` is that of a :class:`TaskEnv` after ``reset(seed=s + i)``.
    All episodes end together and begin anew in the same step (``AutoresetMode.SAME_STEP``), so that
    no step is lost between them. Seeds, ``options`` and ``info`` are as in :class:`TaskEnv`.

    Args:
        num_envs: N.
        draw_tasks: Makes the tasks.
        choices: What the user has chosen about them, by name; ``None`` where they have not.
        render_mode: ``"rgb_array"`` or ``None``.
        device: Where the tasks live; observations are NumPy arrays all the same.

    Raises:
        ValueError: If a task does not exist, there is no environment, or for another render mode.
    """

    metadata: dict[str, Any] = _RENDERING | {"autoreset_mode": AutoresetMode.SAME_STEP}

    def __init__(
        self,
        num_envs: int,
        draw_tasks: TaskDrawer,
        choices: Mapping[str, Any],
        *,
        render_mode: str | None,
        device: torch.device | str,
    ) -> None:
        check_render_mode(render_mode)
        if num_envs < 1:
            raise ValueError(f"got num_envs={num_envs}, expected at least 1")
        self.num_envs = num_envs
        self.render_mode = render_mode
        self._device = torch.device(device)
        self._draw_tasks = draw_tasks
        self._choices = dict(choices)
        self.tasks = self._draw(torch.arange(num_envs))
        self.single_observation_space = _observation_space(self.tasks)
        self.single_action_space = spaces.Discrete(self.tasks.num_actions)
        self.observation_space = batch_space(self.single_observation_space, num_envs)
        self.action_space = batch_space(self.single_action_space, num_envs)

    def reset(
        self,
        *,
        seed: int | Sequence[int] | None = None,
        options: dict[str, Any] | None = None,
    ) -> tuple[Observation, dict[str, Any]]:
        """Begin a new episode in every task.

        Raises:
            ValueError: If an option is unknown, no such task exists, or there is neither one seed
                nor one for each task.
        """
        self._choices = _updated(self._choices, options)
        seeds = row_seeds(self, seed)
        if seeds is None and options:
            seeds = torch.from_numpy(self.np_random.integers(2**62, size=self.num_envs))
        if seeds is None:
            obs = self.tasks.begin_episode(self.tasks.episode + 1)
        else:
            self.tasks = self._draw(seeds)
            obs = self.tasks.reset()
        return _to_numpy(obs), self._infos(np.zeros(self.num_envs))

    def step(
        self, actions: NDArray[np.int64]
    ) -> tuple[
        Observation, NDArray[np.float64], NDArray[np.bool_], NDArray[np.bool_], dict[str, Any]
    ]:
        """Take one action in every task; the last one of an episode begins the next.

        Raises:
            ValueError: If there is not one action of the action space for each task.
        """
        tensor = checked_actions(actions, self.num_envs, self.tasks.num_actions)
        result = self.tasks.step(tensor.to(self.tasks.device))
        reward = result.reward.cpu().numpy().astype(np.float64)
        terminated = result.terminated.cpu().numpy().copy()
        truncated = result.truncated.cpu().numpy().copy()
        infos = self._infos(reward)
        if truncated.all():
            infos = self._infos(np.zeros(self.num_envs)) | self._final(result.next_obs, infos)
        return _to_numpy(result.obs), reward, terminated, truncated, infos

    def render(self) -> tuple[NDArray[np.uint8], ...]:
        """Return one picture for each task, uint8 (H, W, 3)."""
        return tuple(self.tasks.render().cpu().numpy())

    def _draw(self, seeds: Int64[Tensor, " N"]) -> EpisodicTasks:
        return self._draw_tasks(seeds.to(self._device), **self._choices)

    def _infos(self, reward: NDArray[np.float64]) -> dict[str, Any]:
        values = {"env_reward": reward.copy(), "task_id": self.tasks.task_ids.cpu().numpy().copy()}
        return values | {f"_{name}": np.ones(self.num_envs, dtype=np.bool_) for name in values}

    def _final(self, last: Observations, infos: dict[str, Any]) -> dict[str, Any]:
        """Return what an episode ended with, in Gymnasium's form."""
        final_obs = np.empty(self.num_envs, dtype=object)
        final_obs[:] = list(last.cpu().numpy())
        present = np.ones(self.num_envs, dtype=np.bool_)
        return {
            "final_obs": final_obs,
            "_final_obs": present,
            "final_info": infos,
            "_final_info": present.copy(),
        }


def _observation_space(tasks: EpisodicTasks) -> spaces.Space[Any]:
    if tasks.observation_dtype == torch.uint8:
        return spaces.Box(0, 255, tasks.observation_shape, np.uint8)
    return spaces.MultiDiscrete(list(tasks.observation_sizes))


def _to_numpy(obs: Observations) -> Observation:
    """Return what is the user's own: tasks keep theirs."""
    return obs.cpu().numpy().copy()


def _updated(choices: dict[str, Any], options: Mapping[str, Any] | None) -> dict[str, Any]:
    """Return the choices with those in ``options`` changed."""
    unknown = set(options or {}) - set(choices)
    if unknown:
        raise ValueError(f"got the reset options {sorted(unknown)}, expected {sorted(choices)}")
    return choices | dict(options or {})
