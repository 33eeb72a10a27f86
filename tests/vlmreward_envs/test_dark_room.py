import functools
import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from vlmreward_envs.dark_room import (
    DARK_ROOM,
    DARK_ROOM_HARD,
    DarkRoomConfig,
    DarkRoomTasks,
    no_adaptation_return,
)
from vlmreward_envs.episodes import split_task_ids
from vlmreward_envs.grid import Move

BOTH = pytest.mark.parametrize("config", [DARK_ROOM, DARK_ROOM_HARD], ids=["plain", "hard"])
OFFSETS = {"STAY": (0, 0), "LEFT": (-1, 0), "RIGHT": (1, 0), "UP": (0, -1), "DOWN": (0, 1)}
SMALL = {"size": 3, "episode_length": 4}


def every_goal(config):
    tasks = DarkRoomTasks(torch.arange(config.num_tasks), config)
    tasks.reset()
    return tasks


def total_rewards(tasks, actions):
    """Play the same actions, one row a step, in every task."""
    tasks.reset()
    return sum(tasks.step(row.expand(tasks.num_tasks)).reward for row in actions)


def arrivals(actions, size):
    """Where a walk from the centre is after each step, in plain Python."""
    x = y = size // 2
    for action in actions:
        dx, dy = OFFSETS[Move(int(action)).name]
        x, y = min(max(x + dx, 0), size - 1), min(max(y + dy, 0), size - 1)
        yield x, y


@functools.cache
def neighbours(cell, size):
    return [
        tuple(min(max(a + b, 0), size - 1) for a, b in zip(cell, offset, strict=True))
        for offset in OFFSETS.values()
    ]


