"""Remedies, on stand-ins that have the defects. `test_real_renderers.py` has the real ones."""

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


@pytest.mark.parametrize(
    "order", [("SharedContext", "PhysicsOnly"), ("PhysicsOnly", "SharedContext")]
)
def test_two_mujoco_families_in_a_process_are_refused(stand_ins, monkeypatch, order):
    first, second = (getattr(stand_ins, name)() for name in order)
    render_frame(first)
    for _ in range(2):
        with pytest.raises(FrameError, match=r"separate processes, or set MUJOCO_GL=osmesa"):
            render_frame(second)
    render_frame(first)
    render_frame(second, skip_remedies=["one-mujoco-family"])
    monkeypatch.setenv("MUJOCO_GL", "osmesa")
    render_frame(second)


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


def test_fast_drawing_is_settled_before_the_first_frame(stand_ins):
    env = stand_ins.SharedContext()
    draw_fast(env)
    model = env.mujoco_renderer.model
    assert (model.vis.quality.offsamples, model.vis.quality.shadowsize) == (0, 0)
    assert not model.mat_reflectance.any()
    render_frame(env)
    with pytest.raises(FrameError, match="before the first frame"):
        draw_fast(env)
    with pytest.raises(FrameError, match="got StandIn"):
        draw_fast(stand_ins.StandIn())


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
