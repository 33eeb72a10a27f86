import numpy as np
import pytest
import torch

from algdistill.sources import GoalSearch, GoalSearchConfig, SearchableTasks
from algdistill.tasks import EmbeddedObservations
from algdistill.tasks_fake import dark_room_tasks
from vlmreward_envs.dark_room import DARK_ROOM_HARD, DarkRoomConfig, DarkRoomTasks
from vlmreward_envs.key_to_door import DarkKeyToDoorTasks
from vlmreward_envs.watermaze import WatermazeTasks

SURE = GoalSearchConfig(num_episodes=60, epsilon=0.0)


def search(tasks, config=SURE):
    return GoalSearch(tasks, config, torch.arange(tasks.num_tasks)).train()


@pytest.fixture(scope="module")
def hard():
    tasks = DarkRoomTasks(torch.arange(289), DARK_ROOM_HARD)
    return tasks, search(tasks)


def test_what_paid_once_is_never_lost_again(hard):
    for history in hard[1]:
        returns = history.episode_returns
        assert np.array_equal(returns, np.maximum.accumulate(returns))


def test_every_goal_is_found(hard):
    assert all(history.episode_returns[-1] == 1.0 for history in hard[1])


def test_after_the_first_reward_the_oracle_acts(hard):
    tasks, histories = hard
    tasks.reset()
    found = np.zeros(289, dtype=bool)
    for row in range(12 * tasks.episode_length):
        actions = torch.tensor([int(history.actions[row]) for history in histories])
        optimal = tasks.optimal_actions()
        assert torch.equal(actions[found], optimal[found])
        found |= (tasks.step(actions).reward > 0).numpy()
    assert 0.2 < found.mean() < 0.9


def test_search_never_walks_to_where_it_has_been():
    """A goal out of reach: as many cells are seen as there are, however small the room."""
    tasks = DarkRoomTasks(torch.arange(81))
    unpaid = [history for history in search(tasks) if history.episode_returns[:3].sum() == 0]
    assert len(unpaid) > 10
    for history in unpaid:
        cells = {tuple(cell) for cell in history.observations[:60].tolist()}
        assert len(cells) > 25  # random actions see 14 in three episodes


def test_what_is_not_remembered_is_searched_again():
    """Without memory every episode is as the first; with one of three, the fourth is as it."""
    tasks = DarkRoomTasks(torch.zeros(300, dtype=torch.int64), DARK_ROOM_HARD)
    tasks.goal = torch.full((300, 2), 99)  # nowhere

    def seen(memory):
        config = GoalSearchConfig(num_episodes=12, epsilon=0.0, memory=memory)
        cells = [history.observations.reshape(12, 20, 2) for history in search(tasks, config)]
        places = np.stack(cells) @ np.array([1, 17])
        return [
            [len(np.setdiff1d(row[e], row[max(0, e - 3) : e])) for e in (2, 3, 11)]
            for row in places
        ]

    forgetful, three, all_of_it = (np.mean(seen(memory), axis=0) for memory in (0, 3, None))
    assert forgetful[0] < three[0] == all_of_it[0]
    # New beside the three episodes before: the more is remembered, the more is new.
    assert forgetful[1] < three[1] - 1
    assert three[1] == all_of_it[1]
    assert abs(three[2] - three[1]) < 1


def test_goals_in_a_row_are_searched_one_after_the_other():
    ids = torch.arange(6561)[::23]
    tasks = DarkKeyToDoorTasks(ids, ids)
    config = GoalSearchConfig(num_episodes=15, epsilon=0.0)
    returns = np.stack([history.episode_returns for history in search(tasks, config)])
    assert 0.2 < returns[:, 0].mean() < 0.9
    assert returns[:, -1].mean() > 0.97 * tasks.optimal_returns().mean()
    has_key = np.cumsum(returns >= 1, axis=1) > 0
    assert returns[:, 1:][has_key[:, :-1]].min() >= 1.0  # who knows the key fetches it
    opens = np.cumsum(returns >= 2, axis=1) > 0
    far = (returns[:, 1:] < 2) & opens[:, :-1]
    assert far.mean() < 0.01  # 50 steps do not reach every door from every start


def test_random_actions_are_as_frequent_as_epsilon():
    centre = torch.full((2000,), 40)  # found by the first action that stays, and then stayed at
    config = GoalSearchConfig(num_episodes=6, epsilon=0.25)
    histories = search(DarkRoomTasks(centre), config)
    found = [history for history in histories if history.episode_returns[:3].any()]
    last_step = np.stack([history.actions[-1] for history in found])
    first = np.stack([history.actions[100] for history in found])
    assert (first != 0).mean() == pytest.approx(0.25 * 4 / 5, abs=0.03)
    assert last_step.std() > 0


def test_who_has_seen_everything_unpaid_starts_over():
    tasks = DarkRoomTasks(torch.zeros(1, dtype=torch.int64), DarkRoomConfig(3, 20))
    tasks.goal = torch.tensor([[9, 9]])  # nowhere
    (history,) = search(tasks, GoalSearchConfig(num_episodes=5, epsilon=0.0))
    assert not history.rewards.any()
    for episode in history.observations.reshape(5, 20, 2):
        assert len({tuple(cell) for cell in episode.tolist()}) > 4


def test_platforms_between_the_places_searched_are_found_nearly_always():
    ids = torch.arange(24)
    tasks = EmbeddedObservations(WatermazeTasks(ids, ids), lambda frames: frames[:, 0, 0].float())
    assert isinstance(tasks, SearchableTasks)
    returns = np.stack([history.episode_returns for history in search(tasks)])
    assert returns[:, 0].mean() < 0.4
    assert returns[:, -1].mean() > 0.9


def test_tasks_without_places_and_bad_settings_are_refused():
    with pytest.raises(TypeError, match=r"got GridTasks without places_seen\(\)"):
        search(dark_room_tasks(size=3))
    with pytest.raises(ValueError, match=r"epsilon=1\.5, expected 0 to 1"):
        GoalSearchConfig(epsilon=1.5)
    with pytest.raises(ValueError, match="memory=-1, expected 0"):
        GoalSearchConfig(memory=-1)
