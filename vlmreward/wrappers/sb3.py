"""VLM reward for Stable-Baselines3.

Axes: `N` environments, `D` width of the embedding.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Sequence
from typing import Any, Literal, get_args

import gymnasium as gym
import numpy as np
import torch
from jaxtyping import Bool, Float
from numpy.typing import NDArray
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.vec_env import VecEnv, VecEnvWrapper
from stable_baselines3.common.vec_env.base_vec_env import VecEnvObs, VecEnvStepReturn

from vlmreward.frames import require_pixels
from vlmreward.reward_model import GoalIndex, RewardModel
from vlmreward.wrappers.sb3_adapter import VectorEnvAdapter

__all__ = ["VLMRewardCallback", "VecVLMReward", "VectorEnvAdapter"]

Observe = Literal["pixels", "embedding"]
Obs = dict[str, NDArray[Any]]
Infos = list[dict[str, Any]]

EMBEDDING = "embedding"
"""The observation key of the encoder's embedding."""


class VecVLMReward(VecEnvWrapper):
    """Replaces the rewards of a `VecEnv` with those of a reward model.

    All environments are scored in one forward pass per step, each for its own goal. The last step
    of an episode is scored on its `terminal_observation`; the next episode's first frame, which an
    SB3 environment returns in its place, is never paid for.

    An info gains `env_reward`, the environment's own reward, which the learner must not see;
    `vlm_score`, before the threshold; and, at the end of an episode, `episode` (SB3's own
    record, counting VLM reward) and `env_episode_return`, the same for `env_reward`.

    Args:
        venv: A base `VecEnv`, such as `DummyVecEnv`, `SubprocVecEnv` or `VectorEnvAdapter`, with
            a dict observation that has `pixels`. Other `VecEnvWrapper`s go around this one.
        reward_model: Pays.
        goal_index: Which of its goals each environment is about.
        terminate_on_success: End the episode at the first step that pays, so that a return is 0 or
            1 (Baumli et al. 2023). `TimeLimit.truncated` is then False.
        observe: `pixels` leaves observations as they are. `embedding` gives the learner the frozen
            encoder's embedding under that key, from the same forward pass that pays the reward, in
            place of what the encoder read. It takes a second forward pass on steps at which
            success ends an episode, for the first frames of the next.

    Raises:
        FrameError: If the observation has no `pixels`.
        ValueError: If `venv` is wrapped already, or `observe` is unknown.
    """

    def __init__(
        self,
        venv: VecEnv,
        reward_model: RewardModel,
        goal_index: GoalIndex = 0,
        *,
        terminate_on_success: bool = True,
        observe: Observe = "pixels",
    ) -> None:
        if observe not in get_args(Observe):
            raise ValueError(f"expected observe to be one of {get_args(Observe)}, got {observe!r}")
        if isinstance(venv, VecEnvWrapper):
            raise ValueError(
                f"expected a base VecEnv, got {type(venv).__name__}: resetting one environment on "
                f"success would go past it. Put VecVLMReward inside, {type(venv).__name__} around"
            )
        require_pixels(venv.observation_space)
        self.reward_model = reward_model
        self.goal_index = reward_model.check_goal_index(goal_index, venv.num_envs)
        self.terminate_on_success = terminate_on_success
        self.observe = observe
        self._start_time = time.time()
        self._returns = np.zeros(venv.num_envs)
        self._env_returns = np.zeros(venv.num_envs)
        self._lengths = np.zeros(venv.num_envs, dtype=int)
        super().__init__(venv, observation_space=self._observation_space(venv))

    def reset(self) -> VecEnvObs:
        """Starts an episode everywhere."""
        obs = _as_dict(self.venv.reset())
        self.reset_infos = list(self.venv.reset_infos)
        for total in (self._returns, self._env_returns, self._lengths):
            total[:] = 0
        if self.observe == "pixels":
            return obs
        return self._with_embedding(obs, self._encode(obs).cpu().numpy())

    def step_wait(self) -> VecEnvStepReturn:
        """Steps, scores the frames that the actions led to, and ends episodes on success."""
        venv_obs, env_rewards, venv_dones, venv_infos = self.venv.step_wait()
        obs, dones = _as_dict(venv_obs), np.array(venv_dones, dtype=bool)
        infos = [dict(info) for info in venv_infos]

        # Where an episode has ended, `obs` is of the next one already.
        ended = _where(dones)
        for index in ended:
            self.reset_infos[index] = self.venv.reset_infos[index]
        led_to = _replace_rows(obs, ended, [infos[i]["terminal_observation"] for i in ended])
        shown = self.observe == "embedding"
        embedding = self._encode(_concatenate(led_to, _rows(obs, ended)) if shown else led_to)
        scores = self.reward_model.score_embeddings(embedding[: self.num_envs], self.goal_index)
        rewards = scores.reward.cpu().numpy().astype(np.float32)

        success = (rewards > 0) & self.terminate_on_success
        restarted = _where(success & ~dones)
        obs = _replace_rows(obs, restarted, self._restart(restarted) if restarted else [])
        for index in restarted:
            infos[index]["terminal_observation"] = _row(led_to, index)
        for index in _where(success):
            infos[index]["TimeLimit.truncated"] = False
        dones |= success

        for index, probability in enumerate(scores.score.tolist()):
            infos[index]["env_reward"] = float(env_rewards[index])
            infos[index]["vlm_score"] = probability
        self._count(rewards, env_rewards, dones, infos)
        if shown:  # the terminal embedding in infos, the next episode's first in `obs`
            rows = embedding.cpu().numpy()
            for index in _where(dones):
                terminal = infos[index]["terminal_observation"]
                infos[index]["terminal_observation"] = self._with_embedding(terminal, rows[index])
            seen = rows[: self.num_envs].copy()
            seen[ended] = rows[self.num_envs :]
            if restarted:
                seen[restarted] = self._encode(_rows(obs, restarted)).cpu().numpy()
            obs = self._with_embedding(obs, seen)
        return obs, rewards, dones, infos

    def _encode(self, obs: Obs) -> Float[torch.Tensor, "N D"]:
        return self.reward_model.encoder.encode_obs(obs)

    def _restart(self, indices: list[int]) -> list[Obs]:
        """Starts the next episode in some environments, and returns their first observations."""
        results = self.venv.env_method("reset", indices=indices)
        for index, (_, info) in zip(indices, results, strict=True):
            self.reset_infos[index] = info
        return [obs for obs, _ in results]

    def _count(
        self,
        rewards: Float[NDArray[Any], " N"],
        env_rewards: Float[NDArray[Any], " N"],
        dones: Bool[NDArray[Any], " N"],
        infos: Infos,
    ) -> None:
        self._returns += rewards
        self._env_returns += env_rewards
        self._lengths += 1
        seconds = round(time.time() - self._start_time, 6)
        for index in _where(dones):
            infos[index]["episode"] = {
                "r": float(self._returns[index]),
                "l": int(self._lengths[index]),
                "t": seconds,
            }
            infos[index]["env_episode_return"] = float(self._env_returns[index])
        for total in (self._returns, self._env_returns, self._lengths):
            total[dones] = 0

    def _observation_space(self, venv: VecEnv) -> gym.spaces.Space[Any]:
        if self.observe == "pixels":
            return venv.observation_space
        assert isinstance(venv.observation_space, gym.spaces.Dict)
        encoder = self.reward_model.encoder
        kept = {
            key: space
            for key, space in venv.observation_space.spaces.items()
            if key not in encoder.modalities
        }
        # A unit vector; the bounds leave room for rounding.
        unit = gym.spaces.Box(-1.001, 1.001, (encoder.embed_dim,), np.float32)
        return gym.spaces.Dict({**kept, EMBEDDING: unit})

    def _with_embedding(self, obs: Obs, embedding: NDArray[Any]) -> Obs:
        read = self.reward_model.encoder.modalities
        return {**{k: v for k, v in obs.items() if k not in read}, EMBEDDING: embedding}


