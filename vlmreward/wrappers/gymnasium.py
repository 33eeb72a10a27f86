"""VLM reward for one Gymnasium environment."""

from __future__ import annotations

from typing import Any, SupportsFloat

import gymnasium as gym
import numpy as np
from numpy.typing import NDArray

from vlmreward.encoders.base import may_lack
from vlmreward.frames import PIXELS, frame_of_obs, has_pixels, render_frame, require_rgb_array
from vlmreward.goal_source import GoalSource
from vlmreward.guard import TerminationGuard
from vlmreward.reward_model import RewardModel
from vlmreward.reward_stream import RewardStream
from vlmreward.wrappers.goal_conditioning import GoalConditioning


class VLMReward(gym.Wrapper[Any, Any, Any, Any]):
    """Replaces an environment's reward with that of a reward model.

    Every step is paid for the frame that the action led to: `obs["pixels"]` where the observation
    has it, else what the environment renders. `vlmreward.wrappers.VectorVLMReward` and
    `vlmreward.wrappers.sb3.VecVLMReward` do the same for many environments in one forward pass.

    `info` gains `env_reward`, the environment's own reward, which the learner must not see;
    `vlm_reward`; `vlm_score`, before any threshold, NaN on steps that were not scored;
    `goal_index`; and, of an `EpisodeEncoder`, `vlm_stream`, which of its streams was scored.
    Everything else in it is kept.

    Args:
        env: The environment.
        reward_model: Pays; its `timing` says when, and from how many frames.
        goal_index: Which of its goals this environment is about, or a `GoalSource` that says so at
            every reset.
        terminate_on_success: End the episode, as `terminated`, at the first step that pays, so
            that a return is 0 or 1 (Baumli et al. 2023). `truncated` stays the environment's. None
            does so exactly where the reward is binary.
        observe_goal: Add the embedding of the episode's goal to the observation, a dict, under
            `goal_embedding`, so that one policy can learn many goals.

    Example:
        >>> import gymnasium as gym
        >>> from vlmreward import FakeEncoder, Goal, RewardModel, SoftmaxHead, ThresholdHead
        >>> goal = Goal("a black cart", negative_prompts=["a red cart"])
        >>> head = ThresholdHead(SoftmaxHead(temperature=0.1), threshold=0.5)
        >>> reward_model = RewardModel(FakeEncoder(), goal, head)
        >>> env = VLMReward(gym.make("CartPole-v1", render_mode="rgb_array"), reward_model)
        >>> obs, info = env.reset(seed=0)
        >>> obs, reward, terminated, truncated, info = env.step(0)
        >>> reward, info["vlm_reward"], info["env_reward"]
        (0.0, 0.0, 1.0)

    Raises:
        FrameError: If the observation has no `pixels` and the render mode is not `rgb_array`.
        IndexError: If `goal_index` is out of range.
    """

    def __init__(
        self,
        env: gym.Env[Any, Any],
        reward_model: RewardModel,
        goal_index: int | GoalSource = 0,
        *,
        terminate_on_success: bool | None = None,
        observe_goal: bool = False,
    ) -> None:
        super().__init__(env)
        self._observes_pixels = has_pixels(env.observation_space)
        if not self._observes_pixels:
            require_rgb_array(env.render_mode)
        self.reward_model = reward_model
        self._goals = GoalConditioning(reward_model, goal_index, observe_goal)
        self._stream = RewardStream(reward_model, 1, self._goals.initial(1))
        self._guard = TerminationGuard(reward_model.head, reward_model.timing, terminate_on_success)
        if observe_goal:
            self.observation_space = self._goals.extend_space(env.observation_space)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Any, dict[str, Any]]:
        """Starts an episode, and says in `info["goal_index"]` what it is about."""
        obs, info = self.env.reset(seed=seed, options=options)
        first = self._read(obs) if self._stream.needs_first_frame else None
        self._stream.start([0], first, goal_index=self._goals.choose([obs], [info]))
        return self._shown(obs), {**info, "goal_index": self._goal_index}

    def step(self, action: Any) -> tuple[Any, SupportsFloat, bool, bool, dict[str, Any]]:
        """Steps the environment and pays for the frame that the action led to."""
        obs, env_reward, terminated, truncated, info = self.env.step(action)
        if terminated:
            self._guard.saw_terminated()
        paid = self._stream.step(
            self._read(obs), terminated=[bool(terminated)], truncated=[bool(truncated)]
        )
        reward = float(paid.reward[0])
        info = {
            **info,
            "env_reward": float(env_reward),
            "vlm_reward": reward,
            "vlm_score": float(paid.score[0]),
            "goal_index": self._goal_index,
        }
        if paid.stream is not None:
            info["vlm_stream"] = paid.stream[0]
        success = self._guard.ends_on_success and reward > 0
        return self._shown(obs), reward, terminated or success, truncated, info

    @property
    def _goal_index(self) -> int:
        return int(self._stream.goal_index[0])

    def _shown(self, obs: Any) -> Any:
        return self._goals.add_to_row(obs, self._goal_index)

    def _read(self, obs: Any) -> dict[str, NDArray[Any]]:
        """What the encoder reads, as a batch of one."""
        others = obs if isinstance(obs, dict) else {}
        encoder = self.reward_model.encoder
        read = {key: others[key] for key in encoder.modalities if others.get(key) is not None}
        if not self._observes_pixels:
            read[PIXELS] = render_frame(self.env)
        elif PIXELS not in read and not may_lack(encoder, PIXELS):
            read[PIXELS] = frame_of_obs(obs)
        return {key: np.asarray(value)[None] for key, value in read.items()}
