import gymnasium as gym
import numpy as np
import pytest
from gymnasium import spaces
from stable_baselines3 import DQN, PPO
from stable_baselines3.common.vec_env import DummyVecEnv

from algdistill.sources.sb3 import RecordHistories


class Line(gym.Env):
    """Ten places in a row; the last one ends the episode, and so does a limit of steps."""

    observation_space = spaces.Discrete(10)
    action_space = spaces.Discrete(2)

    def __init__(self, env_reward=None):
        self.env_reward = env_reward

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.place = 0
        return 0, {}

    def step(self, action):
        self.place = min(9, self.place + 1) if action == 1 else 0
        info = {} if self.env_reward is None else {"env_reward": self.env_reward}
        return self.place, float(self.place), self.place == 9, False, info


def line(limit=20, **arguments):
    return lambda: gym.wrappers.TimeLimit(Line(**arguments), limit)


def drive(venv, policy, num_steps):
    obs = venv.reset()
    for step in range(num_steps):
        obs, *_ = venv.step(policy(obs, step))


def test_episodes_follow_each_other_without_a_dead_step():
    venv = RecordHistories(DummyVecEnv([line(), line()]), task_ids=[4, 5], num_steps=60)
    drive(venv, lambda obs, step: np.array([0, 1]), 60)
    stays, walks = venv.histories()
    assert np.flatnonzero(stays.truncated).tolist() == [19, 39, 59]
    assert not stays.terminated.any()
    assert np.flatnonzero(walks.terminated).tolist() == [8, 17, 26, 35, 44, 53]
    assert not walks.truncated.any()
    assert walks.observations[:10, 0].tolist() == [0, 1, 2, 3, 4, 5, 6, 7, 8, 0]
    assert walks.rewards[:10].tolist() == [1, 2, 3, 4, 5, 6, 7, 8, 9, 1]
    assert (stays.task_id, walks.task_id) == (4, 5)


def test_a_limit_that_coincides_with_a_real_end_is_a_termination():
    venv = RecordHistories(DummyVecEnv([line(limit=9)]), task_ids=[0], num_steps=9)
    drive(venv, lambda obs, step: np.array([1]), 9)
    (history,) = venv.histories()
    assert (history.terminated[-1], history.truncated[-1]) == (True, False)


def test_ground_truth_comes_from_info_where_there_is_one():
    venv = RecordHistories(
        DummyVecEnv([line(env_reward=0.25), line()]), task_ids=[0, 1], num_steps=5
    )
    drive(venv, lambda obs, step: np.array([1, 1]), 5)
    with_truth, without = venv.histories()
    assert with_truth.env_rewards.tolist() == [0.25] * 5
    assert without.env_rewards.tolist() == without.rewards.tolist() == [1, 2, 3, 4, 5]


@pytest.mark.parametrize("algorithm", ["PPO", "DQN"])
def test_recording_changes_nothing_in_training(algorithm):
    def train(venv):
        if algorithm == "PPO":
            model = PPO("MlpPolicy", venv, n_steps=16, batch_size=16, seed=0, device="cpu")
        else:
            model = DQN("MlpPolicy", venv, learning_starts=10, seed=0, device="cpu")
        model.learn(100)
        return [value.clone() for value in model.policy.state_dict().values()]

    recorded = RecordHistories(DummyVecEnv([line()]), task_ids=[0], num_steps=100)
    plain = train(DummyVecEnv([line()]))
    assert all((a == b).all() for a, b in zip(train(recorded), plain, strict=True))
    (history,) = recorded.histories()
    assert len(history) == 100
    # What follows a row is what its action led to, or a reset.
    ended = history.terminated | history.truncated
    places, actions = history.observations[:, 0].astype(int), history.actions
    led_to = np.where(actions == 1, np.minimum(places + 1, 9), 0)
    assert (places[1:] == np.where(ended, 0, led_to)[:-1]).all()


def test_part_of_a_dict_observation():
    class Room(gym.Env):
        observation_space = spaces.Dict(
            pixels=spaces.Box(0, 255, (4, 4, 3), np.uint8), position=spaces.MultiDiscrete([7, 7])
        )
        action_space = spaces.Discrete(5)

        def obs(self, x):
            return {"pixels": np.zeros((4, 4, 3), np.uint8), "position": np.array([x, 6])}

        def reset(self, *, seed=None, options=None):
            return self.obs(3), {}

        def step(self, action):
            return self.obs(int(action)), 0.0, False, False, {}

    venv = RecordHistories(
        DummyVecEnv([Room, Room]), task_ids=[0, 1], num_steps=2, observation_key="position"
    )
    drive(venv, lambda obs, step: np.array([1, 2]), 2)
    assert venv.histories()[1].observations.tolist() == [[3, 6], [2, 6]]
    with pytest.raises(ValueError, match="expected Discrete or MultiDiscrete"):
        RecordHistories(DummyVecEnv([Room]), task_ids=[0], num_steps=1)
    with pytest.raises(ValueError, match="a Dict with 'place'"):
        RecordHistories(DummyVecEnv([Room]), task_ids=[0], num_steps=1, observation_key="place")


def test_gaps_and_wrong_counts_are_refused():
    with pytest.raises(ValueError, match="got 1 task ids"):
        RecordHistories(DummyVecEnv([line(), line()]), task_ids=[0], num_steps=5)
    venv = RecordHistories(DummyVecEnv([line()]), task_ids=[0], num_steps=5)
    drive(venv, lambda obs, step: np.array([1]), 2)
    with pytest.raises(RuntimeError, match="cut the histories"):
        venv.reset()


class Screen(Line):
    """The same, seen as a frame whose first pixel is the place."""

    observation_space = spaces.Box(0, 255, (2, 4, 3), np.uint8)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        return self._frame(), {}

    def step(self, action):
        _, *rest = super().step(action)
        return self._frame(), *rest

    def _frame(self):
        frame = np.zeros((2, 4, 3), np.uint8)
        frame[0, 0] = self.place
        return frame


def test_frames_are_recorded_as_they_are():
    envs = DummyVecEnv([lambda: gym.wrappers.TimeLimit(Screen(), 20)])
    venv = RecordHistories(envs, task_ids=[0], num_steps=5)
    drive(venv, lambda obs, step: np.array([1]), 5)
    (history,) = venv.histories()
    assert history.observations.shape == (5, 2, 4, 3)
    assert history.observations.dtype == np.uint8
    assert history.observations[:, 0, 0, 0].tolist() == [0, 1, 2, 3, 4]
