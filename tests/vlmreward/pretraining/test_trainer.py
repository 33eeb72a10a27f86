from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from vlmreward import OpenCLIPEncoder
from vlmreward.encoders import build_tokenizer
from vlmreward.pretraining import CaptionedFrames, PretrainConfig, pretrain

COLOURS = {"red": (200, 30, 30), "green": (30, 200, 30), "blue": (30, 30, 200)}
MODEL_CONFIG: dict[str, Any] = {
    "embed_dim": 16,
    "vision_cfg": {
        "timm_model_name": "patch_convnet",
        "timm_pool": "catavgmax",
        "timm_proj": "",
        "image_size": 32,
    },
    "text_cfg": {
        "context_length": 8,
        "vocab_size": 49408,
        "width": 16,
        "heads": 2,
        "layers": 1,
    },
}


def coloured_frames(num_frames: int, rng: np.random.Generator) -> CaptionedFrames:
    """Plain frames in one of three colours, with a little noise."""
    names = list(COLOURS)
    drawn = [names[i] for i in rng.integers(3, size=num_frames)]
    noise = rng.integers(-25, 26, size=(num_frames, 32, 32, 3))
    frames = np.array([COLOURS[name] for name in drawn])[:, None, None] + noise
    return CaptionedFrames(
        torch.from_numpy(frames.clip(0, 255).astype(np.uint8)),
        [[f"a {name} room"] for name in drawn],
        [[[f"a {other} room" for other in names if other != name]] for name in drawn],
    )


def settings(**changes: Any) -> PretrainConfig:
    quick = {"num_steps": 6, "batch_size": 8, "warmup_steps": 2, "checkpoint_interval": 2}
    return PretrainConfig(**(quick | changes))


def weights(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


class KilledError(Exception):
    pass


def killed_after(
    num_batches: int,
) -> Callable[[int, np.random.Generator], CaptionedFrames]:
    left = [num_batches]

    def source(num_frames: int, rng: np.random.Generator) -> CaptionedFrames:
        if not left[0]:
            raise KilledError
        left[0] -= 1
        return coloured_frames(num_frames, rng)

    return source


@pytest.mark.parametrize("mixed_precision", [False, True])
def test_it_learns_to_tell_colours(tmp_path: Path, mixed_precision: bool) -> None:
    config = settings(
        num_steps=60,
        batch_size=32,
        warmup_steps=10,
        learning_rate=3e-3,
        mixed_precision=mixed_precision,
    )
    model = pretrain(MODEL_CONFIG, coloured_frames, config, tmp_path)
    encoder = OpenCLIPEncoder(model, build_tokenizer(MODEL_CONFIG), name="colours")
    fresh = coloured_frames(60, np.random.default_rng(999))
    texts = [f"a {name} room" for name in COLOURS]
    similarity = encoder.encode_obs({"pixels": fresh.frames.numpy()}) @ encoder.encode_text(texts).T
    said = [texts[i] for i in similarity.argmax(dim=1).tolist()]
    assert said == [true for (true,) in fresh.captions]


def test_same_seed_same_weights_and_another_seed_others(tmp_path: Path) -> None:
    first = weights(pretrain(MODEL_CONFIG, coloured_frames, settings(), tmp_path / "a"))
    second = weights(pretrain(MODEL_CONFIG, coloured_frames, settings(), tmp_path / "b"))
    other = weights(pretrain(MODEL_CONFIG, coloured_frames, settings(seed=1), tmp_path / "c"))
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert not torch.equal(first["logit_scale"], other["logit_scale"])


def test_mixed_precision_computes_in_bfloat16_and_keeps_weights_in_float32(tmp_path: Path) -> None:
    single = weights(pretrain(MODEL_CONFIG, coloured_frames, settings(), tmp_path / "a"))
    config = settings(mixed_precision=True)
    mixed = weights(pretrain(MODEL_CONFIG, coloured_frames, config, tmp_path / "b"))
    assert {mixed[name].dtype for name in mixed} == {single[name].dtype for name in single}
    assert not torch.equal(mixed["text_projection"], single["text_projection"])


def test_processes_that_draw_batches_change_nothing(tmp_path: Path) -> None:
    here = weights(pretrain(MODEL_CONFIG, coloured_frames, settings(), tmp_path / "a"))
    others = pretrain(MODEL_CONFIG, coloured_frames, settings(), tmp_path / "b", num_workers=2)
    assert all(torch.equal(here[name], weights(others)[name]) for name in here)


@pytest.mark.parametrize("num_batches", [1, 3, 5])
def test_killed_and_resumed_equals_never_killed(tmp_path: Path, num_batches: int) -> None:
    through = weights(pretrain(MODEL_CONFIG, coloured_frames, settings(), tmp_path / "a"))
    with pytest.raises(KilledError):
        pretrain(MODEL_CONFIG, killed_after(num_batches), settings(), tmp_path / "b")
    resumed = weights(pretrain(MODEL_CONFIG, coloured_frames, settings(), tmp_path / "b"))
    assert all(torch.equal(through[name], resumed[name]) for name in through)


def test_a_finished_run_trains_no_further(tmp_path: Path) -> None:
    done = weights(pretrain(MODEL_CONFIG, coloured_frames, settings(), tmp_path))
    again = weights(pretrain(MODEL_CONFIG, killed_after(0), settings(), tmp_path))
    assert all(torch.equal(done[name], again[name]) for name in done)


def test_a_folder_of_other_settings_is_refused(tmp_path: Path) -> None:
    pretrain(MODEL_CONFIG, coloured_frames, settings(), tmp_path)
    with pytest.raises(ValueError, match="run with other settings"):
        pretrain(MODEL_CONFIG, coloured_frames, settings(seed=1), tmp_path)


def test_metrics_are_logged_for_every_step(tmp_path: Path) -> None:
    config = settings(evaluation_interval=3)
    pretrain(MODEL_CONFIG, coloured_frames, config, tmp_path, evaluate=lambda model: {"ap": 0.5})
    events = EventAccumulator(str(tmp_path))
    events.Reload()
    tags = set(events.Tags()["scalars"])
    assert {"train/loss", "train/accuracy", "time/frames_per_second", "eval/ap"} <= tags
    assert [event.step for event in events.Scalars("train/loss")] == [1, 2, 3, 4, 5, 6]
    assert [event.step for event in events.Scalars("eval/ap")] == [3, 6]


def test_learning_rate_warms_up_and_decays_to_zero() -> None:
    config = PretrainConfig(num_steps=100, warmup_steps=10, learning_rate=1.0)
    assert config.learning_rate_at(0) == pytest.approx(0.1)
    assert config.learning_rate_at(9) == pytest.approx(1.0)
    assert config.learning_rate_at(55) == pytest.approx(0.5)
    assert config.learning_rate_at(99) < 0.001


@pytest.mark.parametrize("field", ["num_steps", "batch_size", "captions_per_frame"])
def test_bad_settings_are_named(field: str) -> None:
    with pytest.raises(ValueError, match=f"{field} must be at least 1, got 0"):
        PretrainConfig(**{field: 0})
