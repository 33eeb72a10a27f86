import gymnasium as gym
import numpy as np
import pytest

from vlmreward import FakeEncoder, Goal, RewardModel, SoftmaxHead, ThresholdHead


def make_scripted_env_class():
    """Builds the class inside a function, so that it can be sent to other processes."""

    class ScriptedEnv(gym.Env):
        """Shows red for action 1 and blue for the others, and says in one pixel where it is.

        Every episode starts on a red frame: whoever scores the first frame of the next episode in
        place of the last frame of this one pays by mistake. Episodes are cut off after four steps,
        and end by themselves on action 2.
        """

        metadata = {"render_modes": ["rgb_array"]}  # noqa: RUF012
        action_space = gym.spaces.Discrete(3)

        def __init__(self, env_id=0, horizon=4, size=8):
            self.env_id, self.horizon, self.size = env_id, horizon, size
            self.observation_space = gym.spaces.Dict(
                {
                    "pixels": gym.spaces.Box(0, 255, (size, size, 3), np.uint8),
                    "position": gym.spaces.MultiDiscrete([100, 100]),
                }
            )
            self.render_mode = "rgb_array"
            self.episode, self.time = -1, 0

        def reset(self, *, seed=None, options=None):
            super().reset(seed=seed)
            self.episode = 0 if seed is not None else self.episode + 1
            self.time, self.red = 0, True
            return self._obs(), {"episode_index": self.episode}

        def step(self, action):
            self.time += 1
            self.red = action == 1
            info = {"success": bool(self.red), "time": self.time}
            reward = 0.25 * self.time
            return self._obs(), reward, bool(action == 2), self.time >= self.horizon, info

        def render(self):
            pixels = np.zeros((self.size, self.size, 3), np.uint8)
            pixels[..., 0 if self.red else 2] = 200
            pixels[0, 0] = (self.env_id, self.episode % 256, self.time)
            return pixels

        def _obs(self):
            position = np.array([self.episode % 100, self.time])
            return {"pixels": self.render(), "position": position}

    return ScriptedEnv


@pytest.fixture
def scripted_env_class():
    return make_scripted_env_class()


class CountingEncoder(FakeEncoder):
    """Remembers how many frames each forward pass had."""

    def __init__(self):
        super().__init__()
        self.batch_sizes = []

    def encode_obs(self, obs):
        self.batch_sizes.append(len(obs["pixels"]))
        return super().encode_obs(obs)


@pytest.fixture
def encoder():
    return CountingEncoder()


@pytest.fixture
def reward_model(encoder):
    """Goal 0 pays for red, goal 1 for blue."""
    red, blue = "a red room", "a blue room"
    goals = [Goal(red, [blue]), Goal(blue, [red])]
    return RewardModel(encoder, goals, ThresholdHead(SoftmaxHead(temperature=0.1), threshold=0.5))