class VLMRewardCallback(BaseCallback):
    """Logs what the learner is paid beside what it was meant to earn.

    Over the last `window` episodes: `vlm_reward/episode_return`, `env_reward/episode_return` and,
    where infos carry `success`, `env_reward/success_rate`, the share of episodes in whose last
    step it was true. Written whenever the algorithm writes its own metrics.

    Args:
        window: How many episodes to average over.
    """

    def __init__(self, window: int = 100) -> None:
        super().__init__()
        self._values: dict[str, deque[float]] = {
            "vlm_reward/episode_return": deque(maxlen=window),
            "env_reward/episode_return": deque(maxlen=window),
            "env_reward/success_rate": deque(maxlen=window),
        }

    def _on_step(self) -> bool:
        for info in self.locals["infos"]:
            if "env_episode_return" in info:
                self._values["vlm_reward/episode_return"].append(info["episode"]["r"])
                self._values["env_reward/episode_return"].append(info["env_episode_return"])
                if "success" in info:
                    self._values["env_reward/success_rate"].append(float(info["success"]))
        return True

    def _on_rollout_end(self) -> None:
        for name, values in self._values.items():
            if values:
                self.logger.record(name, float(np.mean(values)))


def _as_dict(obs: VecEnvObs) -> Obs:
    assert isinstance(obs, dict)  # `require_pixels` has seen the space
    return obs


def _where(mask: Bool[NDArray[Any], " N"]) -> list[int]:
    return [int(index) for index in np.flatnonzero(mask)]


def _row(obs: Obs, index: int) -> Obs:
    return {key: values[index] for key, values in obs.items()}


def _rows(obs: Obs, indices: list[int]) -> Obs:
    return {key: values[indices] for key, values in obs.items()}


def _replace_rows(obs: Obs, indices: list[int], rows: Sequence[Obs]) -> Obs:
    """Returns a batch in which some rows are others; the batch itself stays as it is."""
    if not indices:
        return obs
    replaced = {key: values.copy() for key, values in obs.items()}
    for index, row in zip(indices, rows, strict=True):
        for key, values in replaced.items():
            values[index] = row[key]
    return replaced


def _concatenate(first: Obs, second: Obs) -> Obs:
    return {key: np.concatenate([values, second[key]]) for key, values in first.items()}
