"""VLM reward for Stable-Baselines3's off-policy algorithms, worked out after the steps it is for.

Axes: `N` environments.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from jaxtyping import Bool, Float
from numpy.typing import NDArray
from stable_baselines3.common.buffers import DictReplayBuffer, ReplayBuffer
from stable_baselines3.common.vec_env import VecEnv, VecNormalize
from stable_baselines3.common.vec_env.base_vec_env import VecEnvObs, VecEnvStepReturn

from vlmreward.goal_source import GoalSource
from vlmreward.reward_model import GoalIndex, RewardModel
from vlmreward.reward_stream import StreamStep
from vlmreward.wrappers.batches import Obs
from vlmreward.wrappers.deferred import DeferredScoring, DeferredStep
from vlmreward.wrappers.sb3 import Infos, VecVLMReward

PENDING = "vlm_pending"
"""The info key of a step's `DeferredStep`, the same in all environments."""


class DeferredVecVLMReward(VecVLMReward):
    """A `VecVLMReward` whose rewards are there when an off-policy learner samples them.

    Frames are collected, encoded `batch_size` at a time while the environments go on (see
    `DeferredScoring`), and paid as `VecVLMReward` would have paid them. Give the learner a replay
    buffer that fills rewards in, `DeferredDictReplayBuffer`, or `DeferredReplayBuffer` where
    observations are no dict:

    =====================  ====================================================================
    a reward is NaN        in what `step` returns, and in the buffer until it is known
    `info["vlm_score"]`    is NaN always; `env_reward` and `goal_index` are there at once
    a gradient step        waits for the rewards that it has sampled, and for earlier ones
    the end of an episode  waits for all, so that `episode` and `env_episode_return` are right
    =====================  ====================================================================

    Args:
        venv: See `VecVLMReward`.
        reward_model: Pays. On a CPU its encoder works in another thread: a `CachedEncoder`, which
            is for one thread, must not be shared with a second wrapper.
        goal_index: See `VecVLMReward`.
        batch_size: How many frames make a batch.
        terminate_on_success: False, or None where the reward is not binary: success cannot end an
            episode before it is known.
        observe_goal: See `VecVLMReward`.

    Raises:
        FrameError: If the observation has no `pixels`.
        ValueError: If success would end episodes, if `venv` is wrapped already, or if the batch
            size is not positive.

    Example:
        >>> import gymnasium as gym
        >>> from gymnasium.wrappers import AddRenderObservation
        >>> from stable_baselines3 import SAC
        >>> from stable_baselines3.common.vec_env import DummyVecEnv, VecExtractDictObs
        >>> from vlmreward import CosineHead, FakeEncoder, Goal
        >>> def make_env():
        ...     env = gym.make("MountainCarContinuous-v0", render_mode="rgb_array")
        ...     return AddRenderObservation(env, render_only=False)
        >>> reward_model = RewardModel(FakeEncoder(), Goal("a black room"), CosineHead())
        >>> venv = DeferredVecVLMReward(DummyVecEnv([make_env]), reward_model)
        >>> venv = VecExtractDictObs(venv, "state")  # the policy sees the state, the reward frames
        >>> agent = SAC(
        ...     "MlpPolicy", venv, learning_starts=20, train_freq=4, buffer_size=100,
        ...     replay_buffer_class=DeferredReplayBuffer, device="cpu",
        ... )
        >>> agent = agent.learn(30)
        >>> agent.replay_buffer.settle()
        >>> bool(np.isfinite(agent.replay_buffer.rewards[:30]).all())
        True
    """

    def __init__(
        self,
        venv: VecEnv,
        reward_model: RewardModel,
        goal_index: GoalIndex | GoalSource = 0,
        *,
        batch_size: int = 64,
        terminate_on_success: bool | None = None,
        observe_goal: bool = False,
    ) -> None:
        super().__init__(
            venv,
            reward_model,
            goal_index,
            terminate_on_success=terminate_on_success,
            observe_goal=observe_goal,
        )
        if self._guard.ends_on_success:
            raise ValueError(
                "success ends episodes, which needs every reward at once, and here rewards come "
                "later: pass terminate_on_success=False, or use VecVLMReward"
            )
        self._scoring = DeferredScoring(self._stream, batch_size)
        self._pending: DeferredStep | None = None
        self._is_used = False

    def reset(self) -> VecEnvObs:
        """Pays for what is pending, and starts an episode everywhere."""
        self._scoring.settle()
        return super().reset()

    def step_wait(self) -> VecEnvStepReturn:
        """Steps, and leaves the rewards for later."""
        self._check_that_rewards_are_taken()
        return super().step_wait()

    def close(self) -> None:
        """Gives up rewards that nobody has asked for, and closes the environments."""
        self._scoring.close()
        super().close()

    def _check_that_rewards_are_taken(self) -> None:
        if self._pending is None or self._is_used:
            return
        self._is_used = self._pending.is_taken
        if not self._is_used:
            raise RuntimeError(
                "nobody took the reward of the last step, which comes later: pass an off-policy "
                "algorithm replay_buffer_class=DeferredDictReplayBuffer, or DeferredReplayBuffer "
                "where observations are no dict. On-policy algorithms and evaluation need each "
                "reward at once: use VecVLMReward"
            )

    def _pay(self, led_to: Obs, **step: Any) -> StreamStep:
        planned = self._stream.planner.plan(led_to, **step)
        self._pending = self._scoring.add(planned, self._earn)
        unknown = np.full(self.num_envs, np.nan, dtype=np.float32)
        return StreamStep(unknown, unknown.copy(), None, None)

    def _earn(self, paid: StreamStep) -> None:
        self._returns += paid.reward

    def _count(
        self,
        rewards: Float[NDArray[Any], " N"],
        env_rewards: Float[NDArray[Any], " N"],
        dones: Bool[NDArray[Any], " N"],
        infos: Infos,
    ) -> None:
        if dones.any():
            self._scoring.settle()
        super()._count(np.zeros_like(rewards), env_rewards, dones, infos)
        for info in infos:
            info[PENDING] = self._pending


