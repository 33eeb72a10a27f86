import gymnasium as gym
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from vlmreward.frames import (
    FrameError,
    check_frames,
    frame_of_obs,
    render_frame,
    require_pixels,
    require_rgb_array,
    to_tensor,
)


class Renderer(gym.Env):
    """Renders whatever it was given."""

    def __init__(self, frame, render_mode="rgb_array"):
        self.frame = frame
        self.render_mode = render_mode

    def render(self):
        return self.frame


@pytest.mark.parametrize("make", [np.zeros, torch.zeros])
def test_frames_pass_unchanged(make):
    dtype = np.uint8 if make is np.zeros else torch.uint8
    frames = make((2, 4, 5, 3), dtype=dtype)
    assert check_frames(frames) is frames


@pytest.mark.parametrize(
    ("frames", "message"),
    [
        ([[1, 2], [3, 4]], "got list"),
        (np.zeros((4, 5, 3), np.uint8), r"got \[4, 5, 3\]: add the batch axis"),
        (np.zeros((1, 1, 4, 5, 3), np.uint8), r"got \[1, 1, 4, 5, 3\]"),
        (np.zeros((0, 4, 5, 3), np.uint8), "size zero"),
        (np.zeros((1, 0, 5, 3), np.uint8), "size zero"),
        (np.zeros((2, 3, 4, 5), np.uint8), "looks channels-first"),
        (np.zeros((2, 4, 5, 1), np.uint8), "looks grey"),
        (np.zeros((2, 4, 5, 4), np.uint8), "looks like RGBA"),
        (np.zeros((2, 4, 5, 2), np.uint8), "expected 3 channels"),
        (np.zeros((1, 4, 5, 3), np.float32), r"got dtype float32: if its range is \[0, 1\]"),
        (np.full((1, 4, 5, 3), np.nan), "contains NaN"),
        (np.zeros((1, 4, 5, 3), np.int64), "got dtype int64"),
        (torch.full((1, 4, 5, 3), torch.nan), "contains NaN"),
        (torch.zeros((1, 4, 5, 3)), "got dtype torch.float32"),
    ],
)
def test_what_is_no_batch_of_frames_is_refused(frames, message):
    with pytest.raises(FrameError, match=message):
        check_frames(frames)


@given(
    shape=st.lists(st.integers(0, 5), min_size=0, max_size=5),
    dtype=st.sampled_from([np.uint8, np.int8, np.float16, np.float64, bool, np.complex64]),
)
def test_any_array_is_frames_or_a_frame_error(shape, dtype):
    array = np.zeros(shape, dtype)
    is_frames = dtype is np.uint8 and len(shape) == 4 and 0 not in shape and shape[-1] == 3
    if is_frames:
        assert check_frames(array) is array
    else:
        with pytest.raises(FrameError):
            check_frames(array)


def test_read_only_and_reversed_views_reach_the_device_unchanged():
    frames = np.arange(2 * 4 * 5 * 3, dtype=np.uint8).reshape(2, 4, 5, 3)
    frames.setflags(write=False)
    for view in (frames, frames[:, ::-1, ::-1], frames[..., ::-1]):
        np.testing.assert_array_equal(to_tensor(view, torch.device("cpu")).numpy(), view)


def test_an_observation_without_pixels_is_refused_with_the_remedy():
    with pytest.raises(FrameError, match=r"got keys \['state'\]: .*AddRenderObservation"):
        frame_of_obs({"state": np.zeros(3)})
    with pytest.raises(FrameError, match="AddRenderObservation"):
        require_pixels(gym.spaces.Box(0, 255, (7, 7, 3), np.uint8))
    with pytest.raises(FrameError, match=r"got \['state'\]"):
        require_pixels(gym.spaces.Dict({"state": gym.spaces.Box(0, 1)}))


@pytest.mark.parametrize("mode", [None, "human", "ansi"])
def test_other_render_modes_are_refused_with_the_remedy(mode):
    with pytest.raises(FrameError, match=f"got {mode!r}: .*render_mode='rgb_array'"):
        require_rgb_array(mode)
    with pytest.raises(FrameError, match="render_mode"):
        render_frame(Renderer(np.zeros((4, 5, 3), np.uint8), mode))


@pytest.mark.parametrize("value", [0, 255, 17])
def test_a_blank_frame_is_refused(value):
    with pytest.raises(FrameError, match=f"blank frame \\(every value is {value}\\)"):
        render_frame(Renderer(np.full((4, 5, 3), value, np.uint8)))


def test_rendering_nothing_is_refused():
    with pytest.raises(FrameError):
        render_frame(Renderer(None))


def test_a_rendered_frame_is_returned():
    frame = np.arange(60, dtype=np.uint8).reshape(4, 5, 3)
    np.testing.assert_array_equal(render_frame(Renderer(frame)), frame)
