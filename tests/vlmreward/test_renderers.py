"""Remedies, on stand-ins that have the defects. `test_real_renderers.py` has the real ones."""

import gc
from types import SimpleNamespace

import numpy as np
import pytest

from vlmreward import FrameError
from vlmreward.frames import render_frame
from vlmreward.renderers import (
    REMEDIES,
    Remedy,
    draw_at,
    draw_fast,
    register_remedy,
    remedies_for,
)


def play(env, steps):
    """One frame per step, and one before; written so that several can be interleaved."""
    env.reset(seed=0)
    for _ in range(steps):
        yield render_frame(env)
        env.step(0)


def alone(env, steps):
    return list(play(env, steps))


@pytest.mark.parametrize("kind", ["SharedContext", "SharedWalls", "UpturnedCamera", "PhysicsOnly"])
def test_interleaved_environments_draw_what_each_draws_alone(stand_ins, kind):
    env_class = getattr(stand_ins, kind)
    first, second = alone(env_class(), 3), alone(env_class(), 3)
    np.testing.assert_array_equal(first, second)
    for one, other in zip(play(env_class(), 3), play(env_class(), 3), strict=True):
        np.testing.assert_array_equal(one, first.pop(0))
        np.testing.assert_array_equal(other, second.pop(0))


@pytest.mark.parametrize(
    ("kind", "name"), [("SharedContext", "mujoco-context"), ("SharedWalls", "miniworld-walls")]
)
def test_a_shared_renderer_draws_for_whoever_asks(stand_ins, kind, name):
    one, other = getattr(stand_ins, kind)(100), getattr(stand_ins, kind)(200)
    one.reset(seed=0)
    expected = render_frame(one)
    other.reset(seed=0)
    render_frame(other)
    assert not np.array_equal(render_frame(one, skip_remedies=[name]), expected)
    np.testing.assert_array_equal(render_frame(one), expected)


def test_closing_one_mujoco_environment_leaves_the_others_right(stand_ins):
    one, other = stand_ins.SharedContext(100), stand_ins.SharedContext(200)
    expected = render_frame(one)
    render_frame(other)
    other.close()
    with pytest.raises(FrameError, match="blank"):
        render_frame(one, skip_remedies=["mujoco-context"])
    np.testing.assert_array_equal(render_frame(one), expected)


def test_an_upturned_camera_is_turned_by_180_degrees_and_not_mirrored(stand_ins):
    env = stand_ins.UpturnedCamera()
    frame = render_frame(env)
    assert (frame[0, 0] == (10, 20, 30)).all()
    assert not (frame[0, -1] == (10, 20, 30)).all()
    np.testing.assert_array_equal(
        render_frame(env, skip_remedies=["metaworld-corner-camera"]), frame[::-1, ::-1]
    )


@pytest.mark.parametrize(("camera", "up"), [("gripperPOV", -0.9), ("corner", 0.9), ("corner", 0.0)])
def test_other_cameras_are_left_alone(stand_ins, camera, up):
    names = [remedy.name for remedy in remedies_for(stand_ins.UpturnedCamera(camera, up))]
    assert "metaworld-corner-camera" not in names


def test_a_free_camera_is_left_alone(stand_ins):
    env = stand_ins.UpturnedCamera()
    env.mujoco_renderer.camera_id = -1
    assert "metaworld-corner-camera" not in [remedy.name for remedy in remedies_for(env)]


FAMILIES = [("SharedContext", "PhysicsOnly"), ("PhysicsOnly", "SharedContext")]


@pytest.mark.parametrize("order", FAMILIES)
def test_two_mujoco_families_in_a_process_take_turns(stand_ins, order):
    first, second = (getattr(stand_ins, name) for name in order)
    expected = alone(first(100), 4), alone(second(200), 4)
    pair = play(first(100), 4), play(second(200), 4)
    for number, frames in enumerate(zip(*pair, strict=True)):
        np.testing.assert_array_equal(frames[0], expected[0][number])
        np.testing.assert_array_equal(frames[1], expected[1][number])


@pytest.mark.parametrize("order", FAMILIES)
def test_each_mujoco_family_needs_its_remedy(stand_ins, order):
    first, second = (getattr(stand_ins, name)(100 + i) for i, name in enumerate(order))
    skipped = ["mujoco-context", "dm-control-context"]
    expected = render_frame(first)
    render_frame(second, skip_remedies=skipped)
    assert not np.array_equal(render_frame(first, skip_remedies=skipped), expected)
    np.testing.assert_array_equal(render_frame(first), expected)


@pytest.mark.parametrize("order", [*FAMILIES, ("SharedContext", "SharedContext")])
def test_closing_and_forgetting_an_environment_leaves_another_familys_right(stand_ins, order):
    first, second = (getattr(stand_ins, name)(100 + i) for i, name in enumerate(order))
    render_frame(first)
    expected = render_frame(second)
    first.close()
    np.testing.assert_array_equal(render_frame(second), expected)
    del first
    gc.collect()
    np.testing.assert_array_equal(render_frame(second), expected)


def test_an_ordinary_environment_needs_no_remedy(stand_ins):
    assert remedies_for(stand_ins.StandIn()) == []


def test_a_renderer_draws_at_a_size_before_its_first_frame_alone(stand_ins):
    env = stand_ins.SharedContext()
    assert draw_at(env, (9, 7))
    assert render_frame(env).shape == (9, 7, 3)
    assert draw_at(env, (9, 7))
    assert not draw_at(env, (6, 8))
    assert render_frame(env).shape == (9, 7, 3)
    assert not draw_at(stand_ins.StandIn(), (9, 7))


def test_dm_control_draws_what_fits_its_buffer(stand_ins):
    env = stand_ins.PhysicsOnly()
    assert draw_at(env, (48, 64))
    assert render_frame(env).shape == (48, 64, 3)
    assert not draw_at(env, (49, 64))
    assert render_frame(env).shape == (48, 64, 3)


@pytest.mark.parametrize("kind", ["SharedContext", "PhysicsOnly"])
def test_fast_drawing_is_settled_before_the_first_frame(stand_ins, kind):
    env = getattr(stand_ins, kind)()
    draw_fast(env)
    model = env.mujoco_renderer.model if kind == "SharedContext" else env.physics.model
    assert (model.vis.quality.offsamples, model.vis.quality.shadowsize) == (0, 0)
    assert not model.mat_reflectance.any()
    render_frame(env)
    with pytest.raises(FrameError, match="before the first frame"):
        draw_fast(env)


def test_fast_drawing_is_refused_where_it_would_not_last(stand_ins):
    with pytest.raises(FrameError, match="got StandIn"):
        draw_fast(stand_ins.StandIn())
    env = stand_ins.PhysicsOnly()
    env.task = SimpleNamespace(root_entity=None)  # dm_control's Composer
    with pytest.raises(FrameError, match="dm_control's suite, got PhysicsOnly"):
        draw_fast(env)


def test_remedies_can_be_added(stand_ins, monkeypatch):
    env = stand_ins.StandIn()
    drawn = render_frame(env)
    remedy = Remedy("mirror", lambda env: hasattr(env, "colour"), after=lambda env, f: f[:, ::-1])
    monkeypatch.delitem(REMEDIES, "mirror", raising=False)
    register_remedy(remedy)
    np.testing.assert_array_equal(render_frame(env), drawn[:, ::-1])
    with pytest.raises(ValueError, match="registered already"):
        register_remedy(remedy)
    del REMEDIES["mirror"]
