"""A sensor that has failed is None in an observation, or not there, in every wrapper alike."""

import dm_env
import gymnasium as gym
import numpy as np
import pytest
from gymnasium.vector import AutoresetMode

from vlmreward import CosineHead, FakeEncoder, Goal, RewardModel
from vlmreward.frames import FrameError
from vlmreward.relabel import relabel
from vlmreward.relabel.files import load_rewards, relabel_file
from vlmreward.wrappers import VectorVLMReward, VLMReward
from vlmreward.wrappers.dm_env import DmEnvVLMReward

from ..remembering import SensingEncoder

SPACES = {
    "pixels": gym.spaces.Box(0, 255, (8, 8, 3), np.uint8),
    "audio": gym.spaces.Box(-1, 1, (4,), np.float32),
}
BOTH = ["audio", "pixels"]
BREAKS = {
    "None": lambda obs, sensor: {**obs, sensor: None},
    "not there": lambda obs, sensor: {key: obs[key] for key in obs if key != sensor},
}


def sensed(*batch):
    frames = np.zeros((*batch, 8, 8, 3), np.uint8)
    frames[..., 0] = 255
    return {"pixels": frames, "audio": np.zeros((*batch, 4), np.float32)}


class Env(gym.Env):
    """A red room whose sensor fails in the second step."""

    observation_space = gym.spaces.Dict(SPACES)
    action_space = gym.spaces.Discrete(2)

    def __init__(self, sensor, breaks):
        self.sensor, self.breaks = sensor, breaks

    def reset(self, *, seed=None, options=None):
        self.num_steps = 0
        return sensed(), {}

    def step(self, action):
        self.num_steps += 1
        obs = sensed() if self.num_steps == 1 else BREAKS[self.breaks](sensed(), self.sensor)
        return obs, 0.0, False, False, {}


class VectorOfTwo(gym.vector.VectorEnv):
    """Two of these; the first one's episode ends in the second step, and both restart then."""

    num_envs = 2
    single_observation_space = Env.observation_space
    observation_space = gym.vector.utils.batch_space(single_observation_space, 2)
    single_action_space = Env.action_space
    action_space = gym.vector.utils.batch_space(single_action_space, 2)

    def __init__(self, sensor, breaks, mode):
        self.sensor, self.breaks, self.num_steps = sensor, breaks, 0
        self.metadata = {"autoreset_mode": mode}

    def reset(self, *, seed=None, options=None):
        return sensed(2), {}

    def step(self, actions):
        self.num_steps += 1
        obs, nothing = sensed(2), np.zeros(2)
        ended = np.array([self.num_steps == 2, False])
        infos = {}
        if self.num_steps >= 2:
            obs = BREAKS[self.breaks](obs, self.sensor)
        if self.num_steps == 2 and self.metadata["autoreset_mode"] is AutoresetMode.SAME_STEP:
            final = np.array([sensed(), None], dtype=object)
            infos = {"final_obs": final, "_final_obs": ended.copy()}
        return obs, nothing, ended & False, ended, infos


class AsDmEnv(dm_env.Environment):
    def __init__(self, env):
        self.env = env

    def reset(self):
        return dm_env.restart(self.env.reset()[0])

    def step(self, action):
        return dm_env.transition(0.0, self.env.step(action)[0])

    def observation_spec(self):
        return {key: dm_env.specs.Array(box.shape, box.dtype, key) for key, box in SPACES.items()}

    def action_spec(self):
        return dm_env.specs.DiscreteArray(2)


def make(encoder=None):
    encoder = encoder or SensingEncoder()
    return encoder, RewardModel(encoder, Goal("a red room"), CosineHead())


@pytest.mark.parametrize("breaks", BREAKS)
@pytest.mark.parametrize(("sensor", "left"), [("audio", "pixels"), ("pixels", "audio")])
def test_single_environments(sensor, left, breaks):
    encoder, reward_model = make()
    env = VLMReward(Env(sensor, breaks), reward_model)
    env.reset()
    steps = [env.step(0) for _ in range(2)]
    assert encoder.given == [BOTH, BOTH, [left]]
    assert all(np.isfinite(step[1]) for step in steps)

    encoder, reward_model = make()
    env = DmEnvVLMReward(AsDmEnv(Env(sensor, breaks)), reward_model)
    env.reset()
    assert [float(env.step(0).reward) for _ in range(2)] == [step[1] for step in steps]
    assert encoder.given == [BOTH, BOTH, [left]]


@pytest.mark.parametrize("breaks", BREAKS)
@pytest.mark.parametrize("mode", [AutoresetMode.SAME_STEP, AutoresetMode.NEXT_STEP])
@pytest.mark.parametrize(("sensor", "left"), [("audio", "pixels"), ("pixels", "audio")])
def test_vector_environments(sensor, left, mode, breaks):
    encoder, reward_model = make()
    envs = VectorVLMReward(VectorOfTwo(sensor, breaks, mode), reward_model)
    envs.reset()
    for _ in range(3):
        _, reward, *_ = envs.step(np.zeros(2, np.int64))
        assert np.isfinite(reward).all()
    assert encoder.given[:2] == [BOTH, BOTH]
    assert encoder.given[-1] == [left]


@pytest.mark.parametrize("breaks", BREAKS)
@pytest.mark.parametrize(("sensor", "left"), [("audio", "pixels"), ("pixels", "audio")])
def test_recordings(sensor, left, breaks, tmp_path):
    encoder, reward_model = make()
    obs = BREAKS[breaks](sensed(3), sensor)
    paid = relabel(obs, reward_model, terminated=False, truncated=True)
    assert encoder.given == 3 * [[left]]
    never = np.zeros(3, bool)
    np.savez(tmp_path / "one.npz", **{left: obs[left]}, terminated=never, truncated=never)
    path = relabel_file(tmp_path / "one.npz", reward_model, show_progress=False)
    assert np.array_equal(load_rewards(path).reward[1:], paid.reward)


@pytest.mark.parametrize("breaks", BREAKS)
def test_frames_are_asked_for_where_nothing_else_is_read(breaks):
    _, reward_model = make(FakeEncoder())
    env = VLMReward(Env("pixels", breaks), reward_model)
    env.reset()
    env.step(0)
    with pytest.raises(FrameError, match=r"with 'pixels', got keys \['audio'\]"):
        env.step(0)
