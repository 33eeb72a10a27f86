import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from algdistill.sources import TabularQLearning, TabularQLearningConfig, uniform_block
from algdistill.tasks import StepResult
from algdistill.tasks_fake import GridTasks, dark_room_tasks
from vlmreward_envs.key_to_door import DarkKeyToDoorTasks, KeyToDoorConfig


class Corridor:
    """Two states in a row; going right from the second one pays 1 and ends the episode."""

    num_tasks = 1
    num_actions = 2
    observation_sizes = (2,)
    task_ids = torch.tensor([7])
    device = torch.device("cpu")

    def __init__(self, episode_length, ends_by):
        self.episode_length = episode_length
        self.ends_by = ends_by
        self.position = 0

    def reset(self):
        self.position = 0
        return torch.tensor([[0]])

    def step(self, actions):
        paid = self.position == 1 and actions.item() == 1
        self.position = min(1, self.position + 1) if actions.item() == 1 else 0
        next_obs = torch.tensor([[self.position]])
        obs = self.reset() if paid else next_obs
        reward = torch.tensor([float(paid)])
        ends = {
            kind: torch.tensor([paid and self.ends_by == kind])
            for kind in ("terminated", "truncated")
        }
        return StepResult(obs=obs, next_obs=next_obs, reward=reward, env_reward=reward, **ends)


def by_hand(history, next_obs, config, episode_length):
    """Watkins' update and the backward replay over a recorded history, in plain Python."""
    table = np.full((2, 2), config.initial_value)

    def update(row):
        state, action = history.observations[row, 0], history.actions[row]
        future = 0.0 if history.terminated[row] else config.discount * table[next_obs[row]].max()
        target = history.rewards[row] + future
        table[state, action] += config.learning_rate * (target - table[state, action])

    for start in range(0, len(history), episode_length):
        rows = range(start, start + episode_length)
        for row in rows:
            update(row)
        for past in range(config.replayed_episodes):
            first = start - past * episode_length
            for row in reversed(range(first, first + episode_length) if first >= 0 else []):
                update(row)
    return table


@pytest.mark.parametrize("ends_by", ["terminated", "truncated"])
@pytest.mark.parametrize("options", [{}, {"initial_value": 1.0, "replayed_episodes": 3}])
def test_updates_equal_those_recomputed_by_hand(ends_by, options):
    config = TabularQLearningConfig(
        num_episodes=6, exploration_episodes=6, learning_rate=0.5, discount=0.8, **options
    )
    fleet = TabularQLearning(Corridor(5, ends_by), config, torch.tensor([3]))
    (history,) = fleet.train()
    # The state an action leads to: one to the right, or back to the first.
    next_obs = np.where(history.actions == 1, 1, 0)
    assert getattr(history, ends_by).any()
    expected = by_hand(history, next_obs, config, 5)
    np.testing.assert_allclose(fleet.q_values.numpy(), expected, rtol=1e-5)


def test_time_limit_bootstraps_and_termination_does_not():
    config = TabularQLearningConfig(num_episodes=30, exploration_episodes=30, discount=0.5)
    values = {}
    for ends_by in ("terminated", "truncated"):
        fleet = TabularQLearning(Corridor(10, ends_by), config, torch.tensor([0]))
        fleet.train()
        values[ends_by] = fleet.q_values[1, 1].item()
    assert values["terminated"] == 1.0
    assert values["truncated"] == pytest.approx(2.0, abs=0.01)


def test_learner_alone_gives_the_same_history_as_in_a_fleet():
    config = TabularQLearningConfig(num_episodes=8, exploration_episodes=5)
    everyone = dark_room_tasks(size=5)
    fleet = TabularQLearning(everyone, config, torch.arange(25) + 100).train()
    for index in (0, 13, 24):
        one = GridTasks(everyone.cell_rewards[[index]], task_ids=torch.tensor([index]))
        (alone,) = TabularQLearning(one, config, torch.tensor([index + 100])).train()
        assert alone.task_id == fleet[index].task_id
        for name in ("observations", "actions", "rewards"):
            assert getattr(alone, name).tobytes() == getattr(fleet[index], name).tobytes()


def test_training_twice_gives_the_same_bytes_and_other_seeds_do_not():
    tasks = dark_room_tasks(size=5)
    config = TabularQLearningConfig(num_episodes=4)
    fleet = TabularQLearning(tasks, config, tasks.task_ids)
    first, again = fleet.train(), fleet.train()
    other = TabularQLearning(tasks, config, tasks.task_ids + 25).train()
    assert all(
        a.actions.tobytes() == b.actions.tobytes() for a, b in zip(first, again, strict=True)
    )
    assert not any(
        a.actions.tobytes() == b.actions.tobytes() for a, b in zip(first, other, strict=True)
    )


