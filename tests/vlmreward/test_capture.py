import dataclasses
import json

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from vlmreward import FrameError
from vlmreward.capture import FrameCapture
from vlmreward.encoders.preprocess import Preprocessor


def noise(height, width):
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)


@st.composite
def frames_and_crops(draw):
    height, width = draw(st.integers(1, 12)), draw(st.integers(1, 12))
    top, left = draw(st.integers(0, height - 1)), draw(st.integers(0, width - 1))
    bottom = draw(st.none() | st.integers(top + 1, height))
    right = draw(st.none() | st.integers(left + 1, width))
    return noise(height, width), (top, bottom, left, right)


@given(frames_and_crops(), st.sampled_from([0, 90, 180, 270]))
def test_cropping_and_rotating_are_slicing_and_rot90_in_that_order(frame_and_crop, rotate):
    frame, crop = frame_and_crop
    top, bottom, left, right = crop
    expected = np.rot90(frame[top:bottom, left:right], rotate // 90)
    captured = FrameCapture(size=expected.shape[:2], crop=crop, rotate=rotate)(frame)
    np.testing.assert_array_equal(captured, expected)
    assert captured.flags.c_contiguous
    assert not np.shares_memory(captured, frame)


@given(frames_and_crops(), st.sampled_from([0, 90, 180, 270]), st.integers(1, 4))
def test_resizing_comes_last(frame_and_crop, rotate, factor):
    frame, crop = frame_and_crop
    top, bottom, left, right = crop
    kept = np.rot90(frame[top:bottom, left:right], rotate // 90)
    size = (factor * kept.shape[0], factor * kept.shape[1])
    captured = FrameCapture(size=size, crop=crop, rotate=rotate)(frame)
    np.testing.assert_array_equal(captured, FrameCapture(size=size)(kept))


@pytest.mark.parametrize(("drawn", "size"), [((60, 80), (30, 40)), ((40, 40), (56, 56))])
def test_resizing_is_antialiased_bicubic(drawn, size):
    rows, columns = np.mgrid[: drawn[0], : drawn[1]]
    waves = np.stack([np.sin(rows / 6), np.cos(columns / 5), np.sin((rows + columns) / 7)], axis=-1)
    frame = (127.5 + 120 * waves).astype(np.uint8)
    pixels = torch.from_numpy(frame).permute(2, 0, 1)[None].float()
    expected = torch.nn.functional.interpolate(pixels, size, mode="bicubic", antialias=True)
    captured = FrameCapture(size=size)(frame)
    difference = captured - expected[0].permute(1, 2, 0).numpy()
    assert captured.dtype == np.uint8
    assert np.abs(difference).max() <= 1


def test_an_encoder_sees_the_same_as_if_it_had_resized_itself():
    frame = noise(96, 96)
    preprocessor = Preprocessor(size=(32, 32), mean=(0.5, 0.5, 0.5), std=(0.25, 0.25, 0.25))
    captured = FrameCapture(size=(32, 32))(frame)
    expected = preprocessor(torch.from_numpy(frame)[None])
    torch.testing.assert_close(preprocessor(torch.from_numpy(captured)[None]), expected)


def test_distortion_is_refused_and_the_remedies_it_names_work():
    frame = noise(40, 60)
    with pytest.raises(FrameError, match=r"\(20, 30\), or .* crop=\(0, 40, 10, 50\)"):
        FrameCapture(size=(20, 20))(frame)
    assert FrameCapture(size=(20, 30))(frame).shape == (20, 30, 3)
    assert FrameCapture(size=(20, 20), crop=(0, 40, 10, 50))(frame).shape == (20, 20, 3)


@given(st.integers(2, 30), st.integers(2, 30), st.integers(1, 30))
def test_the_aspect_ratio_may_differ_by_rounding_alone(height, width, rows):
    columns = max(1, round(width * rows / height))
    assert FrameCapture(size=(rows, columns))(noise(height, width)).shape == (rows, columns, 3)


def test_a_crop_outside_the_frame_is_refused():
    with pytest.raises(FrameError, match="inside the frame of 8x9 pixels"):
        FrameCapture(size=(8, 8), crop=(0, 8, 2, 10))(noise(8, 9))
    with pytest.raises(FrameError, match="inside the frame"):
        FrameCapture(size=(8, 8), crop=(8, None, 0, None))(noise(8, 9))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"size": (0, 4)}, "positive size"),
        ({"rotate": 45}, "0, 90, 180 or 270, got 45"),
        ({"rotate": 360}, "got 360"),
        ({"crop": (4, 4, 0, 1)}, "0 <= top < bottom"),
        ({"crop": (-1, 4, 0, 1)}, "0 <= top < bottom"),
        ({"skip_remedies": ("mujoco",)}, r"'mujoco-context'.*got \['mujoco'\]"),
    ],
)
def test_wrong_options_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        FrameCapture(**{"size": (4, 4), **options})


@pytest.mark.parametrize(
    "capture",
    [
        FrameCapture(size=(4, 5)),
        FrameCapture((4, 5), (1, None, 2, 7), 90, fast=True, skip_remedies=("mujoco-context",)),
    ],
)
def test_a_configuration_survives_json(capture):
    config = json.loads(json.dumps(capture.config()))
    assert config.keys() == {field.name for field in dataclasses.fields(capture)}
    assert FrameCapture.from_config(config) == capture


def test_the_size_to_draw_is_that_before_rotating():
    assert FrameCapture(size=(4, 5)).draw_size == (4, 5)
    assert FrameCapture(size=(4, 5), rotate=180).draw_size == (4, 5)
    assert FrameCapture(size=(4, 5), rotate=270).draw_size == (5, 4)
    assert FrameCapture(size=(4, 5), crop=(0, 4, 0, 5)).draw_size is None
