"""Every wrapper says which stream of an encoder was scored, and only where there are several."""

import dm_env
import gymnasium as gym
import numpy as np
import pytest
from stable_baselines3.common.vec_env import DummyVecEnv

from vlmreward import FakeEncoder, Goal, RewardModel, SoftmaxHead, ThresholdHead
from vlmreward.wrappers import VectorVLMReward, VLMReward
from vlmreward.wrappers.dm_env import DmEnvVLMReward
from vlmreward.wrappers.sb3 import VecVLMReward

from ..remembering import RememberingEncoder


def reward_model(encoder):
    goal = Goal("a red room", ["a blue room"])
    return RewardModel(encoder, goal, ThresholdHead(SoftmaxHead(0.1), 0.5))


def of_gymnasium(env_class, encoder):
    env = VLMReward(env_class(), reward_model(encoder))
    env.reset(seed=0)
    return env.step(0)[4]


def of_vector(env_class, encoder):
    envs = gym.vector.SyncVectorEnv([env_class] * 2)
    env = VectorVLMReward(envs, reward_model(encoder))
    env.reset(seed=0)
    infos = env.step(np.zeros(2, np.int64))[4]
    assert ("vlm_stream" in infos) == ("_vlm_stream" in infos)
    return {key: value[1] for key, value in infos.items() if not key.startswith("_")}


def of_sb3(env_class, encoder):
    env = VecVLMReward(DummyVecEnv([env_class] * 2), reward_model(encoder))
    env.reset()
    return env.step(np.zeros(2, np.int64))[3][1]


def of_dm_env(env_class, encoder):
    env = DmEnvVLMReward(AsDmEnv(env_class()), reward_model(encoder))
    env.reset()
    env.step(0)
    return env.last_info


class AsDmEnv(dm_env.Environment):
    """A Gymnasium environment that never ends, as dm_env."""

    def __init__(self, env):
        self.env = env

    def reset(self):
        return dm_env.restart(self.env.reset(seed=0)[0])

    def step(self, action):
        obs, reward, *_ = self.env.step(action)
        return dm_env.transition(reward, obs)

    def observation_spec(self):
        spaces = self.env.observation_space.items()
        return {
            name: dm_env.specs.BoundedArray(
                space.shape, space.dtype, 0, 255 if name == "pixels" else 99, name
            )
            for name, space in spaces
        }

    def action_spec(self):
        return dm_env.specs.DiscreteArray(3)


@pytest.mark.parametrize("step", [of_gymnasium, of_vector, of_sb3, of_dm_env])
def test_wrappers_name_the_stream(step, scripted_env_class):
    assert step(scripted_env_class, RememberingEncoder())["vlm_stream"] == "sum"
    assert "vlm_stream" not in step(scripted_env_class, FakeEncoder())
