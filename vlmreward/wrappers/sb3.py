"""VLM reward for Stable-Baselines3.

Axes: `N` environments, `S` episodes that start together, `D` width of the embedding.
"""

from __future__ import annotations

import time
from typing import Any, Literal, get_args

import gymnasium as gym
import numpy as np
import torch
from jaxtyping import Bool, Float, Int64
from numpy.typing import NDArray
from stable_baselines3.common.vec_env import VecEnv, VecEnvWrapper
from stable_baselines3.common.vec_env.base_vec_env import VecEnvObs, VecEnvStepReturn

from vlmreward.frames import require_pixels
from vlmreward.goal_source import GoalSource
from vlmreward.guard import TerminationGuard
from vlmreward.reward_model import GoalIndex, RewardModel
from vlmreward.reward_stream import RewardStream, StreamStep
from vlmreward.wrappers.batches import Obs, replace_rows, row_of, rows_of, rows_where
from vlmreward.wrappers.goal_conditioning import GoalConditioning
from vlmreward.wrappers.sb3_adapter import VectorEnvAdapter
from vlmreward.wrappers.sb3_callback import VLMRewardCallback

__all__ = ["VLMRewardCallback", "VecVLMReward", "VectorEnvAdapter"]

Observe = Literal["pixels", "embedding"]
Infos = list[dict[str, Any]]

EMBEDDING = "embedding"
"""The observation key of the encoder's embedding."""


