import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

import playroom_sound
import playroom_sound_encoder
import playroom_sound_in_context
from playroom_sound import GROUPS, SoundOptions
from playroom_sound_encoder import SoundEncoderOptions
from playroom_sound_in_context import SoundInContextOptions, sound_task_sets
from playroom_sound_presets import PRESETS
from playroom_sound_stages import origin, train_steps
from playroom_sound_tasks import SOUND_ROOM_STEPS
from run_folder import RunFolder
from vlmreward.backbone import load_backbone
from vlmreward_envs.playroom import Action

ENCODER = SoundEncoderOptions(preset="debug", num_threads=1, memories=("mean", "ttm"), workers=0)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Where runs are kept, and an encoder has been trained in little time."""
    path = tmp_path_factory.mktemp("sound")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(path)
        playroom_sound_encoder.main(ENCODER)
        yield path


def test_the_whole_of_the_encoder_and_its_resumption(folder: Path) -> None:
    run_dir = folder / "runs" / ENCODER.run_name
    summary = json.loads((run_dir / "summary.json").read_text())
    found = summary["average_precision"]
    streams = {"audio", "video", "fusion", "frame CLIP", "chance"}
    assert set(found) == streams | {"gates", "cross_attention", "mean", "ttm"}
    for rows in found.values():
        for kind in ("heard", "told", "seen", "seen_held_out"):
            assert 0 < rows[kind]["low"] <= rows[kind]["value"] <= rows[kind]["high"] <= 1
    assert set(summary["heard"]["a bell is ringing"]) == set(found)
    assert set(summary["differences"]) == {
        "video_minus_frame_clip_seen", "fusion_minus_video_seen", "fusion_minus_best_single",
        "ttm_minus_mean_told", "fusion_minus_gates", "fusion_minus_cross_attention",
    }  # fmt: skip
    assert 0 <= summary["dropout"]["microphone calibrated changed"] <= 1
    for name in ("pure", "steps", "mean_0", "ttm_0"):
        assert (run_dir / name / "model.safetensors").exists()
    saved = load_backbone(str(run_dir / "ttm_0_backbone.json"), stream="present", device="cpu")
    assert saved.calibrated_head is not None
    assert saved.training["average_precision"]["ap_told_episode"] == pytest.approx(
        found["ttm"]["told"]["value"]
    )
    assert saved.backbone.config.memory == "ttm"
    assert saved.training["streams"] == {"started_from": "playroom", "seed": 0}
    assert saved.training["memory_seed"] == 0
    events = EventAccumulator(str(run_dir / "steps")).Reload()
    for stream in ("audio", "video", "fusion"):
        assert 0 <= events.Scalars(f"eval/recall_at_1_{stream}")[-1].value <= 1
    for lost in ("summary.json", "memory_ttm_0.npz", "precision.npz"):
        (run_dir / lost).unlink()
    playroom_sound_encoder.main(ENCODER)
    again = json.loads((run_dir / "summary.json").read_text())
    for name in ("average_precision", "differences", "dropout"):
        assert again[name] == summary[name]


def test_another_seed_of_a_memory_is_added(folder: Path) -> None:
    run_dir = playroom_sound_encoder.main(replace(ENCODER, memory_seeds=(0, 1)))
    summary = json.loads((run_dir / "summary.json").read_text())
    assert summary["memory_seeds"] == [0, 1]
    both = summary["differences"]["ttm_minus_mean_told"]
    of_seeds = summary["differences"]["ttm_minus_mean_told_seeds"]
    assert of_seeds["value"] == both["value"]
    assert both["low"] < of_seeds["low"] < of_seeds["high"] < both["high"]


def test_streams_can_be_those_of_a_saved_backbone(folder: Path) -> None:
    name = f"runs/{ENCODER.run_name}/ttm_0_backbone.json"
    saved = load_backbone(name, stream="video", device="cpu")
    steps = train_steps(
        RunFolder(Path("elsewhere"), PRESETS["debug"]), replace(ENCODER, streams=name)
    )
    assert not (folder / "elsewhere" / "pure").exists()
    assert steps.objectives.logit_scale("image_text").item() == pytest.approx(saved.logit_scale)
    for key, weights in steps.backbone.state_dict().items():
        assert torch.equal(weights, saved.backbone.state_dict()[key]), key
    made = origin(replace(ENCODER, streams=name), seed=3)
    assert made["memory_seed"] == 3
    assert made["streams"] == {"of": name, **saved.training}


def test_the_whole_of_the_agents(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(playroom_sound, "GROUPS", {"told": playroom_sound.GROUPS["told"]})
    backbone = f"runs/{ENCODER.run_name}/ttm_0_backbone.json"
    options = SoundOptions(backbone, seeds=(0,), preset="debug", workers=0)
    run_dir = playroom_sound.main(options)
    summary = json.loads((run_dir / "summary.json").read_text())
    for group, goals in playroom_sound.GROUPS.items():
        found = summary["groups"][group]
        assert found["goals"] == list(goals)
        for payer in playroom_sound.PAYERS:
            (returns,) = found[payer]["returns"]
            assert len(returns) == len(goals)
            assert all(0 <= value <= SOUND_ROOM_STEPS for value in returns)
            (curve,) = found[payer]["curves"]
            assert curve[-1] == pytest.approx(np.mean(returns))
            assert len(found["steps"]) == len(curve) == len(found[payer]["paid"][0])
        assert set(found["sensor_fails"]) == {"none", "microphone", "camera"}
        assert found["backbone"]["calibration"]["temperature"] > 0
        if (share := found["backbone"]["share"]) is None:  # the true reward taught nothing either
            assert not np.any(found["true reward"]["returns"])
            continue
        assert share["low"] <= share["value"] <= share["high"]
    assert (run_dir / "learning.png").stat().st_size > 5_000
    kept = (run_dir / "told_backbone_0.npz").stat().st_mtime_ns
    playroom_sound.main(options)
    assert (run_dir / "told_backbone_0.npz").stat().st_mtime_ns == kept


def test_in_context_seeds_are_resampled_whole_and_rooms_goal_by_goal() -> None:
    of_seeds = np.broadcast_to(np.array([5.0, 6.0, 8.0])[:, None, None], (3, 48, 5))
    found = playroom_sound_in_context.interval(of_seeds)
    assert found["value"] == pytest.approx(19 / 3)
    assert (found["low"], found["high"]) == (5.0, 8.0)  # as if nothing but a seed were drawn
    of_goals = np.tile([1.0, 2.0, 3.0, 4.0], 12)[None, :, None]
    of_goals = np.repeat(of_goals, 2, axis=0)
    assert playroom_sound_in_context.interval(of_goals) == {"value": 2.5, "low": 2.5, "high": 2.5}


def test_shares_are_of_what_the_truth_teaches() -> None:
    truth = np.array([[10.0, 4.0], [20.0, 4.0]])
    half = playroom_sound.share(np.array([[15.0, 2.0], [15.0, 2.0]]), truth)
    assert half["value"] == pytest.approx(0.75)
    assert half["low"] == pytest.approx((15 / 20 + 0.5) / 2)
    assert half["high"] == pytest.approx((15 / 10 + 0.5) / 2)
    assert playroom_sound.share(truth, truth)["value"] == 1.0


def test_the_wanted_sound_stays_and_episodes_of_it_are_learned_in_context(folder: Path) -> None:
    settings = playroom_sound_in_context.PRESETS["debug"]
    tasks = sound_task_sets(settings, None)("train", first_task_id=7)
    assert tasks.task_ids.tolist() == [7, 8, 9, 10]
    obs = tasks.reset()
    bump = GROUPS["heard"].index("there is a bump")
    room = int((tasks.goal_index == bump).nonzero())
    num_paid = []
    for _ in range(3 * tasks.episode_length):
        assert tasks.goal_index.tolist() == [0, 1, 2, 3]
        assert obs.shape == (4, 3)
        result = tasks.step(torch.full((4,), int(Action.LEFT)))
        obs = result.obs
        num_paid.append(float(result.reward[room]))
    first, *others = (sum(of) for of in np.split(np.array(num_paid), 3))
    assert first > 10  # walks to the wall, or into something, and on
    assert others == [first, first]  # the room is the same

    backbone = f"runs/{ENCODER.run_name}/ttm_0_backbone.json"
    options = SoundInContextOptions(backbone, seeds=(0,), preset="debug")
    run_dir = playroom_sound_in_context.main(options)
    summary = json.loads((run_dir / "summary.json").read_text())
    for name in ("backbone", "true reward", "random"):
        found = summary["true_return"][name]
        assert len(found["curve"]) == settings.num_episodes
        assert set(found["last_episodes_of_goals"]) == set(GROUPS["heard"])
        last = found["last_episodes"]
        assert 0 <= last["low"] <= last["value"] <= last["high"] <= tasks.episode_length
    assert (run_dir / "in_context.png").stat().st_size > 5_000
    kept = (run_dir / "backbone" / "sources.npz").stat().st_mtime_ns
    playroom_sound_in_context.main(options)
    assert (run_dir / "backbone" / "sources.npz").stat().st_mtime_ns == kept
