import unittest
from typing import Any

import dm_env
import gymnasium as gym
import numpy as np
import pytest
from dm_env import specs, test_utils
from gymnasium.utils.env_checker import check_env
from gymnasium.vector import AutoresetMode

import vlmreward_envs
from vlmreward_envs.launcher import Gesture, LauncherConfig, LauncherEnv, LauncherVectorEnv
from vlmreward_envs.launcher.android import GestureActions, LauncherAndroidEnv

gym.register_envs(vlmreward_envs)

MAIL = "the Mail app is open"


def test_gymnasium_check_env() -> None:
    check_env(LauncherEnv(MAIL), skip_render_check=True)


def test_made_by_its_id() -> None:
    env = gym.make("vlmreward/Launcher-v0", goals=MAIL, render_mode="rgb_array")
    obs, info = env.reset(seed=0)
    assert env.observation_space.contains(obs)
    assert info == {"success": False, "env_reward": 0.0, "goal": MAIL}
    envs = gym.make_vec("vlmreward/Launcher-v0", num_envs=3, goals=MAIL, render_mode="rgb_array")
    assert isinstance(envs.unwrapped, LauncherVectorEnv)
    obs, _ = envs.reset(seed=0)
    assert envs.observation_space.contains(obs)


def test_vector_env_equals_single_envs() -> None:
    settings: dict[str, Any] = {"max_episode_steps": 5}
    vector = LauncherVectorEnv(3, autoreset_mode=AutoresetMode.SAME_STEP, **settings)
    singles = [LauncherEnv(**settings) for _ in range(3)]
    obs, _ = vector.reset(seed=5)
    expected = [env.reset(seed=5 + i)[0] for i, env in enumerate(singles)]
    rng = np.random.default_rng(0)
    for _ in range(12):
        for row, one in enumerate(expected):
            assert np.array_equal(obs["pixels"][row], one["pixels"])
        actions = rng.integers(0, len(Gesture), 3)
        obs, rewards, _, truncated, infos = vector.step(actions)
        for i, env in enumerate(singles):
            expected[i], reward, _, limit_reached, info = env.step(actions[i])
            assert (reward, limit_reached) == (rewards[i], truncated[i])
            if limit_reached:
                assert np.array_equal(infos["final_obs"][i]["pixels"], expected[i]["pixels"])
                expected[i], info = env.reset()
            assert infos["goal"][i] == info["goal"]


class AndroidInterfaceTest(test_utils.EnvironmentTestMixin, unittest.TestCase):
    """dm_env's own tests of an environment."""

    def make_object_under_test(self) -> dm_env.Environment:
        return LauncherAndroidEnv(MAIL, max_episode_steps=9)


class GesturesTest(test_utils.EnvironmentTestMixin, unittest.TestCase):
    """The same, of its gestures; an episode ends in the middle of the second one."""

    def make_object_under_test(self) -> dm_env.Environment:
        return GestureActions(LauncherAndroidEnv(MAIL, max_episode_steps=4))


def test_specs_are_those_of_android_env() -> None:
    environment = LauncherAndroidEnv()
    obs, action = environment.observation_spec(), environment.action_spec()
    assert {name: (spec.shape, spec.dtype) for name, spec in obs.items()} == {
        "pixels": ((96, 96, 3), np.uint8),
        "timedelta": ((), np.int64),
        "orientation": ((4,), np.uint8),
    }
    assert isinstance(action["action_type"], specs.DiscreteArray)
    assert action["action_type"].num_values == 3
    touch = action["touch_position"]
    assert (touch.shape, touch.dtype) == ((2,), np.float32)
    assert (touch.minimum.tolist(), touch.maximum.tolist()) == ([0, 0], [1, 1])


def test_gestures_in_both_interfaces_lead_to_the_same_screens() -> None:
    """The phone of seed 3, through Gymnasium and as AndroidEnv, over several episodes."""
    config = LauncherConfig(popup_rate=0.1)
    env = LauncherEnv(config=config, max_episode_steps=10)
    android = LauncherAndroidEnv(seed=3, config=config, max_episode_steps=30)
    environment = GestureActions(android)
    rng = np.random.default_rng(0)
    obs, info = env.reset(seed=3)
    step = environment.reset()
    paid = 0.0
    for _ in range(60):
        assert np.array_equal(obs["pixels"], step.observation["pixels"])
        assert info["goal"] == android.goal
        action = int(rng.integers(0, len(Gesture)))
        obs, reward, _, truncated, info = env.step(action)
        step = environment.step(action)
        paid += reward
        assert step.observation["timedelta"] == 3 * 50_000
        assert (step.last(), step.discount) == (truncated, 1.0)
        assert (reward == 0.0) or step.reward >= 1.0
        if truncated:
            obs, info = env.reset()
            step = environment.step(0)  # starts an episode, whatever the action
            assert step.first()


def test_success_ends_an_android_episode_with_discount_0() -> None:
    config = LauncherConfig(1, 9, 0, popup_rate=0.0)
    android = LauncherAndroidEnv(MAIL, config=config, terminate_on_success=True)
    environment = GestureActions(android)
    environment.reset()
    place = android.phones.state.shown[0].tolist().index(int(android.phones.goal))
    step = environment.step(place)
    assert (step.last(), step.reward, step.discount) == (True, 1.0, 0.0)


def test_shimmy_reads_the_specs() -> None:
    """What Gymnasium's users of dm_env environments convert with."""
    shimmy = pytest.importorskip("shimmy.utils.dm_env")
    environment = LauncherAndroidEnv(MAIL)
    space = shimmy.dm_spec2gym_space(environment.observation_spec())
    actions = shimmy.dm_spec2gym_space(environment.action_spec())
    actions.seed(0)
    obs, *_ = shimmy.dm_env_step2gym_step(environment.reset())
    assert space.contains(obs)
    obs, reward, terminated, truncated, _ = shimmy.dm_env_step2gym_step(
        environment.step(actions.sample())
    )
    assert space.contains(obs)
    assert (reward, terminated, truncated) == (0.0, False, False)


@pytest.mark.parametrize(
    "action",
    [
        {"action_type": 3, "touch_position": [0.5, 0.5]},
        {"action_type": 0, "touch_position": [0.5, 1.5]},
        {"action_type": 0, "touch_position": [0.5]},
        {"action_type": 0, "touch_position": [np.nan, 0.5]},
        {"touch_position": [0.5, 0.5]},
    ],
)
def test_bad_touches_are_named(action: Any) -> None:
    environment = LauncherAndroidEnv(MAIL)
    environment.reset()
    with pytest.raises(ValueError, match=r"got .*expected"):
        environment.step(action)


def test_gestures_want_one_finger() -> None:
    class Keys(LauncherAndroidEnv):
        def action_spec(self) -> Any:
            return {**super().action_spec(), "keycode": specs.DiscreteArray(10)}

    with pytest.raises(ValueError, match="one finger and no keys"):
        GestureActions(Keys())
    environment = GestureActions(LauncherAndroidEnv())
    environment.reset()
    with pytest.raises(ValueError, match="12 is not a valid Gesture"):
        environment.step(12)