class VecVLMReward(VecEnvWrapper):
    """Replaces the rewards of a `VecEnv` with those of a reward model.

    All environments are scored in one forward pass per step, each for its own goal. The last step
    of an episode is scored on its `terminal_observation`; the next episode's first frame, which an
    SB3 environment returns in its place, is never paid for.

    An info gains `env_reward`, the environment's own reward, which the learner must not see;
    `vlm_score`, before any threshold, NaN on steps that were not scored; `goal_index`; of an
    `EpisodeEncoder`, `vlm_stream`, which of its streams was scored; and, at the end of an episode,
    `episode` (SB3's own record, counting VLM reward) and `env_episode_return`, the same for
    `env_reward`.

    Args:
        venv: A base `VecEnv`, such as `DummyVecEnv`, `SubprocVecEnv` or `VectorEnvAdapter`, with
            a dict observation that has `pixels`. Other `VecEnvWrapper`s go around this one.
        reward_model: Pays; its `timing` says when, and from how many frames.
        goal_index: Which of its goals each environment is about, or a `GoalSource` that says so at
            every start of an episode.
        terminate_on_success: End the episode at the first step that pays, so that a return is 0 or
            1 (Baumli et al. 2023). `TimeLimit.truncated` is then False. None does so exactly where
            the reward is binary.
        observe: `pixels` leaves observations as they are. `embedding` gives the learner the frozen
            encoder's embedding under that key, from the same forward pass that pays the reward, in
            place of what the encoder read. It takes a second forward pass on steps at which
            success ends an episode, for the first frames of the next.
        observe_goal: Add the embedding of the episode's goal to the observation, under
            `goal_embedding`, so that one policy can learn many goals.

    Attributes:
        led_to: The observations that the last actions led to, as the encoder read them.
        paid: What they earned; both are None before the first step.

    Raises:
        FrameError: If the observation has no `pixels`.
        ValueError: If `venv` is wrapped already, or `observe` is unknown.
    """

    def __init__(
        self,
        venv: VecEnv,
        reward_model: RewardModel,
        goal_index: GoalIndex | GoalSource = 0,
        *,
        terminate_on_success: bool | None = None,
        observe: Observe = "pixels",
        observe_goal: bool = False,
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
        self.observe = observe
        self._goals = GoalConditioning(reward_model, goal_index, observe_goal)
        self._stream = RewardStream(
            reward_model,
            venv.num_envs,
            self._goals.initial(venv.num_envs),
            encode_all=observe == "embedding",
        )
        self._guard = TerminationGuard(reward_model.head, reward_model.timing, terminate_on_success)
        self.led_to: Obs | None = None
        self.paid: StreamStep | None = None
        self._start_time = time.time()
        self._returns = np.zeros(venv.num_envs)
        self._env_returns = np.zeros(venv.num_envs)
        self._lengths = np.zeros(venv.num_envs, dtype=int)
        space = self._observation_space(venv)
        if observe_goal:
            space = self._goals.extend_space(space)
        super().__init__(venv, observation_space=space)

    @property
    def goal_index(self) -> Int64[NDArray[Any], " N"]:
        """What each environment's episode is about now."""
        return self._stream.goal_index.copy()

    def reset(self) -> VecEnvObs:
        """Starts an episode everywhere."""
        obs = _as_dict(self.venv.reset())
        self.reset_infos = list(self.venv.reset_infos)
        for total in (self._returns, self._env_returns, self._lengths):
            total[:] = 0
        everywhere = list(range(self.num_envs))
        embedding = self._stream.start(everywhere, obs, goal_index=self._choose(obs, everywhere))
        shown = self._shown(obs, embedding)
        return self._goals.add_to_rows(shown, self.goal_index)  # type: ignore[no-any-return]

    def step_wait(self) -> VecEnvStepReturn:
        """Steps, scores the frames that the actions led to, and ends episodes on success."""
        venv_obs, env_rewards, venv_dones, venv_infos = self.venv.step_wait()
        obs, dones = _as_dict(venv_obs), np.array(venv_dones, dtype=bool)
        infos = [dict(info) for info in venv_infos]
        goal_index = self.goal_index

        # Where an episode has ended, `obs` is of the next one already.
        ended = rows_where(dones)
        for index in ended:
            self.reset_infos[index] = self.venv.reset_infos[index]
        led_to = replace_rows(obs, ended, [infos[i]["terminal_observation"] for i in ended])
        truncated = np.array([info.get("TimeLimit.truncated", False) for info in infos], bool)
        if (dones & ~truncated).any():
            self._guard.saw_terminated()
        first = rows_of(obs, ended)
        paid = self._pay(
            led_to,
            terminated=dones & ~truncated,
            truncated=truncated,
            started=ended,
            first_obs=first,
            goal_index=self._choose(first, ended),
        )
        self.led_to, self.paid = led_to, paid

        success = (paid.reward > 0) & self._guard.ends_on_success
        restarted = rows_where(success & ~dones)
        restarted_embedding = None
        if restarted:
            obs = replace_rows(obs, restarted, self._restart(restarted))
            first = rows_of(obs, restarted)
            restarted_embedding = self._stream.start(
                restarted, first, goal_index=self._choose(first, restarted)
            )
        for index in restarted:
            infos[index]["terminal_observation"] = row_of(led_to, index)
        for index in rows_where(success):
            infos[index]["TimeLimit.truncated"] = False
        dones |= success

        for index, score in enumerate(paid.score.tolist()):
            infos[index]["env_reward"] = float(env_rewards[index])
            infos[index]["vlm_score"] = score
            infos[index]["goal_index"] = int(goal_index[index])
            if paid.stream is not None:
                infos[index]["vlm_stream"] = paid.stream[index]
        self._count(paid.reward, env_rewards, dones, infos)
        for index in rows_where(dones):
            terminal = infos[index]["terminal_observation"]
            own = None if paid.embedding is None else paid.embedding[index]
            infos[index]["terminal_observation"] = self._goals.add_to_row(
                self._shown(terminal, own), int(goal_index[index])
            )
        if self.observe == "embedding":
            seen = torch.as_tensor(paid.embedding).clone()
            for rows, embedding in (
                (ended, paid.first_embedding),
                (restarted, restarted_embedding),
            ):
                if embedding is not None:
                    seen[rows] = embedding
            obs = self._shown(obs, seen)
        return self._goals.add_to_rows(obs, self.goal_index), paid.reward, dones, infos

    def _pay(self, led_to: Obs, **step: Any) -> StreamStep:
        """Scores a step, whose further arguments are those of `RewardStream.step`."""
        return self._stream.step(led_to, **step)

    def _choose(self, obs: Obs, rows: list[int]) -> Int64[NDArray[Any], " S"] | None:
        """Asks for the goals of episodes that start with these observations."""
        each = [row_of(obs, place) for place in range(len(rows))]
        return self._goals.choose(each, [self.reset_infos[index] for index in rows])

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
        for index in rows_where(dones):
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

    def _shown(self, obs: Obs, embedding: Float[torch.Tensor, ...] | None) -> Obs:
        """What the learner sees of observations: themselves, or the encoder's view of them."""
        if self.observe == "pixels":
            return obs
        read = self.reward_model.encoder.modalities
        kept = {key: values for key, values in obs.items() if key not in read}
        return {**kept, EMBEDDING: torch.as_tensor(embedding).cpu().numpy()}


def _as_dict(obs: VecEnvObs) -> Obs:
    assert isinstance(obs, dict)  # `require_pixels` has seen the space
    return obs
