"""The monitor of a reward, fed by Stable-Baselines3."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.vec_env import VecEnvWrapper

from vlmreward.guard import is_binary
from vlmreward.monitor import RewardMonitor, SecondOpinion
from vlmreward.wrappers.sb3 import VecVLMReward
from vlmreward.wrappers.sb3_deferred import DeferredVecVLMReward


def achieved_in_info(info: Mapping[str, Any]) -> bool:
    """Says whether a step reached its goal: `success` if the info has it, else a positive reward.

    An environment that pays for every step, as CartPole does, says nothing by being positive: give
    `RewardMonitorCallback` a function of your own, or None.

    Example:
        >>> achieved_in_info({"success": False, "env_reward": 0.5})
        False
        >>> achieved_in_info({"env_reward": 0.5})
        True
    """
    return bool(info["success"] if "success" in info else info["env_reward"] > 0)


class RewardMonitorCallback(BaseCallback):
    """Feeds a `RewardMonitor` while an agent learns in a `VecVLMReward`, and logs what it finds.

    Written beside the algorithm's own metrics: `vlm_reward/false_positive_rate`,
    `vlm_reward/disagreement`, and `vlm_reward/alarm`, how many of the monitor's checks alarmed at
    their last look. Everything else is in `monitor.report()`.

    Args:
        monitor: Made for as many environments as there are.
        second_opinion: Asked about a sample of the paid frames.
        achieved: Says from an info whether the frame shows the goal in truth; it may return None
            where that is unknown. None if there is no ground truth: then returns are not compared
            either.
        stop_on_alarm: Stop training at the first alarm.

    Raises:
        ValueError: When training starts, if there is no `VecVLMReward` or a deferred one, if the
            number of environments differs, if a check needs a reward of 0 or 1 and the reward is
            another, or if the monitor was given a limit that nothing feeds.

    Example:
        >>> from stable_baselines3 import PPO
        >>> from stable_baselines3.common.vec_env import DummyVecEnv
        >>> import gymnasium as gym
        >>> from gymnasium.wrappers import AddRenderObservation
        >>> from vlmreward import FakeEncoder, Goal, RewardModel, SoftmaxHead, ThresholdHead
        >>> def make_env():
        ...     env = gym.make("CartPole-v1", render_mode="rgb_array")
        ...     return AddRenderObservation(env, render_only=False)
        >>> head = ThresholdHead(SoftmaxHead(temperature=0.1), threshold=0.5)
        >>> goal = Goal("a black room", negative_prompts=["a white room"])
        >>> venv = VecVLMReward(
        ...     DummyVecEnv([make_env]), RewardModel(FakeEncoder(), goal, head), observe="embedding"
        ... )
        >>> monitor = RewardMonitor(1, calibrated_rate=0.01, look_every=8)
        >>> callback = RewardMonitorCallback(monitor, achieved=lambda info: False)
        >>> agent = PPO("MultiInputPolicy", venv, n_steps=8, batch_size=8, device="cpu")
        >>> agent = agent.learn(8, callback=callback)
        >>> monitor.report().false_positives.rate
        0.0
    """

    def __init__(
        self,
        monitor: RewardMonitor,
        second_opinion: SecondOpinion | None = None,
        *,
        achieved: Callable[[Mapping[str, Any]], bool | None] | None = achieved_in_info,
        stop_on_alarm: bool = False,
    ) -> None:
        super().__init__()
        self.monitor = monitor
        self.second_opinion = second_opinion
        self.stop_on_alarm = stop_on_alarm
        self._achieved = achieved
        self._venv: VecVLMReward | None = None

    def _on_training_start(self) -> None:
        venv: Any = self.training_env
        while isinstance(venv, VecEnvWrapper) and not isinstance(venv, VecVLMReward):
            venv = venv.venv
        if not isinstance(venv, VecVLMReward):
            raise ValueError(
                f"expected an agent that learns in a VecVLMReward, got {type(venv).__name__}"
            )
        if isinstance(venv, DeferredVecVLMReward):
            raise ValueError(
                "the monitor looks at every reward as it is paid, and those of a "
                "DeferredVecVLMReward come later: use VecVLMReward"
            )
        if venv.num_envs != self.monitor.num_envs:
            raise ValueError(
                f"expected a monitor of {venv.num_envs} environments, got one of "
                f"{self.monitor.num_envs}"
            )
        model = venv.reward_model
        reads_success = self.monitor.watches_false_positives or self.monitor.watches_disagreement
        if reads_success and not is_binary(model.head, model.timing):
            raise ValueError(
                f"{type(model.head).__name__} pays no 0 or 1, so nothing is a false positive or a "
                "disagreement: leave calibrated_rate and max_disagreement out of the monitor"
            )
        if self.monitor.watches_false_positives and self._achieved is None:
            raise ValueError("the monitor has a calibrated_rate, but there is no ground truth")
        if self.monitor.watches_disagreement != (self.second_opinion is not None):
            raise ValueError("give both max_disagreement and a second_opinion, or neither")
        self._venv = venv

    def _on_step(self) -> bool:
        venv, infos = self._venv, self.locals["infos"]
        assert venv is not None  # set when training started
        assert venv.paid is not None
        assert venv.led_to is not None
        step: dict[str, Any] = {}
        if self._achieved is not None:
            step["achieved"] = [self._achieved(info) for info in infos]
            step["env_reward"] = np.array([info["env_reward"] for info in infos])
        if self.second_opinion is not None:
            # Of the episode that was paid: another may have started since.
            goal_index = np.array([info["goal_index"] for info in infos])
            step["second_reward"] = self.second_opinion(
                venv.led_to, venv.paid.reward > 0, goal_index
            )
        self.monitor.update(
            venv.paid.reward,
            np.asarray(self.locals["dones"], dtype=bool),
            scored=~np.isnan(venv.paid.score),
            **step,
        )
        return not (self.stop_on_alarm and self.monitor.report().alarms)

    def _on_rollout_end(self) -> None:
        report = self.monitor.report()
        if report.false_positives is not None:
            self.logger.record("vlm_reward/false_positive_rate", report.false_positives.rate)
        if report.disagreement is not None:
            self.logger.record("vlm_reward/disagreement", report.disagreement.rate)
        self.logger.record("vlm_reward/alarm", len(report.alarms))
