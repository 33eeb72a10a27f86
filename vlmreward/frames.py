"""Frames: what counts as one, and where to get the right one.

Axes: `B` batch, `H` height, `W` width in pixels, 3 channels in the order red, green, blue. Frames
are uint8 (0-255) and channels-last until they are on the encoder's device.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any, TypeAlias

import gymnasium as gym
import numpy as np
import torch
from jaxtyping import UInt8
from numpy.typing import NDArray

from vlmreward.renderers import FrameError, prepare_to_draw, repair

__all__ = [
    "PIXELS",
    "FrameError",
    "Frames",
    "check_frames",
    "frame_of_obs",
    "has_pixels",
    "refuse_blank",
    "render_frame",
    "require_pixels",
    "require_rgb_array",
    "to_tensor",
]

PIXELS = "pixels"
"""The observation key under which frames are found."""

Frames: TypeAlias = NDArray[Any] | torch.Tensor
"""A batch of frames, on whichever side: `[B, H, W, 3]` uint8."""

_ADD_PIXELS = (
    "wrap the environment in gymnasium.wrappers.AddRenderObservation(env, render_only=False), "
    f"which adds {PIXELS!r} to its observation"
)


def check_frames(frames: object) -> Frames:
    """Returns a batch of frames unchanged, or says why it is none.

    Args:
        frames: Expected: a NumPy array or a tensor `[B, H, W, 3]` of dtype uint8, no axis empty.

    Raises:
        FrameError: If the type, dtype, rank, number of channels or a size is another.
    """
    if not isinstance(frames, np.ndarray | torch.Tensor):
        raise FrameError(
            f"expected frames as a NumPy array or a torch tensor, got {type(frames).__name__}"
        )
    shape = tuple(frames.shape)
    _check_dtype(frames)
    if len(shape) != 4:
        remedy = "add the batch axis with frames[None]" if len(shape) == 3 else "stack frames first"
        raise FrameError(f"expected frames of shape [B, H, W, 3], got {list(shape)}: {remedy}")
    if 0 in shape:
        raise FrameError(f"expected at least one frame, none of size zero, got shape {list(shape)}")
    if shape[-1] != 3:
        raise FrameError(
            f"expected 3 channels (RGB) on the last axis, got shape {list(shape)}: "
            + _channel_remedy(shape)
        )
    return frames


def _check_dtype(frames: Frames) -> None:
    if frames.dtype in (np.uint8, torch.uint8):
        return
    remedy = "convert it to bytes first"
    if isinstance(frames, np.ndarray):
        floating = np.issubdtype(frames.dtype, np.floating)
        has_nan = floating and bool(np.isnan(frames).any())
    else:
        floating = frames.is_floating_point()
        has_nan = floating and bool(frames.isnan().any())
    if has_nan:
        remedy = "it also contains NaN, so look at what drew it before converting"
    elif floating:
        remedy = "if its range is [0, 1], pass (255 * frames).round().astype('uint8')"
    raise FrameError(f"expected uint8 frames (0-255), got dtype {frames.dtype}: {remedy}")


def _channel_remedy(shape: tuple[int, ...]) -> str:
    if shape[1] == 3:
        return "this looks channels-first, move the axis with frames.transpose(0, 2, 3, 1)"
    if shape[-1] == 1:
        return "this looks grey, repeat the channel with frames.repeat(3, axis=-1)"
    if shape[-1] == 4:
        return "this looks like RGBA, drop the last channel with frames[..., :3]"
    return "pass RGB frames"


def to_tensor(frames: Frames, device: torch.device) -> UInt8[torch.Tensor, "B H W 3"]:
    """Checks frames and brings them to a device, still as bytes.

    Raises:
        FrameError: See `check_frames`.
    """
    frames = check_frames(frames)
    if isinstance(frames, np.ndarray):
        # from_numpy wants positive strides and a writable buffer; views of either kind are copied.
        frames = torch.from_numpy(np.require(frames, requirements=["C", "W"]))
    if device.type == "cuda" and frames.device.type == "cpu":
        frames = frames.pin_memory()
    return frames.to(device, non_blocking=True)


def has_pixels(space: gym.Space[Any]) -> bool:
    """Tells whether observations of a space carry frames under `pixels`."""
    return isinstance(space, gym.spaces.Dict) and PIXELS in space.spaces


def require_pixels(space: gym.Space[Any]) -> None:
    """Refuses an observation space without `pixels`.

    Raises:
        FrameError: If the space is no dict, or has no entry `pixels`.
    """
    if not has_pixels(space):
        keys = list(space.spaces) if isinstance(space, gym.spaces.Dict) else space
        raise FrameError(f"expected observations with {PIXELS!r}, got {keys}: {_ADD_PIXELS}")


def require_rgb_array(render_mode: str | None) -> None:
    """Refuses a render mode that does not return a picture.

    Raises:
        FrameError: If the mode is not `rgb_array`.
    """
    if render_mode != "rgb_array":
        raise FrameError(
            f"expected render_mode 'rgb_array', got {render_mode!r}: make the environment with "
            f"gymnasium.make(..., render_mode='rgb_array'), or {_ADD_PIXELS}"
        )


def frame_of_obs(obs: Mapping[str, Any]) -> NDArray[Any]:
    """Takes the frame out of one environment's observation, as `[H, W, 3]`.

    Raises:
        FrameError: If there is none.
    """
    if obs.get(PIXELS) is None:
        given = sorted(key for key in obs if obs[key] is not None)
        raise FrameError(
            f"expected an observation with {PIXELS!r}, got keys {given}: {_ADD_PIXELS}"
        )
    return np.asarray(obs[PIXELS])


def render_frame(
    env: gym.Env[Any, Any], *, skip_remedies: Collection[str] = ()
) -> UInt8[NDArray[Any], "H W 3"]:
    """Renders what an environment shows now.

    This is the one way by which frames are drawn: what is known of a renderer's defects is put
    right (`vlmreward.renderers`), and what cannot be is refused.

    Args:
        env: The environment.
        skip_remedies: Names of remedies not to apply.

    Raises:
        FrameError: If the environment does not render RGB arrays, if the frame is blank, or if the
            renderer is known to draw it wrong.
    """
    require_rgb_array(env.render_mode)
    prepare_to_draw(env.unwrapped, skip_remedies)
    frame = np.asarray(env.render())
    check_frames(frame[None])
    refuse_blank(frame)
    return repair(env.unwrapped, frame, skip_remedies)


def refuse_blank(frame: UInt8[NDArray[Any], "H W 3"]) -> None:
    """Refuses a frame of one flat colour.

    A renderer that has lost its graphics context draws one and reports no error, and a reward
    model would score it all the same.

    Raises:
        FrameError: If all values are the same.
    """
    if frame.min() == frame.max():
        raise FrameError(
            f"the renderer returned a blank frame (every value is {frame.min()}). Another "
            "environment of this process may hold its graphics context: draw in one process per "
            "environment, or make the context current before rendering"
        )
