import gymnasium as gym
import minigrid  # noqa: F401  (registers its environments)
import numpy as np
import pytest
import torch
from gymnasium import spaces

from algdistill.gymnasium_tasks import GymnasiumTasks, action_space, observation_space
from algdistill.sources import TabularQLearning, TabularQLearningConfig
from algdistill.spaces import Continuous, Discrete, Embedding, Pixels, Symbolic
from algdistill.task_space import TaskSpace
from algdistill.tasks import BatchedTasks


class Whereabouts(gym.ObservationWrapper):
    """Where the agent of a MiniGrid is and where it looks: (x, y, direction)."""

    def __init__(self, env):
        super().__init__(env)
        grid = env.unwrapped
        self.observation_space = spaces.MultiDiscrete([grid.width, grid.height, 4])

    def observation(self, observation):
        return np.array([*self.env.unwrapped.agent_pos, self.env.unwrapped.agent_dir])


def four_rooms():
    return Whereabouts(gym.make("MiniGrid-FourRooms-v0"))


class Counting(gym.Env):
    """Ends after three steps, says where it is by its seed, and pays what it is told to do."""

    observation_space = spaces.Box(-np.inf, np.inf, (2,), np.float32)
    action_space = spaces.Box(0.0, 10.0, (1,), np.float32)

    def reset(self, *, seed=None, options=None):
        self.seed, self.count = seed, 0
        return self._obs(), {}

    def step(self, action):
        self.count += 1
        return self._obs(), float(action[0]), self.count == 3, False, {"env_reward": 7.0}

    def _obs(self):
        return np.array([self.seed, self.count], np.float32)


def test_a_family_of_minigrids_is_a_set_of_tasks_that_a_source_can_learn():
    tasks = GymnasiumTasks(four_rooms, torch.arange(4), episode_length=10)
    assert isinstance(tasks, BatchedTasks)
    assert TaskSpace.of(tasks) == TaskSpace.symbolic((19, 19, 4), 7)
    first = tasks.reset()
    assert len(first.unique(dim=0)) > 1  # the seed is the task
    for step in range(10):
        result = tasks.step(torch.full((4,), 2))
        assert result.truncated.all() == (step == 9)
    assert torch.equal(result.obs, first)  # the next episode is the same task again
    assert not torch.equal(result.next_obs, first)
    config = TabularQLearningConfig(num_episodes=3)
    histories = TabularQLearning(tasks, config, torch.arange(4)).train()
    assert [len(history.episode_starts) for history in histories] == [3] * 4
    np.testing.assert_array_equal(histories[1].observations[0], first[1])


def test_the_same_seed_is_the_same_task_alone_and_among_others():
    together = GymnasiumTasks(four_rooms, torch.arange(4), 5)
    alone = GymnasiumTasks(four_rooms, torch.tensor([2]), 5)
    assert torch.equal(together.reset()[2], alone.reset()[0])
    for action in (2, 1, 2, 2, 0):
        many = together.step(torch.full((4,), action))
        one = alone.step(torch.tensor([action]))
        assert torch.equal(many.obs[2], one.obs[0])


def test_an_environment_that_has_ended_waits_for_the_others():
    tasks = GymnasiumTasks(Counting, torch.tensor([5, 6]), episode_length=5)
    assert tasks.reset().tolist() == [[5, 0], [6, 0]]
    rewards, truths = [], []
    for _ in range(5):
        result = tasks.step(torch.tensor([[-1.0], [0.5]]))
        rewards.append(result.reward.tolist())
        truths.append(result.env_reward.tolist())
        assert not result.terminated.any()
    # -1 to 1 is mapped to the bounds of the action, 0 to 10.
    assert rewards == [[0.0, 7.5]] * 3 + [[0.0, 0.0]] * 2
    assert truths == [[7.0, 7.0]] * 3 + [[0.0, 0.0]] * 2
    assert result.next_obs.tolist() == [[5, 3], [6, 3]]
    assert result.obs.tolist() == [[5, 0], [6, 0]]
    tasks.close()


@pytest.mark.parametrize(
    ("space", "expected"),
    [
        (spaces.Discrete(4), Symbolic((4,))),
        (spaces.MultiDiscrete([3, 5]), Symbolic((3, 5))),
        (spaces.Box(0, 255, (8, 9, 3), np.uint8), Pixels(8, 9)),
        (spaces.Box(-np.inf, np.inf, (6,), np.float64), Embedding(6)),
    ],
)
def test_observations(space, expected):
    assert observation_space(space) == expected


def test_actions():
    assert action_space(spaces.Discrete(3)) == Discrete(3)
    assert action_space(spaces.Box(-2, 2, (3,))) == Continuous(3)


@pytest.mark.parametrize(
    "space", [spaces.Discrete(3, start=1), spaces.Dict(), spaces.Box(0, 1, (2, 2))]
)
def test_other_spaces_are_refused(space):
    with pytest.raises(ValueError, match="wrap the environment"):
        observation_space(space)
    with pytest.raises(ValueError, match="wrap the environment"):
        action_space(space)


def test_bad_arguments_are_refused():
    with pytest.raises(ValueError, match="got 0 task ids"):
        GymnasiumTasks(Counting, torch.arange(0), 5)
    with pytest.raises(ValueError, match="episode_length=0"):
        GymnasiumTasks(Counting, torch.arange(1), 0)
    with pytest.raises(RuntimeError, match="call `reset`"):
        GymnasiumTasks(Counting, torch.arange(1), 5).step(torch.zeros(1, 1))
