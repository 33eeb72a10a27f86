"""Rewards on real dm_control. `../test_dm_control.py` runs this in a process of its own."""

import os
import re
import unittest
from pathlib import Path

import gymnasium as gym
import numpy as np
import pytest
from dm_control import suite
from dm_control.suite.wrappers import pixels
from dm_env import test_utils
from shimmy import DmControlCompatibilityV0
from stable_baselines3 import A2C
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.vec_env import DummyVecEnv

from vlmreward import (
    CosineHead,
    FakeEncoder,
    Goal,
    RewardModel,
    RewardTiming,
    SoftmaxHead,
    ThresholdHead,
)
from vlmreward.capture import FrameCapture
from vlmreward.guard import RewardDesignWarning
from vlmreward.renderers import draw_fast
from vlmreward.wrappers import CaptureFrames, VLMReward
from vlmreward.wrappers.dm_env import DmEnvVLMReward
from vlmreward.wrappers.sb3 import VecVLMReward

CARTPOLE, REACHER = ("cartpole", "swingup"), ("reacher", "easy")
NUM_STEPS = 8
drawn = pytest.mark.skipif(os.environ["MUJOCO_GL"] == "disable", reason="no renderer")


def load(domain, task, seed=0, num_steps=NUM_STEPS):
    """Loads a task whose episodes have that many steps."""
    environment = suite.load(domain, task, task_kwargs={"random": seed})
    environment._step_limit = num_steps
    draw_fast(environment)
    return environment


def draw(environment):
    return environment.physics.render(64, 64, camera_id=0)


def paint(environment):
    """Shows the state in colours, where there is no renderer."""
    frame = np.zeros((8, 8, 3), np.uint8)
    values = np.resize(environment.physics.get_state(), 8 * 3).reshape(8, 3)
    frame[:] = (128 + 100 * np.tanh(values)).astype(np.uint8)
    frame[0, 0] = (0, 255, 0)
    return frame


def dense(timing=None):
    return RewardModel(FakeEncoder(), Goal("a blue room"), CosineHead(), timing)


def actions_of(environment, count, seed=0):
    spec = environment.action_spec()
    rng = np.random.default_rng(seed)
    return rng.uniform(spec.minimum, spec.maximum, (count, *spec.shape))


class _Contract(test_utils.EnvironmentTestMixin):
    """dm_env's own checks, over the end of an episode."""

    def make_action_sequence(self):
        return actions_of(self.environment, NUM_STEPS + 3)


class TestContractOnCartpole(_Contract, unittest.TestCase):
    def make_object_under_test(self):
        return DmEnvVLMReward(load(*CARTPOLE), dense(), render=paint, observe_goal=True)


class TestContractOnReacher(_Contract, unittest.TestCase):
    def make_object_under_test(self):
        timing = RewardTiming(window=3, discount=0.99)
        return DmEnvVLMReward(load(*REACHER), dense(timing), render=paint)


@drawn
class TestContractOfFrames(_Contract, unittest.TestCase):
    def make_object_under_test(self):
        return DmEnvVLMReward(load(*REACHER), dense(), render=draw)


@drawn
class TestContractOfObservedFrames(_Contract, unittest.TestCase):
    def make_object_under_test(self):
        size = {"height": 64, "width": 64, "camera_id": 0}
        observed = pixels.Wrapper(load(*REACHER), pixels_only=False, render_kwargs=size)
        return DmEnvVLMReward(observed, dense())


@pytest.mark.parametrize("task", [CARTPOLE, REACHER])
@pytest.mark.parametrize("render", [paint, pytest.param(draw, marks=drawn)])
def test_every_step_is_paid_for_what_it_shows(task, render):
    reward_model = dense()
    inner, twin = load(*task), load(*task)
    environment = DmEnvVLMReward(inner, reward_model, render=render)
    rewards = []
    for _ in range(2):
        first, expected = environment.reset(), twin.reset()
        assert (first.reward, first.discount) == (None, None)
        for time, action in enumerate(actions_of(inner, NUM_STEPS), start=1):
            step, expected = environment.step(action), twin.step(action)
            assert step.reward == reward_model(render(inner)[None]).numpy()[0]
            assert step.reward.dtype == np.float32
            assert environment.last_info["env_reward"] == expected.reward
            assert environment.last_info["vlm_reward"] == step.reward
            for key, value in expected.observation.items():
                np.testing.assert_array_equal(step.observation[key], value)
            assert step.last() == expected.last() == (time == NUM_STEPS)
            assert step.discount == expected.discount == 1.0  # a time limit
            rewards.append(float(step.reward))
    assert len(set(rewards)) > NUM_STEPS
    assert environment.step(action).first()