def best_by_dynamic_programming(config, goal):
    """Value of the centre, with the walk written out anew, over (cell, whether it was paid)."""
    cells = list(itertools.product(range(config.size), repeat=2))
    states = list(itertools.product(cells, (False, True) if config.pays_once else (False,)))
    value = dict.fromkeys(states, 0.0)
    for _ in range(config.episode_length):
        value = {
            (cell, paid): max(
                (there == goal and not paid)
                + value[there, config.pays_once and (paid or there == goal)]
                for there in neighbours(cell, config.size)
            )
            for cell, paid in states
        }
    return value[(config.size // 2, config.size // 2), False]


def test_sizes_are_the_papers():
    assert (DARK_ROOM.size, DARK_ROOM.episode_length, DARK_ROOM.num_tasks) == (9, 20, 81)
    assert (DARK_ROOM_HARD.size, DARK_ROOM_HARD.episode_length) == (17, 20)
    assert DARK_ROOM_HARD.num_tasks == 289
    assert (DARK_ROOM.pays_once, DARK_ROOM_HARD.pays_once) == (False, True)
    assert DarkRoomTasks.num_actions == 5


def test_plain_optimum_equals_dynamic_programming_for_each_goal():
    tasks = every_goal(DARK_ROOM)
    expected = [best_by_dynamic_programming(DARK_ROOM, tuple(goal)) for goal in tasks.goal.tolist()]
    assert tasks.optimal_returns().tolist() == expected
    assert sum(expected) / 81 == pytest.approx(16.543, abs=5e-4)


def test_hard_optimum_equals_dynamic_programming():
    tasks = every_goal(DARK_ROOM_HARD)
    assert tasks.optimal_returns().tolist() == [1.0] * 289
    for goal in [(0, 0), (8, 8), (16, 0), (3, 12)]:
        assert best_by_dynamic_programming(DARK_ROOM_HARD, goal) == 1.0
    short = DarkRoomConfig(size=5, episode_length=3, pays_once=True)
    tasks = every_goal(short)
    expected = [best_by_dynamic_programming(short, tuple(goal)) for goal in tasks.goal.tolist()]
    assert 0.0 in expected
    assert tasks.optimal_returns().tolist() == expected


@BOTH
def test_the_optimum_is_earned_by_walking_there_and_staying(config):
    tasks = every_goal(config)
    obs = tasks.reset()
    earned = torch.zeros(tasks.num_tasks)
    for _ in range(config.episode_length):
        to_goal = tasks.goal - obs
        sideways = torch.where(to_goal[:, 0] < 0, Move.LEFT, Move.RIGHT)
        along = torch.where(to_goal[:, 1] < 0, Move.UP, Move.DOWN)
        action = torch.where(to_goal[:, 0] != 0, sideways, along)
        step = tasks.step(torch.where((to_goal == 0).all(dim=1), Move.STAY, action))
        earned += step.reward
        obs = step.obs
    assert torch.equal(earned, tasks.optimal_returns())


@BOTH
def test_optimal_actions_earn_the_optimum(config):
    tasks = every_goal(config)
    earned = sum(tasks.step(tasks.optimal_actions()).reward for _ in range(config.episode_length))
    assert torch.equal(earned, tasks.optimal_returns())


@settings(max_examples=40)
@given(st.lists(st.integers(0, 4), min_size=20, max_size=20))
def test_whoever_ignores_rewards_earns_exactly_20_of_81(actions):
    rewards = total_rewards(every_goal(DARK_ROOM), torch.tensor(actions))
    assert rewards.sum() == 20.0
    assert no_adaptation_return(DARK_ROOM) == 20 / 81


@settings(max_examples=40)
@given(st.lists(st.integers(0, 4), min_size=20, max_size=20))
def test_hard_pays_each_goal_that_was_visited_exactly_once(actions):
    rewards = total_rewards(every_goal(DARK_ROOM_HARD), torch.tensor(actions))
    visited = {y * 17 + x for x, y in arrivals(actions, 17)}
    assert rewards.nonzero()[:, 0].tolist() == sorted(visited)
    assert rewards.max() == 1.0
    assert rewards.mean() <= no_adaptation_return(DARK_ROOM_HARD) + 1e-6


def test_hard_without_adaptation_is_attained_by_a_walk_that_never_returns():
    spiral = [Move.RIGHT, Move.DOWN, *[Move.LEFT] * 2, *[Move.UP] * 2, *[Move.RIGHT] * 3]
    spiral += [*[Move.DOWN] * 3, *[Move.LEFT] * 4, *[Move.UP] * 4]
    rewards = total_rewards(every_goal(DARK_ROOM_HARD), torch.tensor(spiral))
    assert len(spiral) == 20
    assert rewards.mean().item() == pytest.approx(no_adaptation_return(DARK_ROOM_HARD))
    assert no_adaptation_return(DARK_ROOM_HARD) == pytest.approx(20 / 289)


@pytest.mark.parametrize("pays_once", [False, True])
def test_without_adaptation_equals_the_best_of_all_action_sequences(pays_once):
    config = DarkRoomConfig(pays_once=pays_once, **SMALL)
    sequences = torch.cartesian_prod(*[torch.arange(5)] * 4)
    tasks = DarkRoomTasks(torch.arange(9).repeat(len(sequences)), config)
    tasks.reset()
    rewards = sum(tasks.step(column.repeat_interleave(9)).reward for column in sequences.T)
    means = rewards.view(-1, 9).mean(dim=1)
    assert means.max().item() == pytest.approx(no_adaptation_return(config))
    if not pays_once:
        assert means.min().item() == pytest.approx(no_adaptation_return(config))


@pytest.mark.parametrize(("size", "steps"), [(3, 4), (3, 5)])
def test_within_one_episode_rewards_help_only_where_the_goal_pays_on(size, steps):
    """The best of one episode, over everything that can be known in it; docs/dark_room.md."""

    def best(position, steps_left, candidates, found):
        if steps_left == 0:
            return 0.0
        options = []
        for offset in OFFSETS.values():
            there = tuple(
                min(max(a + b, 0), size - 1) for a, b in zip(position, offset, strict=True)
            )
            if found is not None:
                pays, after = float(there == found), best(there, steps_left - 1, candidates, found)
                options.append(pays + after)
                continue
            hit = there in candidates
            rest = candidates - {there}
            missed = best(there, steps_left - 1, rest, None) if rest else 0.0
            chance = hit / len(candidates)
            paid = 1.0 + best(there, steps_left - 1, frozenset(), there) if hit else 0.0
            options.append(chance * paid + (1 - chance) * missed)
        return max(options)

    cells = frozenset(itertools.product(range(size), repeat=2))
    centre = (size // 2, size // 2)
    expected = steps * (steps + 1) / 2 / size**2
    assert best(centre, steps, cells, None) == pytest.approx(expected)
    assert expected > no_adaptation_return(DarkRoomConfig(size=size, episode_length=steps))


@BOTH
@settings(max_examples=40)
@given(data=st.data())
def test_walls_hold_and_the_agent_sees_where_it_is(config, data):
    actions = data.draw(st.lists(st.integers(0, 4), min_size=19, max_size=19))
    tasks = DarkRoomTasks(torch.tensor([0]), config)
    assert tasks.reset().tolist() == [[config.size // 2] * 2]
    for action, expected in zip(actions, arrivals(actions, config.size), strict=True):
        step = tasks.step(torch.tensor([action]))
        assert step.obs.tolist() == [list(expected)]
        assert torch.equal(step.obs, step.next_obs)


def test_a_goal_pays_again_in_the_next_episode():
    tasks = DarkRoomTasks(torch.tensor([144]), DARK_ROOM_HARD)  # the centre itself
    tasks.reset()
    stay = torch.tensor([Move.STAY])
    rewards = [tasks.step(stay).reward.item() for _ in range(40)]
    assert [index for index, reward in enumerate(rewards) if reward] == [0, 20]


def test_held_out_goals_can_be_split_off():
    train, test = split_task_ids(81, 16, torch.Generator().manual_seed(3))
    again, _ = split_task_ids(81, 16, torch.Generator().manual_seed(3))
    other, _ = split_task_ids(81, 16, torch.Generator().manual_seed(4))
    assert sorted([*train.tolist(), *test.tolist()]) == list(range(81))
    assert (len(train), len(test)) == (65, 16)
    assert torch.equal(train, again)
    assert not torch.equal(train, other)
    with pytest.raises(ValueError, match="num_test=81, expected 1 to 80"):
        split_task_ids(81, 81, torch.Generator())


def test_bad_rooms_are_refused():
    with pytest.raises(ValueError, match="size=8, expected an odd number"):
        DarkRoomConfig(size=8)
    with pytest.raises(ValueError, match="episode_length=0"):
        DarkRoomConfig(episode_length=0)
    with pytest.raises(ValueError, match=r"from 80 to 81, expected 0\.\.80"):
        DarkRoomTasks(torch.tensor([80, 81]))
    with pytest.raises(ValueError, match="no task ids"):
        DarkRoomTasks(torch.empty(0, dtype=torch.int64))


@BOTH
def test_places_are_cells_and_each_is_reached_by_the_shortest_way(config):
    cells = torch.arange(config.num_tasks)
    tasks = DarkRoomTasks(cells, config)
    assert tasks.num_places == config.num_tasks
    tasks.reset()
    distance = (tasks.goal - config.size // 2).abs().sum(dim=1)
    for step in range(config.size - 1):
        here = tasks.places_seen()
        assert torch.equal(here.sum(dim=1), torch.ones_like(cells))
        assert torch.equal(here[cells, cells], distance <= step)
        tasks.step(tasks.actions_towards(cells))
    assert tasks.places_seen()[cells, cells].all()


def test_the_way_to_a_place_is_as_straight_as_can_be():
    tasks = DarkRoomTasks(torch.tensor([0]))
    tasks.reset()
    way = []
    for _ in range(8):
        way.append(Move(int(tasks.actions_towards(torch.tensor([9])))).name)  # (0, 1), from (4, 4)
        tasks.step(tasks.actions_towards(torch.tensor([9])))
    assert way == ["LEFT", "UP", "LEFT", "UP", "LEFT", "UP", "LEFT", "STAY"]
