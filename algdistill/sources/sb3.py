"""Record any Stable-Baselines3 algorithm while it trains. Needs the `sb3` extra.

Axis letters: ``N`` environments, ``*obs`` the shape of an observation.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from gymnasium import spaces
from jaxtyping import Shaped
from stable_baselines3.common.vec_env import VecEnv, VecEnvWrapper
from stable_baselines3.common.vec_env.base_vec_env import VecEnvObs, VecEnvStepReturn
from torch import Tensor

from algdistill.gymnasium_tasks import action_space, observation_space
from algdistill.histories.recorder import HistoryRecorder
from algdistill.histories.schema import LearningHistory
from algdistill.spaces import Discrete
from algdistill.task_space import TaskSpace
from algdistill.tasks import StepResult


class RecordHistories(VecEnvWrapper):
    """Records one learning history for each environment, and changes nothing.

    A vectorised environment of Stable-Baselines3 resets in the very step that ends an episode, so
    rows follow each other without a gap; the observation an episode ends in, which it hides in
    ``info``, is not acted upon and not recorded. A time limit (``info["TimeLimit.truncated"]``) is
    recorded as truncation, any other end as termination. ``info["env_reward"]`` is recorded as the
    ground truth where there is one, the reward elsewhere. Recording stops after ``num_steps``,
    as an algorithm may run on to the end of its last rollout.

    Args:
        venv: Discrete actions; observations that `algdistill.gymnasium_tasks` knows, or a ``Dict``
            that holds such. Frames are (H, W, 3): record before SB3 puts the channels first.
        task_ids: The task of each environment.
        num_steps: Steps to record of each environment.
        observation_key: The part of a ``Dict`` observation to record.
        metadata: Kept with every history: algorithm, settings, seed, versions.

    Raises:
        ValueError: If a space is of another kind, or there is not one task id for each
            environment.
    """

    def __init__(
        self,
        venv: VecEnv,
        *,
        task_ids: Sequence[int],
        num_steps: int,
        observation_key: str | None = None,
        metadata: Mapping[str, object] | None = None,
    ) -> None:
        super().__init__(venv)
        if len(task_ids) != venv.num_envs:
            raise ValueError(
                f"got {len(task_ids)} task ids, expected one for each of the "
                f"{venv.num_envs} environments"
            )
        self._key = observation_key
        self._num_steps = num_steps
        self._space = _task_space(venv, observation_key)
        self._recorder = HistoryRecorder(
            self._space, torch.tensor(task_ids), num_steps, metadata or {}
        )
        self._num_recorded = 0

    def reset(self) -> VecEnvObs:
        """Reset every environment; only before the first step, or a history would have a gap."""
        if self._num_recorded:
            raise RuntimeError(
                "reset after recorded steps would cut the histories: train with "
                "`reset_num_timesteps=False`, or wrap the environments anew"
            )
        obs = self.venv.reset()
        self._obs = self._recorded(obs)
        return obs

    def step_async(self, actions: np.ndarray) -> None:
        """Remember the actions and pass them on."""
        self._actions = torch.as_tensor(np.array(actions, dtype=np.int64).reshape(-1))
        self.venv.step_async(actions)

    def step_wait(self) -> VecEnvStepReturn:
        """Record what the actions led to."""
        obs, rewards, dones, infos = self.venv.step_wait()
        next_obs = self._recorded(obs)
        if self._num_recorded < self._num_steps:
            done = torch.as_tensor(dones)
            truncated = done & torch.tensor(
                [bool(info.get("TimeLimit.truncated", False)) for info in infos]
            )
            env_rewards = [
                info.get("env_reward", reward) for info, reward in zip(infos, rewards, strict=True)
            ]
            result = StepResult(
                obs=next_obs,
                next_obs=next_obs,
                reward=torch.as_tensor(rewards, dtype=torch.float32),
                env_reward=torch.tensor(env_rewards, dtype=torch.float32),
                terminated=done & ~truncated,
                truncated=truncated,
            )
            self._recorder.record(self._obs, self._actions, result)
            self._num_recorded += 1
        self._obs = next_obs
        return obs, rewards, dones, infos

    def histories(self) -> list[LearningHistory]:
        """One history for each environment, of the steps recorded so far."""
        return self._recorder.histories()

    def _recorded(self, obs: VecEnvObs) -> Shaped[Tensor, " N *obs"]:
        """The recorded part of an observation."""
        values = obs[self._key] if self._key is not None else obs  # type: ignore[call-overload]
        space = self._space.observations
        return torch.as_tensor(np.array(values)).to(space.dtype).reshape(-1, *space.shape)


def _task_space(venv: VecEnv, observation_key: str | None) -> TaskSpace:
    """Read the recorded spaces off an environment."""
    space = venv.observation_space
    if observation_key is not None:
        if not isinstance(space, spaces.Dict) or observation_key not in space.spaces:
            raise ValueError(f"got observations {space}, expected a Dict with {observation_key!r}")
        space = space[observation_key]
    actions = action_space(venv.action_space)
    if not isinstance(actions, Discrete):
        raise ValueError(f"got actions {venv.action_space}, expected Discrete that start at 0")
    return TaskSpace(observation_space(space), actions)
