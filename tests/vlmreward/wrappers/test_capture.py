import functools
import json

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env
from gymnasium.vector import AsyncVectorEnv, AutoresetMode
from stable_baselines3.common.vec_env import SubprocVecEnv

from vlmreward import FrameError
from vlmreward.capture import FrameCapture
from vlmreward.wrappers import CaptureFrames, VLMReward
from vlmreward.wrappers.sb3 import VecVLMReward

CENTRE = (0, 400, 100, 500)
SMALL = FrameCapture(size=(32, 48))


def captured_cartpole(capture=SMALL):
    return CaptureFrames(gym.make("CartPole-v1", render_mode="rgb_array"), capture)


def make_captured_cartpole():
    """Builds the function in this one, so that it can be sent to other processes."""

    def make():
        return CaptureFrames(
            gym.make("CartPole-v1", render_mode="rgb_array"), FrameCapture(size=(32, 48))
        )

    return make


@pytest.mark.parametrize(
    "capture", [SMALL, FrameCapture((16, 16), CENTRE), FrameCapture((48, 32), None, 90)]
)
@pytest.mark.filterwarnings("ignore:.*different from the unwrapped version.*")
@pytest.mark.filterwarnings("ignore:.*is -?infinity.*")  # CartPole's own bounds
def test_passes_gymnasiums_checker(capture):
    check_env(captured_cartpole(capture), skip_render_check=True)


def test_the_captured_frame_is_that_of_the_step():
    env, plain = captured_cartpole(), gym.make("CartPole-v1", render_mode="rgb_array")
    obs, _ = env.reset(seed=0)
    state, _ = plain.reset(seed=0)
    for action in (0, 1, 1):
        np.testing.assert_array_equal(obs["state"], state)
        np.testing.assert_array_equal(obs["pixels"], SMALL(plain.render()))
        np.testing.assert_array_equal(env.render(), plain.render())
        assert obs in env.observation_space
        obs, *_ = env.step(action)
        state, *_ = plain.step(action)


def test_a_captured_frame_is_not_changed_later():
    env = captured_cartpole()
    first = env.reset(seed=0)[0]["pixels"]
    kept = first.copy()
    env.step(0)
    np.testing.assert_array_equal(first, kept)


def test_entries_of_a_dict_observation_keep_their_names(scripted_env_class):
    env = CaptureFrames(scripted_env_class(), FrameCapture(size=(8, 8)), key="frame")
    obs, _ = env.reset(seed=0)
    assert obs.keys() == {"frame", "pixels", "position"}
    np.testing.assert_array_equal(obs["frame"], obs["pixels"])
    with pytest.raises(FrameError, match=r"without 'pixels'.*choose another key"):
        CaptureFrames(scripted_env_class(), FrameCapture(size=(8, 8)))


@pytest.mark.parametrize("render_mode", [None, "ansi"])
def test_other_render_modes_are_refused(render_mode):
    with pytest.raises(FrameError, match=f"got {render_mode!r}.*render_mode='rgb_array'"):
        CaptureFrames(gym.make("FrozenLake-v1", render_mode=render_mode), SMALL)


def test_a_configuration_says_what_was_done(stand_ins):
    config = captured_cartpole().config()
    assert config == {
        "capture": SMALL.config(),
        "key": "pixels",
        "remedies": [],
        "drawn_at_size": False,
    }
    config = CaptureFrames(stand_ins.UpturnedCamera(), SMALL).config()
    assert config["remedies"] == ["mujoco-context", "metaworld-corner-camera"]
    assert config["drawn_at_size"] is True
    skipping = FrameCapture(size=(6, 8), skip_remedies=("mujoco-context",))
    config = CaptureFrames(stand_ins.SharedContext(), skipping).config()
    assert json.loads(json.dumps(config))["remedies"] == []


def test_a_renderer_that_can_draws_at_the_size(stand_ins):
    env = CaptureFrames(stand_ins.SharedContext(), FrameCapture(size=(5, 9), rotate=90))
    assert env.reset(seed=0)[0]["pixels"].shape == (5, 9, 3)
    assert env.render().shape == (9, 5, 3)
    cropped = FrameCapture(size=(2, 2), crop=(0, 4, 0, 4))
    env = CaptureFrames(stand_ins.SharedContext(), cropped)
    assert env.reset(seed=0)[0]["pixels"].shape == (2, 2, 3)
    assert env.render().shape == (6, 8, 3)