@drawn
def test_observed_frames_are_paid_for_as_rendered_ones():
    size = {"height": 64, "width": 64, "camera_id": 0}
    inner = load(*CARTPOLE)
    observed = pixels.Wrapper(inner, pixels_only=False, render_kwargs=size)
    environment = DmEnvVLMReward(observed, dense())
    environment.reset()
    for action in actions_of(inner, NUM_STEPS):
        step = environment.step(action)
        np.testing.assert_array_equal(step.observation["pixels"], draw(inner))
        assert step.reward == dense()(draw(inner)[None]).numpy()[0]


def episode(environment, num_steps):
    """Yields what a learner and a logger get at every step."""
    yield environment.reset()
    for action in actions_of(environment, num_steps, seed=1):
        yield environment.step(action), environment.last_info


def rewarded(task, seed):
    return DmEnvVLMReward(load(*task, seed), dense(), render=draw)


@drawn
@pytest.mark.parametrize("tasks", [(CARTPOLE, REACHER), (REACHER, REACHER)])
def test_interleaved_environments_are_paid_as_each_alone(tasks):
    alone = [list(episode(rewarded(task, seed), NUM_STEPS)) for seed, task in enumerate(tasks)]
    pair = [episode(rewarded(task, seed), NUM_STEPS) for seed, task in enumerate(tasks)]
    for expected, together in zip(zip(*alone, strict=True), zip(*pair, strict=True), strict=True):
        np.testing.assert_equal(together, expected)


@drawn
def test_a_gymnasium_environment_that_draws_between_steps_changes_no_reward():
    expected = list(episode(rewarded(REACHER, 0), NUM_STEPS))
    other = gym.make("Reacher-v5", render_mode="rgb_array", width=64, height=64)
    other.reset(seed=0)
    for number, step in enumerate(episode(rewarded(REACHER, 0), NUM_STEPS)):
        np.testing.assert_equal(step, expected[number])
        other.step(other.action_space.sample())
        other.render()  # not through this package: into dm_control's context
    other.close()


def test_success_ends_an_episode():
    head = ThresholdHead(SoftmaxHead(temperature=0.1), threshold=0.5)
    reward_model = RewardModel(FakeEncoder(), Goal("a red room", ["a blue room"]), head)
    inner = load(*REACHER)

    def red_after_three_steps(environment):
        frame = paint(environment)
        frame[:4] = (255, 0, 0) if environment._step_count >= 3 else (0, 0, 255)
        frame[4:] = frame[:4]
        frame[0, 0] = 0
        return frame

    environment = DmEnvVLMReward(inner, reward_model, render=red_after_three_steps)
    environment.reset()
    steps = [environment.step(action) for action in actions_of(inner, 4)]
    assert [step.reward for step in steps[:3]] == [0.0, 0.0, 1.0]
    assert steps[2].last()
    assert steps[2].discount == 0.0
    assert steps[3].first()


class Painted(gym.Wrapper):
    """Shows the painted state as the observation of an environment of Shimmy's."""

    def __init__(self, env):
        super().__init__(env)
        frame = gym.spaces.Box(0, 255, (8, 8, 3), np.uint8)
        self.observation_space = gym.spaces.Dict({**env.observation_space.spaces, "pixels": frame})

    def reset(self, *, seed=None, options=None):
        obs, info = self.env.reset(seed=seed, options=options)
        return {**obs, "pixels": paint(self.unwrapped)}, info

    def step(self, action):
        obs, *rest = self.env.step(action)
        return {**obs, "pixels": paint(self.unwrapped)}, *rest


def settle(physics):
    """Moves the masses of LQR, which ends an episode when they rest, to where they rest."""
    with physics.reset_context():
        physics.data.qpos[:] = physics.data.qvel[:] = 0


