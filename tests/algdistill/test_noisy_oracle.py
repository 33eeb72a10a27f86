import numpy as np
import pytest
import torch

from algdistill.sources import NoisyOracle, NoisyOracleConfig, OracleTasks
from algdistill.tasks_fake import PixelRoomTasks, PointTasks, dark_room_tasks
from vlmreward_envs.dark_room import DARK_ROOM, DARK_ROOM_HARD, DarkRoomTasks
from vlmreward_envs.key_to_door import DarkKeyToDoorTasks


def rooms(config, repeats=1):
    return DarkRoomTasks(torch.arange(config.num_tasks).repeat(repeats), config)


def key_rooms():
    task_ids = torch.arange(6561)[::33]
    return DarkKeyToDoorTasks(task_ids, task_ids)


def returns_of(tasks, config):
    histories = NoisyOracle(tasks, config, torch.arange(tasks.num_tasks)).train()
    return np.stack([history.episode_returns for history in histories])


@pytest.mark.parametrize(
    "tasks",
    [rooms(DARK_ROOM), rooms(DARK_ROOM_HARD), key_rooms()],
    ids=["plain", "hard", "key_to_door"],
)
def test_last_episode_is_optimal_in_every_task(tasks):
    assert isinstance(tasks, OracleTasks)
    returns = returns_of(tasks, NoisyOracleConfig(num_episodes=5))
    assert returns[:, -1].tolist() == tasks.optimal_returns().tolist()
    assert returns[:, 0].mean() < returns[:, 2].mean() < returns[:, 4].mean()


def test_first_episode_is_random():
    tasks = rooms(DARK_ROOM, repeats=30)
    first = returns_of(tasks, NoisyOracleConfig(num_episodes=2))[:, 0]
    # Whoever ignores rewards earns 20/81 on average over all goals.
    standard_error = first.std() / len(first) ** 0.5
    assert abs(first.mean() - 20 / 81) < 3 * standard_error
    assert standard_error < 0.04


def test_random_actions_are_as_frequent_as_epsilon_and_uniform():
    # Who starts on the goal stays, unless the action is random; 4 of 5 random actions do not stay.
    centre = torch.full((2000,), 40)
    config = NoisyOracleConfig(num_episodes=3, final_epsilon=0.2)
    histories = NoisyOracle(DarkRoomTasks(centre), config, torch.arange(2000)).train()
    first_actions = np.stack([history.actions[::20] for history in histories])
    for episode, epsilon in enumerate((1.0, 0.6, 0.2)):
        frequency = np.bincount(first_actions[:, episode], minlength=5) / 2000
        assert frequency[1:] == pytest.approx(epsilon / 5, abs=0.035)


@pytest.mark.parametrize(
    "tasks",
    [PixelRoomTasks(torch.arange(9)), PointTasks(torch.tensor([[0.9, -0.4], [-0.1, 0.0]]))],
    ids=["pixels", "continuous"],
)
def test_last_episode_takes_optimal_actions_whatever_tasks_show_and_take(tasks):
    histories = NoisyOracle(
        tasks, NoisyOracleConfig(num_episodes=3), torch.arange(tasks.num_tasks)
    ).train()
    obs, length = tasks.reset(), tasks.episode_length
    for row in range(length):
        best = tasks.optimal_actions()
        for task, history in enumerate(histories):
            last = 2 * length + row
            assert np.array_equal(history.observations[last], obs[task].numpy())
            assert np.array_equal(history.actions[last], best[task].numpy())
        obs = tasks.step(best).obs


def test_random_continuous_actions_are_as_frequent_as_epsilon_and_uniform():
    tasks = PointTasks(torch.zeros(3000, 2))  # who is on the goal rests, unless it is random
    config = NoisyOracleConfig(num_episodes=2, final_epsilon=0.4)
    histories = NoisyOracle(tasks, config, torch.arange(3000)).train()
    first_actions = np.stack([history.actions[::8] for history in histories])
    for episode, epsilon in enumerate((1.0, 0.4)):
        actions = first_actions[:, episode]
        is_random = (actions != 0.0).all(axis=1)
        assert np.array_equal(is_random, (actions != 0.0).any(axis=1))
        assert is_random.mean() == pytest.approx(epsilon, abs=0.03)
        for component in actions[is_random].T:
            shares = np.histogram(component, bins=4, range=(-1.0, 1.0))[0] / is_random.sum()
            assert shares == pytest.approx(0.25, abs=0.04)
        assert abs(np.corrcoef(actions[is_random].T)[0, 1]) < 0.1


def test_epsilon_falls_linearly_from_1_to_its_end():
    config = NoisyOracleConfig(num_episodes=5, final_epsilon=0.2)
    assert [config.epsilon(e) for e in range(5)] == pytest.approx([1.0, 0.8, 0.6, 0.4, 0.2])
    assert NoisyOracleConfig(num_episodes=1).epsilon(0) == 1.0


def test_bad_input_is_refused():
    with pytest.raises(ValueError, match=r"final_epsilon=1\.1, expected 0 to 1"):
        NoisyOracleConfig(final_epsilon=1.1)
    with pytest.raises(TypeError, match=r"got GridTasks without optimal_actions\(\)"):
        NoisyOracle(dark_room_tasks(size=3), NoisyOracleConfig(), torch.arange(9))
