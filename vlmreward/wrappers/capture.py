"""Adds the right frame to what one Gymnasium environment observes."""

from __future__ import annotations

from typing import Any, SupportsFloat, TypeVar

import gymnasium as gym
import numpy as np
from numpy.typing import NDArray

from vlmreward.capture import FrameCapture
from vlmreward.frames import (
    PIXELS,
    FrameError,
    check_frames,
    refuse_blank,
    render_frame,
    require_rgb_array,
)
from vlmreward.renderers import draw_at, draw_fast, prepare_to_draw, remedies_for, repair

ActType = TypeVar("ActType")

STATE = "state"
"""The observation key of an environment's own observation, where that is no dict."""


class CaptureFrames(gym.Wrapper[Any, ActType, Any, ActType], gym.utils.RecordConstructorArgs):
    """Adds the captured frame to an environment's observation, as `pixels`.

    Entries of a dict observation keep their names beside it; any other observation goes under
    `state`. An entry that is itself the picture (MiniWoB's `screenshot`) is replaced by it.

    The frame is small before it leaves: wrap inside the function that is given to `AsyncVectorEnv`
    or `SubprocVecEnv`, and no full-size frame goes through a pipe.

    Args:
        env: The environment, not yet drawn.
        capture: What to do to its frames.
        key: Under which key.

    Example:
        >>> import gymnasium as gym
        >>> from vlmreward.capture import FrameCapture
        >>> env = gym.make("CartPole-v1", render_mode="rgb_array")
        >>> env = CaptureFrames(env, FrameCapture(size=(64, 64), crop=(0, 400, 100, 500)))
        >>> obs, info = env.reset(seed=0)
        >>> obs["pixels"].shape, obs["state"].shape
        ((64, 64, 3), (4,))

    Raises:
        FrameError: If the render mode is not `rgb_array`, if the observation has an entry of that
            name, or if `fast` is asked of an environment that cannot.
    """

    def __init__(
        self, env: gym.Env[Any, ActType], capture: FrameCapture, key: str = PIXELS
    ) -> None:
        gym.utils.RecordConstructorArgs.__init__(self, capture=capture, key=key)
        super().__init__(env)
        self.capture = capture
        self.key = key
        self._skip = capture.skip_remedies
        inner = env.unwrapped
        sources = [r.obs_key for r in remedies_for(inner, self._skip) if r.obs_key is not None]
        self._source = sources[0] if sources else None
        if self._source is None:
            require_rgb_array(env.render_mode)
        self.observation_space = self._space(env.observation_space)
        if capture.fast:
            draw_fast(inner)
        self._drawn_at_size = capture.draw_size is not None and draw_at(inner, capture.draw_size)
        self._last_frame: NDArray[Any] | None = None

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        """Starts an episode and captures its first frame."""
        obs, info = self.env.reset(seed=seed, options=options)
        self._last_frame = None
        return self._observe(obs, ended=False), info

    def step(
        self, action: ActType
    ) -> tuple[dict[str, Any], SupportsFloat, bool, bool, dict[str, Any]]:
        """Steps the environment and captures the frame that the action led to."""
        # Some environments draw their own observation as well.
        prepare_to_draw(self.unwrapped, self._skip)
        obs, reward, terminated, truncated, info = self.env.step(action)
        obs_with_frame = self._observe(obs, ended=terminated or truncated)
        return obs_with_frame, reward, terminated, truncated, info

    def render(self) -> Any:
        """Renders as the environment does, with its renderer's defects put right, uncut."""
        if self._source is not None:
            return self.env.render()
        return render_frame(self.env, skip_remedies=self._skip)

    def config(self) -> dict[str, Any]:
        """Returns, as JSON types, all that decides what the frames look like.

        `drawn_at_size` tells whether the renderer drew them at their size; otherwise they were
        resized.
        """
        return {
            "capture": self.capture.config(),
            "key": self.key,
            "remedies": [remedy.name for remedy in remedies_for(self.unwrapped, self._skip)],
            "drawn_at_size": self._drawn_at_size,
        }

    def _space(self, space: gym.Space[Any]) -> gym.spaces.Dict:
        rest = dict(space.spaces) if isinstance(space, gym.spaces.Dict) else {STATE: space}
        if self._source is not None:
            del rest[self._source]
        if self.key in rest:
            raise FrameError(
                f"expected an observation without {self.key!r}, got {sorted(rest)}: this "
                "environment brings frames of its own, or was wrapped twice; choose another key"
            )
        pixels = gym.spaces.Box(0, 255, (*self.capture.size, 3), np.uint8)
        return gym.spaces.Dict({self.key: pixels, **rest})

    def _observe(self, obs: Any, *, ended: bool) -> dict[str, Any]:
        rest = (
            dict(obs) if isinstance(self.env.observation_space, gym.spaces.Dict) else {STATE: obs}
        )
        if self._source is None:
            frame = render_frame(self.env, skip_remedies=self._skip)
            return {self.key: self.capture(frame), **rest}
        return {self.key: self._frame_of_source(rest.pop(self._source), ended=ended), **rest}

    def _frame_of_source(self, picture: Any, *, ended: bool) -> NDArray[Any]:
        """Captures the picture in an observation, or the last one where an episode ends on none."""
        frame = np.asarray(picture)
        check_frames(frame[None])
        if ended and not frame.any() and self._last_frame is not None:
            return self._last_frame.copy()
        refuse_blank(frame)
        self._last_frame = self.capture(repair(self.unwrapped, frame, self._skip))
        return self._last_frame.copy()
