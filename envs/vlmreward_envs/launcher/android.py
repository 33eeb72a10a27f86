"""The Launcher with AndroidEnv's own interface, and gestures for either.

What is written for this environment runs on a real phone in AndroidEnv (Toyama et al. 2021), whose
specs are the same. It needs ``dm_env``.
"""

from collections.abc import Mapping, Sequence
from typing import Any, SupportsInt

import dm_env
import numpy as np
import torch
from dm_env import specs
from numpy.typing import NDArray

from vlmreward_envs.launcher.dynamics import ActionType, LauncherConfig
from vlmreward_envs.launcher.gestures import TOUCHES, Gesture, positions
from vlmreward_envs.launcher.layout import SCREEN_SIZE
from vlmreward_envs.launcher.phones import TouchedPhones

_STEP_MICROSECONDS = 50_000
_PORTRAIT = np.array([1, 0, 0, 0], np.uint8)
Observation = dict[str, NDArray[Any]]


class LauncherAndroidEnv(dm_env.Environment):  # type: ignore[misc]  # dm_env ships no types
    """One phone, touched as AndroidEnv's is.

    Observations are ``pixels``, uint8 (96, 96, 3); ``timedelta``, microseconds since the last one,
    0 at the start of an episode; and ``orientation``, one-hot, always upright. An action is a dict
    of ``action_type`` (touch 0, lift 1, repeat 2) and ``touch_position``, (x, y) from 0 to 1. The
    reward is the ground truth, as in :class:`~vlmreward_envs.launcher.env.LauncherEnv`.

    Args:
        goals: Goal sentences; each episode draws one. The ten common ones if ``None``.
        seed: Of the phones, the goals and the pop-ups.
        config: Pages, apps, folders, pop-ups.
        max_episode_steps: Steps after which an episode is cut, with discount 1; a tap takes three
            where it comes from :class:`GestureActions`.
        terminate_on_success: End an episode, with discount 0, where the goal is true.

    Example:
        >>> environment = LauncherAndroidEnv("the Mail app is open")
        >>> step = environment.reset()
        >>> touch = {"action_type": np.array(0), "touch_position": np.array([0.5, 0.5])}
        >>> int(environment.step(touch).observation["timedelta"])
        50000
    """

    def __init__(
        self,
        goals: str | Sequence[str] | None = None,
        *,
        seed: int = 0,
        config: LauncherConfig | None = None,
        max_episode_steps: int = 45,
        terminate_on_success: bool = False,
    ) -> None:
        self.phones = TouchedPhones(
            1,
            goals,
            config=config,
            max_episode_steps=max_episode_steps,
            terminate_on_success=terminate_on_success,
        )
        self._next_seed: torch.Tensor | None = torch.tensor([seed])
        self._ended = True

    @property
    def goal(self) -> str:
        """The goal of this episode."""
        return self.phones.goals[int(self.phones.goal_index)]

    def reset(self) -> dm_env.TimeStep:
        """Start an episode."""
        self.phones.reset(self._next_seed)
        self._next_seed = None  # from here on, the stream's next episode
        self._ended = False
        return dm_env.restart(self._observe(0))

    def step(self, action: Mapping[str, Any]) -> dm_env.TimeStep:
        """Let the finger do one thing; after a ``LAST`` step, start an episode instead.

        Raises:
            ValueError: An action that the spec does not have.
        """
        if self._ended:
            return self.reset()
        row = _checked(action)
        result = self.phones.step(row)
        reward, obs = float(result.env_reward), self._observe(_STEP_MICROSECONDS)
        self._ended = bool(result.terminated | result.truncated)
        if bool(result.terminated):
            return dm_env.termination(reward, obs)
        if bool(result.truncated):
            return dm_env.truncation(reward, obs)
        return dm_env.transition(reward, obs)

    def observation_spec(self) -> dict[str, specs.Array]:
        """Describe observations, as AndroidEnv does."""
        shape = (SCREEN_SIZE, SCREEN_SIZE, 3)
        return {
            "pixels": specs.BoundedArray(shape, np.uint8, 0, 255, name="pixels"),
            "timedelta": specs.Array((), np.int64, name="timedelta"),
            "orientation": specs.BoundedArray((4,), np.uint8, 0, 1, name="orientation"),
        }

    def action_spec(self) -> dict[str, specs.Array]:
        """Describe actions, as AndroidEnv does for one finger."""
        return {
            "action_type": specs.DiscreteArray(len(ActionType), name="action_type"),
            "touch_position": specs.BoundedArray(
                (2,), np.float32, [0.0, 0.0], [1.0, 1.0], name="touch_position"
            ),
        }

    def _observe(self, microseconds: int) -> Observation:
        return {
            "pixels": self.phones.render()[0].numpy(),
            "timedelta": np.array(microseconds, np.int64),
            "orientation": _PORTRAIT.copy(),
        }


class GestureActions(dm_env.Environment):  # type: ignore[misc]
    """Makes taps and swipes the actions of an environment with AndroidEnv's action spec.

    A gesture is three steps of the environment, less where the episode ends. Its reward is their
    sum, its discount their product, its ``timedelta`` their sum, and the rest of what is observed
    that of the last.

    Args:
        environment: The Launcher, or an AndroidEnv.

    Raises:
        ValueError: If its actions are not those of one finger.
    """

    def __init__(self, environment: dm_env.Environment) -> None:
        spec = environment.action_spec()
        if not isinstance(spec, Mapping) or set(spec) != {"action_type", "touch_position"}:
            raise ValueError(
                f"got the action spec {spec}, expected action_type and touch_position alone: one "
                "finger and no keys"
            )
        self.environment = environment
        self._ended = True

    def reset(self) -> dm_env.TimeStep:
        """Start an episode."""
        self._ended = False
        return self.environment.reset()

    def step(self, action: SupportsInt) -> dm_env.TimeStep:
        """Make one gesture; after a ``LAST`` step, start an episode instead.

        Raises:
            ValueError: A number that is no gesture.
        """
        if self._ended:
            return self.reset()
        gesture = Gesture(int(action))
        reward, discount, microseconds = 0.0, 1.0, 0
        for action_type, position in zip(TOUCHES, positions(torch.tensor([gesture])), strict=True):
            step = self.environment.step(
                {
                    "action_type": np.array(int(action_type), np.int32),
                    "touch_position": position[0].numpy(),
                }
            )
            reward += step.reward
            discount *= step.discount
            microseconds += int(step.observation["timedelta"])
            if step.last():
                break
        self._ended = step.last()
        obs = {**step.observation, "timedelta": np.array(microseconds, np.int64)}
        return step._replace(reward=reward, discount=discount, observation=obs)

    def observation_spec(self) -> Any:
        """Describe observations: the environment's."""
        return self.environment.observation_spec()

    def action_spec(self) -> specs.DiscreteArray:
        """Describe actions: the number of a gesture."""
        return specs.DiscreteArray(len(Gesture), name="gesture")

    def close(self) -> None:
        """Close the environment."""
        self.environment.close()


def _checked(action: Mapping[str, Any]) -> torch.Tensor:
    try:
        kind = int(ActionType(int(action["action_type"])))
        position = np.asarray(action["touch_position"], np.float64)
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(
            f"got the action {action}, expected action_type 0 (touch), 1 (lift) or 2 (repeat) and "
            "a touch_position"
        ) from error
    if position.shape != (2,) or not ((position >= 0) & (position <= 1)).all():
        raise ValueError(
            f"got touch_position {action['touch_position']}, expected x and y from 0 to 1"
        )
    return torch.tensor([[kind, *position.tolist()]])
