"""VLM reward for one `dm_env` environment.

Axes: `H W` image, `D` width of the goal's embedding.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import dm_env
import gymnasium as gym
import numpy as np
from dm_env import specs
from numpy.typing import NDArray

from vlmreward.encoders.base import may_lack
from vlmreward.frames import PIXELS, FrameError, check_frames, frame_of_obs, refuse_blank
from vlmreward.goal_source import GoalSource
from vlmreward.guard import TerminationGuard, is_binary
from vlmreward.renderers import prepare_to_draw
from vlmreward.reward_model import RewardModel
from vlmreward.reward_stream import RewardStream
from vlmreward.wrappers.goal_conditioning import GOAL_EMBEDDING, GoalConditioning


class DmEnvVLMReward(dm_env.Environment):  # type: ignore[misc]  # dm_env ships no types
    """Replaces a `dm_env` environment's reward with that of a reward model.

    Every step is paid for the frame that the action led to; a `FIRST` step, which no action led
    to, never is. At `LAST`, discount 0 is a true end (Gymnasium's `terminated`), and any other
    discount a time limit (`truncated`). Where success ends the episode, its last step is `LAST`
    with discount 0, and the next `step` starts a new episode, as after any `LAST`.

    `dm_env` has no info: see `last_info`.

    Args:
        environment: The environment. Its reward is a scalar, and its discount one array.
        reward_model: Pays; its `timing` says when, and from how many frames.
        goal_index: Which of its goals this environment is about, or a `GoalSource` that says so at
            every start; it is shown the observation and an empty info.
        terminate_on_success: End the episode at the first step that pays, so that a return is 0 or
            1 (Baumli et al. 2023). None does so exactly where the reward is binary.
        observe_goal: Add the embedding of the episode's goal to the observation, a mapping, under
            `goal_embedding`, so that one policy can learn many goals.
        render: Draws what `environment` shows now, uint8 RGB `[H, W, 3]`. Needed where the
            observation has no `pixels`; where given, its frames are scored instead of those. For
            dm_control: `lambda env: env.physics.render(96, 96, camera_id=0)`.

    Example:
        >>> from vlmreward import CosineHead, FakeEncoder, Goal, RewardModel
        >>> class Doors(dm_env.Environment):
        ...     def reset(self):
        ...         return dm_env.restart(self._look(0))
        ...     def step(self, action):
        ...         return dm_env.truncation(0.0, self._look(action))
        ...     def observation_spec(self):
        ...         return {"pixels": specs.Array((8, 8, 3), np.uint8)}
        ...     def action_spec(self):
        ...         return specs.DiscreteArray(3)
        ...     def _look(self, channel):
        ...         frame = np.zeros((8, 8, 3), np.uint8)
        ...         frame[..., channel] = 255
        ...         return {"pixels": frame}
        >>> reward_model = RewardModel(FakeEncoder(), Goal("a green room"), CosineHead())
        >>> environment = DmEnvVLMReward(Doors(), reward_model)
        >>> environment.reset().reward is None
        True
        >>> step = environment.step(1)
        >>> float(step.reward), step.discount, environment.last_info["env_reward"]
        (1.0, 1.0, 0.0)

    Raises:
        FrameError: If the observation has no `pixels` and there is no `render`.
        IndexError: If `goal_index` is out of range.
        TypeError: If the discount is several arrays, or if the goal shall be observed and the
            observation is no mapping.
        ValueError: If the observation has a `goal_embedding` already.
    """

    def __init__(
        self,
        environment: dm_env.Environment,
        reward_model: RewardModel,
        goal_index: int | GoalSource = 0,
        *,
        terminate_on_success: bool | None = None,
        observe_goal: bool = False,
        render: Callable[[dm_env.Environment], NDArray[Any]] | None = None,
    ) -> None:
        self.environment = environment
        self.reward_model = reward_model
        self._render = render
        self._observation_spec = environment.observation_spec()
        self._discount_spec = environment.discount_spec()
        if not isinstance(self._discount_spec, specs.Array):
            raise TypeError(f"expected one array as discount, got {self._discount_spec}")
        if render is None and not _has(self._observation_spec, PIXELS):
            raise FrameError(
                f"expected observations with {PIXELS!r}, got {self._observation_spec}: pass "
                "render=lambda env: ..., which returns a frame, or wrap a dm_control environment "
                "in dm_control.suite.wrappers.pixels.Wrapper"
            )
        self._goals = GoalConditioning(reward_model, goal_index, observe_goal)
        self._stream = RewardStream(reward_model, 1, self._goals.initial(1))
        self._guard = TerminationGuard(reward_model.head, reward_model.timing, terminate_on_success)
        if observe_goal:
            self._observation_spec = self._with_goal(self._observation_spec)
        self._ended = True
        self._last_info: dict[str, Any] = {}

    @property
    def last_info(self) -> Mapping[str, Any]:
        """What Gymnasium's info would say of the last step.

        `env_reward`, the environment's own reward, which the learner must not see; `vlm_reward`;
        `vlm_score`, before any threshold, NaN on steps that were not scored; of an
        `EpisodeEncoder`, `vlm_stream`, which of its streams was scored; and `goal_index`, which is
        all there is after a `FIRST` step. Empty before the first episode.
        """
        return dict(self._last_info)

    def reset(self) -> dm_env.TimeStep:
        """Starts an episode."""
        prepare_to_draw(self.environment)  # now, since some draw their own observation
        return self._start(self.environment.reset())

    def step(self, action: Any) -> dm_env.TimeStep:
        """Steps the environment and pays for the frame that the action led to.

        After a `LAST` step, and on a fresh environment, it starts an episode instead.
        """
        if self._ended:
            return self.reset()
        prepare_to_draw(self.environment)
        step = self.environment.step(action)
        if step.first():  # the environment was reset or stepped behind this wrapper's back
            return self._start(step)
        true_end = bool(step.last() and np.all(np.asarray(step.discount) == 0))
        if true_end:
            self._guard.saw_terminated()
        paid = self._stream.step(
            self._read(step.observation),
            terminated=[true_end],
            truncated=[bool(step.last() and not true_end)],
        )
        reward = paid.reward[0]
        self._last_info = {
            "env_reward": float(step.reward),
            "vlm_reward": float(reward),
            "vlm_score": float(paid.score[0]),
            "goal_index": self._goal_index,
        }
        if paid.stream is not None:
            self._last_info["vlm_stream"] = paid.stream[0]
        step = step._replace(reward=reward, observation=self._shown(step.observation))
        if self._guard.ends_on_success and reward > 0:
            nothing = np.zeros(self._discount_spec.shape, self._discount_spec.dtype)[()]
            step = step._replace(step_type=dm_env.StepType.LAST, discount=nothing)
        self._ended = step.last()
        return step

    def reward_spec(self) -> specs.Array:
        """Describes the reward: float32, in [0, 1] where it is binary."""
        if is_binary(self.reward_model.head, self.reward_model.timing):
            return specs.BoundedArray((), np.float32, 0.0, 1.0, name="reward")
        return specs.Array((), np.float32, name="reward")

    def discount_spec(self) -> specs.Array:
        """Describes the discount: the environment's, or 0 where success ends an episode."""
        if not self._guard.ends_on_success:
            return self._discount_spec
        spec = self._discount_spec
        return specs.BoundedArray(spec.shape, spec.dtype, 0.0, 1.0, name=spec.name)

    def observation_spec(self) -> Any:
        """Describes the observation: the environment's, and the goal's embedding if observed."""
        return self._observation_spec

    def action_spec(self) -> Any:
        """Describes the action: the environment's."""
        return self.environment.action_spec()

    def close(self) -> None:
        """Closes the environment."""
        self.environment.close()

    @property
    def _goal_index(self) -> int:
        return int(self._stream.goal_index[0])

    def _start(self, step: dm_env.TimeStep) -> dm_env.TimeStep:
        obs = step.observation
        first = self._read(obs) if self._stream.needs_first_frame else None
        self._stream.start([0], first, goal_index=self._goals.choose([obs], [{}]))
        self._ended = False
        self._last_info = {"goal_index": self._goal_index}
        return step._replace(observation=self._shown(obs))

    def _shown(self, obs: Any) -> Any:
        return self._goals.add_to_row(obs, self._goal_index)

    def _with_goal(self, spec: Any) -> dict[str, Any]:
        if not isinstance(spec, Mapping):
            raise TypeError(
                f"observe_goal needs observations that are mappings, got {spec}: wrap the "
                "environment so that it returns a dict"
            )
        if GOAL_EMBEDDING in spec:
            raise ValueError(f"the observation has an entry {GOAL_EMBEDDING!r} already")
        box = self._goals.extend_space(gym.spaces.Dict({}))[GOAL_EMBEDDING]
        assert isinstance(box, gym.spaces.Box)
        embedding = specs.BoundedArray(box.shape, box.dtype, box.low, box.high, name=GOAL_EMBEDDING)
        return {**spec, GOAL_EMBEDDING: embedding}

    def _read(self, obs: Any) -> dict[str, NDArray[Any]]:
        """What the encoder reads, as a batch of one."""
        encoder = self.reward_model.encoder
        read = {key: obs[key] for key in encoder.modalities if _has(obs, key)}
        if self._render is not None:
            frame = read[PIXELS] = np.asarray(self._render(self.environment))
            check_frames(frame[None])
            refuse_blank(frame)
        elif PIXELS not in read and not may_lack(encoder, PIXELS):
            read[PIXELS] = frame_of_obs(obs)
        return {key: np.asarray(value)[None] for key, value in read.items()}


def _has(obs: Any, key: str) -> bool:
    return isinstance(obs, Mapping) and obs.get(key) is not None