class _Deferred(ReplayBuffer):
    """Fills in rewards before they are sampled."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._pending: dict[int, DeferredStep] = {}  # by position, in the order of the steps

    def add(  # noqa: PLR0917 (SB3's signature)
        self,
        obs: Any,
        next_obs: Any,
        action: NDArray[Any],
        reward: NDArray[Any],
        done: NDArray[Any],
        infos: list[dict[str, Any]],
    ) -> None:
        """Adds a transition, whose reward may come later.

        Raises:
            ValueError: If the rewards are not those of a `DeferredVecVLMReward`.
        """
        pending = infos[0].get(PENDING)
        if pending is None:
            raise ValueError(
                f"{type(self).__name__} fills in the rewards of a DeferredVecVLMReward, got steps "
                "of another environment: leave replay_buffer_class out"
            )
        position = self.pos
        super().add(obs, next_obs, action, reward, done, infos)
        pending.is_taken = True
        self._pending.pop(position, None)  # overwritten before anybody sampled it
        self._pending[position] = pending
        self._fill_in()

    def settle(self) -> None:
        """Waits for all rewards and fills them in."""
        for pending in self._pending.values():
            pending.result()
        self._fill_in()

    def _get_samples(self, batch_inds: NDArray[Any], env: VecNormalize | None = None) -> Any:
        if env is not None and env.norm_reward and env.training:
            raise ValueError(
                "VecNormalize cannot follow rewards that come later: pass norm_reward=False, or "
                "freeze it (training=False) with statistics of an earlier run"
            )
        for position in self._pending.keys() & set(batch_inds.tolist()):
            self._pending[position].result()
        self._fill_in()
        return super()._get_samples(batch_inds, env)

    def _fill_in(self) -> None:
        while self._pending:
            position, pending = next(iter(self._pending.items()))
            if not pending.is_paid:
                return
            self.rewards[position] = pending.result().reward
            del self._pending[position]

    def __getstate__(self) -> dict[str, Any]:
        self.settle()
        return self.__dict__


class DeferredReplayBuffer(_Deferred):
    """SB3's `ReplayBuffer`, with the rewards of a `DeferredVecVLMReward`.

    `rewards` are NaN until they are known. Sampling waits for those that it needs; `settle`, and
    saving the buffer, wait for all.
    """


class DeferredDictReplayBuffer(_Deferred, DictReplayBuffer):
    """The same for dict observations."""
