"""VLM reward for one Gymnasium environment."""

from __future__ import annotations

from typing import Any, SupportsFloat, TypeVar

import gymnasium as gym
from numpy.typing import NDArray

from vlmreward.frames import frame_of_obs, has_pixels, render_frame, require_rgb_array
from vlmreward.reward_model import RewardModel

ObsType = TypeVar("ObsType")
ActType = TypeVar("ActType")


class VLMReward(gym.Wrapper[ObsType, ActType, ObsType, ActType]):
    """Replaces an environment's reward with that of a reward model.

    Every step is paid for the frame that the action led to: `obs["pixels"]` where the observation
    has it, else what the environment renders. `vlmreward.wrappers.sb3.VecVLMReward` does the same
    for many environments in one forward pass.

    `info` gains `env_reward`, the environment's own reward, which the learner must not see;
    `vlm_reward`; and `vlm_score`, before the threshold. Everything else in it is kept.

    Args:
        env: The environment.
        reward_model: Pays, from `pixels` alone.
        goal_index: Which of its goals this environment is about.
        terminate_on_success: End the episode, as `terminated`, at the first step that pays, so
            that a return is 0 or 1 (Baumli et al. 2023). `truncated` stays the environment's.

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
        env: gym.Env[ObsType, ActType],
        reward_model: RewardModel,
        goal_index: int = 0,
        *,
        terminate_on_success: bool = True,
    ) -> None:
        super().__init__(env)
        self._observes_pixels = has_pixels(env.observation_space)
        if not self._observes_pixels:
            require_rgb_array(env.render_mode)
        self.reward_model = reward_model
        self.goal_index = int(reward_model.check_goal_index(goal_index, 1)[0])
        self.terminate_on_success = terminate_on_success

    def step(self, action: ActType) -> tuple[ObsType, SupportsFloat, bool, bool, dict[str, Any]]:
        """Steps the environment and pays for the frame that the action led to."""
        obs, env_reward, terminated, truncated, info = self.env.step(action)
        scores = self.reward_model.score(self._frame(obs)[None], self.goal_index)
        reward = float(scores.reward[0])
        info = {
            **info,
            "env_reward": float(env_reward),
            "vlm_reward": reward,
            "vlm_score": float(scores.score[0]),
        }
        success = self.terminate_on_success and reward > 0
        return obs, reward, terminated or success, truncated, info

    def _frame(self, obs: Any) -> NDArray[Any]:
        return frame_of_obs(obs) if self._observes_pixels else render_frame(self.env)
