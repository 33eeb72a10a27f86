from dataclasses import asdict

import numpy as np
import pytest
import torch
from open_clip.constants import (
    IMAGENET_MEAN,
    IMAGENET_STD,
    INCEPTION_MEAN,
    INCEPTION_STD,
    OPENAI_DATASET_MEAN,
    OPENAI_DATASET_STD,
)
from open_clip.transform import PreprocessCfg, image_transform_v2
from PIL import Image

from vlmreward.encoders.preprocess import Preprocessor


def smooth_frame(height, width):
    y, x = np.mgrid[0:height, 0:width]
    waves = [np.sin(x / 9 + y / 17), np.cos(x / 23), np.sin(y / 11)]
    return (127 + 127 * np.stack(waves, axis=-1)).round().astype(np.uint8)


def noise_frame(height, width):
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)


def levels_apart(cfg, frame):
    """Per value, how far open_clip's transform and ours are apart, in levels of 255."""
    theirs = image_transform_v2(cfg, is_train=False)(Image.fromarray(frame))
    ours = Preprocessor.from_open_clip(asdict(cfg))(torch.from_numpy(frame)[None])[0]
    assert ours.shape == theirs.shape
    return (ours - theirs).abs() * torch.tensor(cfg.std).view(3, 1, 1) * 255


@pytest.mark.parametrize("resize_mode", ["shortest", "longest", "squash"])
@pytest.mark.parametrize("interpolation", ["bicubic", "bilinear", "random"])
@pytest.mark.parametrize("size", [(32, 32), (24, 40), (64, 64)])
@pytest.mark.parametrize("frame_size", [(96, 96), (60, 80), (81, 47), (20, 33), (32, 32)])
def test_equals_open_clips_own_transform(resize_mode, interpolation, size, frame_size):
    cfg = PreprocessCfg(
        size=size, interpolation=interpolation, resize_mode=resize_mode, fill_color=7
    )
    assert levels_apart(cfg, smooth_frame(*frame_size)).max() <= 1.01
    assert levels_apart(cfg, noise_frame(*frame_size)).mean() <= 0.4


@pytest.mark.parametrize("resize_mode", ["shortest", "longest", "squash"])
@pytest.mark.parametrize(
    ("mean", "std"),
    [
        (OPENAI_DATASET_MEAN, OPENAI_DATASET_STD),
        (INCEPTION_MEAN, INCEPTION_STD),  # SigLIP's and OpenVision's too
        (IMAGENET_MEAN, IMAGENET_STD),
    ],
    ids=["CLIP", "inception, SigLIP", "ImageNet"],
)
@pytest.mark.parametrize("frame_size", [(480, 480), (210, 160), (224, 224)])
def test_full_size_frames_and_every_familys_normalisation(resize_mode, mean, std, frame_size):
    cfg = PreprocessCfg(size=224, mean=mean, std=std, resize_mode=resize_mode)
    assert levels_apart(cfg, smooth_frame(*frame_size)).max() <= 1.01
    assert levels_apart(cfg, noise_frame(*frame_size)).mean() <= 0.4


def test_frames_are_left_as_they_were():
    cfg = PreprocessCfg(size=32)
    for size in ((32, 32), (40, 48)):
        frames = torch.from_numpy(noise_frame(*size))[None]
        before = frames.clone()
        Preprocessor.from_open_clip(asdict(cfg))(frames)
        assert torch.equal(frames, before)


def test_a_fitting_frame_is_only_normalised():
    cfg = PreprocessCfg(size=32)
    frame = noise_frame(32, 32)
    assert levels_apart(cfg, frame).max() < 1e-3
    expected = (frame / 255 - np.array(cfg.mean)) / np.array(cfg.std)
    got = Preprocessor.from_open_clip(asdict(cfg))(torch.from_numpy(frame)[None])[0]
    np.testing.assert_allclose(got.permute(1, 2, 0), expected, atol=1e-5)


def test_a_model_brings_its_own_mean_and_std():
    cfg = {**asdict(PreprocessCfg(size=8)), "mean": (0.5, 0.5, 0.5), "std": 0.5}
    white = torch.full((1, 8, 8, 3), 255, dtype=torch.uint8)
    torch.testing.assert_close(Preprocessor.from_open_clip(cfg)(white), torch.ones(1, 3, 8, 8))


@pytest.mark.parametrize(
    "change",
    [
        {"size": (0, 8)},
        {"std": (0.1, 0.0, 0.1)},
        {"mean": (0.1, 0.1)},
        {"resize_mode": "stretch"},
        {"interpolation": "nearest"},
    ],
)
def test_impossible_settings_are_refused(change):
    cfg = {**asdict(PreprocessCfg(size=8)), **change}
    # Under the run-time checks of the tests, a wrong literal is a TypeError already.
    with pytest.raises((ValueError, TypeError)):
        Preprocessor.from_open_clip(cfg)