def test_a_true_end_and_a_time_limit_are_told_apart_before_and_after_shimmy():
    inner = load("lqr", "lqr_2_1", num_steps=2)
    environment = DmEnvVLMReward(inner, dense(), render=paint)
    converted = VLMReward(Painted(DmControlCompatibilityV0(inner)), dense())

    environment.reset()
    steps = [environment.step(np.zeros(1)) for _ in range(2)]
    assert (steps[1].last(), steps[1].discount) == (True, 1.0)
    converted.reset(seed=0)
    ends = [converted.step(np.zeros(1))[2:4] for _ in range(2)]
    assert ends == [(False, False), (False, True)]

    environment.reset()
    settle(inner.physics)
    with pytest.warns(RewardDesignWarning, match="ended an episode before its time limit"):
        step = environment.step(np.zeros(1))
    assert (step.last(), step.discount) == (True, 0.0)
    converted.reset(seed=0)
    settle(inner.physics)
    with pytest.warns(RewardDesignWarning, match="ended an episode before its time limit"):
        assert converted.step(np.zeros(1))[2:4] == (True, False)


def make_captured(num_steps):
    environment = load(*REACHER, num_steps=num_steps)
    env = DmControlCompatibilityV0(
        environment, render_mode="rgb_array", render_kwargs={"camera_id": 0}
    )
    return CaptureFrames(env, FrameCapture(size=(64, 64), fast=True))


class Watch(BaseCallback):
    """Keeps what SB3 collects, and compares it with the same environments stepped by hand."""

    def __init__(self, twins, reward_model):
        super().__init__()
        self.twins, self.reward_model = twins, reward_model
        self.num_ends = 0

    def _on_step(self):
        for index, twin in enumerate(self.twins):
            obs, env_reward, terminated, truncated, _ = twin.step(
                self.locals["clipped_actions"][index]
            )
            info = self.locals["infos"][index]
            assert info["env_reward"] == env_reward
            assert self.locals["rewards"][index] == self.reward_model(obs["pixels"][None]).item()
            assert self.locals["dones"][index] == (terminated or truncated)
            if truncated:
                assert info["TimeLimit.truncated"]
                seen = info["terminal_observation"]
                np.testing.assert_array_equal(seen["position"], obs["position"])
                twin.reset()
                self.num_ends += 1
            else:
                obs_of_learner = self.locals["new_obs"]["pixels"][index]
                np.testing.assert_array_equal(obs_of_learner, np.moveaxis(obs["pixels"], -1, 0))
        return True


@drawn
def test_an_sb3_agent_learns_on_what_shimmy_converts():
    num_envs, num_steps = 2, 25
    reward_model = dense()
    venv = DummyVecEnv([lambda: make_captured(num_steps)] * num_envs)
    envs = VecVLMReward(venv, reward_model)
    assert all(env.config()["drawn_at_size"] for env in venv.envs)
    twins = [make_captured(num_steps) for _ in range(num_envs)]
    for index, twin in enumerate(twins):
        twin.reset(seed=3 + index)
    agent = A2C("MultiInputPolicy", envs, n_steps=8, seed=3, device="cpu")  # seeds them too
    before = {name: value.clone() for name, value in agent.policy.state_dict().items()}
    watch = Watch(twins, reward_model)
    agent.learn(240, callback=watch)
    assert watch.num_ends == num_envs * (120 // num_steps)
    returns = [episode["r"] for episode in agent.ep_info_buffer]
    assert len(returns) == watch.num_ends
    assert np.isfinite(returns).all()
    changed = {n for n, value in agent.policy.state_dict().items() if (value != before[n]).any()}
    assert {"action_net.weight", "value_net.weight"} <= changed
    envs.close()


@drawn
def test_the_code_about_dm_control_on_its_page_runs():
    page = (Path(__file__).parents[2] / "docs" / "dm_env.md").read_text(encoding="utf-8")
    blocks = re.findall(r"^```py\n(.*?)^```", page, re.DOTALL | re.MULTILINE)
    assert len(blocks) > 1
    namespace = {"__name__": "docs"}
    for number, block in enumerate(blocks, start=1):
        exec(compile(block, f"dm_env.md, block {number}", "exec"), namespace)
