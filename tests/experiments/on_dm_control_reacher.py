"""The reacher's frames, sentences and ground truth. `../test_dm_control.py` runs this."""

import os

import numpy as np
import pytest
import torch
from dm_control import suite

import dm_control_reacher as reacher

TOUCHES = reacher.GOALS[0].prompts[0]
drawn = pytest.mark.skipif(os.environ["MUJOCO_GL"] == "disable", reason="no renderer")


def test_the_arm_is_where_dm_control_has_it():
    poses = reacher.draw_poses(64, np.random.default_rng(0))
    physics = suite.load("reacher", "easy").physics
    for joints, elbow, tip in zip(poses.joints, poses.elbow, poses.tip, strict=True):
        with physics.reset_context():
            physics.data.qpos[:] = joints
        np.testing.assert_allclose(physics.named.data.xpos["hand", :2], elbow, atol=1e-9)
        np.testing.assert_allclose(physics.named.data.geom_xpos["finger", :2], tip, atol=1e-9)


def test_poses_show_the_goal_and_what_looks_like_it():
    poses = reacher.draw_poses(4000, np.random.default_rng(1))
    distance = np.linalg.norm(poses.ball, axis=1)
    assert ((distance >= 0.05) & (distance <= 0.2)).all()  # where dm_control puts it
    reached = np.linalg.norm(poses.tip - poses.ball, axis=1) <= 0.06
    at_elbow = np.linalg.norm(poses.elbow - poses.ball, axis=1) <= 0.06
    assert 0.2 < reached.mean() < 0.5
    assert (at_elbow & ~reached).mean() > 0.1
    assert (np.abs(poses.joints[:, 1]) > np.deg2rad(160)).mean() > 0.03


@drawn
def test_the_goals_sentence_is_said_exactly_where_dm_control_pays():
    drawn_frames = reacher.captions(192, np.random.default_rng(2))
    labels = reacher.labelled(192, np.random.default_rng(2))
    assert np.array_equal(drawn_frames.frames.numpy(), labels.frames)
    said = [TOUCHES in true for true in drawn_frames.captions]
    assert said == labels.success.tolist()
    assert set(labels.env_reward) == {0.0, 1.0}
    assert np.array_equal(labels.env_reward > 0, labels.success)
    assert not labels.goal_index.any()


@drawn
def test_sentences_are_never_both_true_and_false():
    first, second = (reacher.captions(192, np.random.default_rng(3)) for _ in range(2))
    assert torch.equal(first.frames, second.frames)
    assert first.captions == second.captions
    said, denied = set(), set()
    for true, wrong in zip(first.captions, first.near_misses, strict=True):
        false = {text for texts in wrong for text in texts}
        assert len(true) == len(set(true))
        assert not set(true) & false
        said |= set(true)
        denied |= false
    for goal in reacher.GOALS:
        assert {*goal.prompts, *goal.negative_prompts} <= said & denied
        assert set(goal.baseline_prompts) <= said - denied


@pytest.mark.parametrize(
    ("elbow_to_ball", "tip_to_ball", "verdict"),
    [(0.0, 0.12, "true"), (0.05, 0.07, "left out"), (0.12, 0.12, "false"), (0.0, 0.05, "false")],
)
def test_the_elbow_is_named_where_it_alone_touches(elbow_to_ball, tip_to_ball, verdict):
    ball = np.array([0.12, 0.0])
    elbow = ball + np.array([0.0, elbow_to_ball])
    found = reacher._describe(elbow, ball - np.array([0.0, tip_to_ball]), ball, bend=1.0)
    is_denied = any(reacher._ELBOW in near_misses for near_misses in found.values())
    assert (reacher._ELBOW in found) == (verdict == "true")
    assert is_denied == (verdict == "false")


@drawn
def test_an_environment_shows_what_is_drawn_of_its_pose():
    env = reacher.make_env()
    for seed in range(3):
        obs, _ = env.reset(seed=seed)
        physics = env.unwrapped.physics
        ball = physics.named.model.geom_pos["target", :2].copy()
        pose = reacher.Poses(physics.data.qpos.copy()[None], ball[None])
        frames, _ = reacher.draw_frames(pose)
        np.testing.assert_array_equal(frames[0], obs["pixels"])
    env.close()


@drawn
@pytest.mark.parametrize("ends_on_success", [False, True])
def test_episodes_have_one_length_and_pay_what_dm_control_pays(ends_on_success):
    env = reacher.make_env(ends_on_success)
    env.reset(seed=0)
    env.action_space.seed(0)
    for step in range(reacher.EPISODE_STEPS):
        obs, reward, terminated, truncated, _ = env.step(env.action_space.sample())
        assert obs in env.observation_space
        assert obs["state"].shape == (6,)
        physics = env.unwrapped.physics
        assert reward == float(physics.finger_to_target_dist() <= 0.06)
        assert not terminated
        assert truncated == (step == reacher.EPISODE_STEPS - 1)
    env.close()