def test_fast_is_refused_where_it_is_unknown(stand_ins):
    with pytest.raises(FrameError, match="fast=True"):
        captured_cartpole(FrameCapture(size=(32, 48), fast=True))
    env = stand_ins.SharedContext()
    CaptureFrames(env, FrameCapture(size=(6, 8), fast=True))
    assert env.mujoco_renderer.model.vis.quality.offsamples == 0


def test_an_observation_that_is_drawn_inside_a_step_is_right_as_well(stand_ins):
    one, other = (
        CaptureFrames(stand_ins.SharedWalls(colour), FrameCapture(size=(6, 8)))
        for colour in (100, 200)
    )
    one.reset(seed=0)
    other.reset(seed=0)
    for env, colour in ((one, 100), (other, 200), (one, 100)):
        obs, *_ = env.step(0)
        assert obs["state"][3, 3, 0] == obs["pixels"][3, 3, 0] == colour


def test_the_goal_is_cut_off_a_miniwob_screenshot(stand_ins):
    env = CaptureFrames(stand_ins.Screenshots(), FrameCapture(size=(160, 160)))
    obs, _ = env.reset(seed=0)
    assert obs.keys() == {"pixels", "utterance"}
    assert obs in env.observation_space
    np.testing.assert_array_equal(obs["pixels"], env.unwrapped.picture()[50:])
    assert env.render() is None
    assert env.config()["remedies"] == ["miniwob-screenshot"]


def test_a_black_miniwob_screenshot_at_the_end_is_the_last_live_one(stand_ins):
    env = CaptureFrames(stand_ins.Screenshots(), FrameCapture(size=(160, 160)))
    for _ in range(2):
        env.reset(seed=0)
        env.step(0)
        live, *_ = env.step(0)
        obs, _, terminated, _, _ = env.step(0)
        assert terminated
        np.testing.assert_array_equal(obs["pixels"], live["pixels"])


def test_a_black_miniwob_screenshot_elsewhere_is_refused(stand_ins):
    env = CaptureFrames(stand_ins.Screenshots(), FrameCapture(size=(160, 160)))
    env.reset(seed=0)
    env.unwrapped.picture = lambda: np.zeros((210, 160, 3), np.uint8)
    with pytest.raises(FrameError, match="blank"):
        env.step(0)
    with pytest.raises(FrameError, match="blank"):
        env.reset(seed=0)


def test_a_flight_page_has_no_header_to_cut_off(stand_ins):
    env = CaptureFrames(stand_ins.Screenshots("flight.AA"), FrameCapture(size=(210, 160)))
    np.testing.assert_array_equal(env.reset(seed=0)[0]["pixels"], env.unwrapped.picture())


def test_a_miniwob_environment_is_paid_for_its_screenshot(stand_ins, reward_model):
    env = CaptureFrames(stand_ins.Screenshots(), FrameCapture(size=(160, 160)))
    env = VLMReward(env, reward_model, terminate_on_success=False)
    env.reset(seed=0)
    obs, *_, info = env.step(0)
    assert info["vlm_score"] == float(reward_model.score(obs["pixels"][None]).score[0])


def test_small_frames_arrive_through_an_async_vector_env():
    env = AsyncVectorEnv(
        [functools.partial(captured_cartpole)] * 2, autoreset_mode=AutoresetMode.SAME_STEP
    )
    single = captured_cartpole()
    expected, _ = single.reset(seed=0)
    obs, _ = env.reset(seed=[0, 1])
    assert obs["pixels"].shape == (2, 32, 48, 3)
    assert obs["pixels"].dtype == np.uint8
    np.testing.assert_array_equal(obs["pixels"][0], expected["pixels"])
    terminated = False
    while not terminated:
        obs, _, terminations, _, infos = env.step(np.array([1, 1]))
        expected, _, terminated, _, _ = single.step(1)
    assert terminations[0]
    np.testing.assert_array_equal(infos["final_obs"][0]["pixels"], expected["pixels"])
    env.close()


def test_small_frames_arrive_through_a_subproc_vec_env(reward_model):
    venv = VecVLMReward(SubprocVecEnv([make_captured_cartpole()] * 2), reward_model)
    venv.seed(0)
    obs = venv.reset()
    single = captured_cartpole()
    expected, _ = single.reset(seed=0)
    assert obs["pixels"].shape == (2, 32, 48, 3)
    np.testing.assert_array_equal(obs["pixels"][0], expected["pixels"])
    dones = [False]
    while not dones[0]:
        _, _, dones, infos = venv.step(np.array([1, 1]))
        expected, *_ = single.step(1)
    np.testing.assert_array_equal(infos[0]["terminal_observation"]["pixels"], expected["pixels"])
    venv.close()