def test_fleet_learns_dark_rooms_from_random_to_optimal():
    tasks = dark_room_tasks(size=5)
    config = TabularQLearningConfig(num_episodes=60, exploration_episodes=40)
    histories = TabularQLearning(tasks, config, tasks.task_ids).train()
    returns = np.stack([history.episode_returns for history in histories])
    optimum = tasks.optimal_returns().numpy()
    assert returns[:, 0].mean() < 0.15 * optimum.mean()
    assert returns[:, -5:].mean() > 0.95 * optimum.mean()


def test_untrained_greedy_learner_breaks_ties_evenly():
    tasks = GridTasks(torch.zeros(2000, 9), episode_length=1)
    config = TabularQLearningConfig(num_episodes=2, exploration_episodes=1)
    histories = TabularQLearning(tasks, config, torch.arange(2000)).train()
    assert config.epsilon(1) == 0.0
    counts = np.bincount([history.actions[1] for history in histories], minlength=5)
    assert (abs(counts - 400) < 80).all()


def test_optimistic_learners_try_what_they_have_not_tried():
    tasks = GridTasks(torch.zeros(50, 9), episode_length=5)
    config = TabularQLearningConfig(num_episodes=1, exploration_episodes=0, initial_value=1.0)
    histories = TabularQLearning(tasks, config, torch.arange(50)).train()
    for history in histories:
        tried = list(zip(*history.observations.T, history.actions, strict=True))
        assert len(set(tried)) == 5  # nothing twice, as long as something else is left


def test_a_memory_of_rewards_tells_the_way_to_the_door_from_that_to_the_key():
    size, cells = 3, 9
    key, door = torch.tensor([0, 2, 6, 8]), torch.tensor([8, 6, 2, 0])
    tasks = DarkKeyToDoorTasks(
        (key * cells + door).repeat(10), torch.arange(40), KeyToDoorConfig(size, episode_length=9)
    )
    last = {}
    for memory in (0, 1):
        config = TabularQLearningConfig(
            num_episodes=60, exploration_episodes=40, reward_memory=memory
        )
        histories = TabularQLearning(tasks, config, torch.arange(40)).train()
        last[memory] = np.mean([history.episode_returns[-5:] for history in histories])
    assert tasks.optimal_returns().mean() == 2.0
    assert last[1] > 1.8
    assert last[0] < 1.4


def test_epsilon_falls_linearly_to_its_end():
    config = TabularQLearningConfig(exploration_episodes=4, final_epsilon=0.2)
    epsilons = [config.epsilon(episode) for episode in (0, 2, 4, 9)]
    assert epsilons == pytest.approx([1.0, 0.6, 0.2, 0.2])
    at_once = TabularQLearningConfig(exploration_episodes=0, final_epsilon=0.2)
    assert at_once.epsilon(0) == pytest.approx(0.2)


@pytest.mark.parametrize(
    "setting",
    [
        {"num_episodes": 0},
        {"learning_rate": 0.0},
        {"discount": 1.0},
        {"final_epsilon": 1.5},
        {"replayed_episodes": 0},
        {"reward_memory": -1},
        {"initial_value": float("nan")},
    ],
)
def test_bad_settings_are_refused(setting):
    with pytest.raises(ValueError, match=next(iter(setting))):
        TabularQLearningConfig(**setting)


def test_each_task_needs_a_seed():
    with pytest.raises(ValueError, match="one for each of the 9 tasks"):
        TabularQLearning(dark_room_tasks(size=3), TabularQLearningConfig(), torch.arange(4))


def splitmix64(state):
    """The published finaliser, in Python's unbounded integers."""
    mask = 2**64 - 1
    state &= mask
    state = (state ^ (state >> 30)) * 0xBF58476D1CE4E5B9 & mask
    state = (state ^ (state >> 27)) * 0x94D049BB133111EB & mask
    return state ^ (state >> 31)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**40), st.integers(0, 10_000))
def test_stream_is_splitmix64(seed, first):
    golden = 0x9E3779B97F4A7C15
    origin = splitmix64(seed + golden)
    expected = [(splitmix64(origin + (first + k) * golden) >> 40) / 2**24 for k in (1, 2)]
    assert uniform_block(torch.tensor([seed]), first, 2)[:, 0].tolist() == expected


def test_streams_are_uniform_and_do_not_depend_on_how_they_are_drawn():
    seeds = torch.arange(500)
    whole = uniform_block(seeds, 0, 200)
    assert torch.equal(uniform_block(seeds[7:9], 50, 30), whole[50:80, 7:9])
    histogram = torch.histc(whole, bins=10, min=0.0, max=1.0) / whole.numel()
    assert torch.allclose(histogram, torch.full((10,), 0.1), atol=0.005)
    neighbours = torch.corrcoef(torch.stack([whole[:, :-1].flatten(), whole[:, 1:].flatten()]))
    assert abs(neighbours[0, 1].item()) < 0.01
