import functools
import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from vlmreward_envs.grid import Move
from vlmreward_envs.key_to_door import (
    DARK_KEY_TO_DOOR,
    DarkKeyToDoorTasks,
    KeyToDoorConfig,
    no_adaptation_return,
)

OFFSETS = ((0, 0), (-1, 0), (1, 0), (0, -1), (0, 1))


def room(key, door, start, config=DARK_KEY_TO_DOOR):
    """One room by hand, in an episode that starts where we say."""
    size = config.size
    task_id = (key[1] * size + key[0]) * size**2 + door[1] * size + door[0]
    tasks = DarkKeyToDoorTasks(torch.tensor([task_id]), torch.tensor([0]), config)
    tasks.position = torch.tensor([start])
    return tasks


def play(tasks, actions):
    return [tasks.step(torch.tensor([int(action)])).reward.item() for action in actions]


@functools.cache
def neighbours(position, size):
    return [
        (min(max(position[0] + dx, 0), size - 1), min(max(position[1] + dy, 0), size - 1))
        for dx, dy in OFFSETS
    ]


def test_sizes_are_the_papers():
    assert (DARK_KEY_TO_DOOR.size, DARK_KEY_TO_DOOR.episode_length) == (9, 50)
    assert DARK_KEY_TO_DOOR.num_tasks == 6561
    assert DarkKeyToDoorTasks.num_actions == 5


def test_key_then_door_each_pays_once():
    tasks = room(key=(1, 0), door=(2, 0), start=(2, 0))
    right, left, stay = Move.RIGHT, Move.LEFT, Move.STAY
    # At the door without the key, the key, the key again, the door, both again.
    rewards = play(tasks, [stay, left, stay, right, stay, left, right])
    assert rewards == [0.0, 1.0, 0.0, 1.0, 0.0, 0.0, 0.0]


def test_key_and_door_in_one_cell_pay_in_two_steps():
    tasks = room(key=(4, 4), door=(4, 4), start=(4, 4))
    assert play(tasks, [Move.STAY] * 3) == [1.0, 1.0, 0.0]


def test_next_episode_hides_both_again():
    tasks = room(key=(0, 0), door=(0, 0), start=(0, 0))
    play(tasks, [Move.STAY] * 50)
    assert (tasks.episode, tasks.num_steps) == (1, 0)
    assert not tasks.has_key.any()
    assert not tasks.is_open.any()
    tasks.position = torch.tensor([[0, 0]])
    assert play(tasks, [Move.STAY] * 3) == [1.0, 1.0, 0.0]


@settings(max_examples=25)
@given(st.data())
def test_rewards_come_once_in_order_and_walls_hold(data):
    cell = st.tuples(st.integers(0, 8), st.integers(0, 8))
    key, door, position = data.draw(cell), data.draw(cell), data.draw(cell)
    tasks = room(key, door, position)
    actions = data.draw(st.lists(st.integers(0, 4), min_size=49, max_size=49))
    has_key = is_open = False
    for action in actions:
        position = neighbours(position, 9)[action]
        takes = position == key and not has_key
        opens = position == door and has_key and not is_open
        has_key, is_open = has_key or takes, is_open or opens
        step = tasks.step(torch.tensor([action]))
        assert step.obs.tolist() == [list(position)]
        assert step.reward.tolist() == [float(takes or opens)]
        assert (tasks.has_key.item(), tasks.is_open.item()) == (has_key, is_open)


def best_by_dynamic_programming(config, key, door):
    """Value of every start, over (cell, key in hand, door open)."""
    cells = list(itertools.product(range(config.size), repeat=2))
    states = list(itertools.product(cells, (False, True), (False, True)))
    value = dict.fromkeys(states, 0.0)
    for _ in range(config.episode_length):
        new = {}
        for cell, has_key, is_open in states:
            options = []
            for there in neighbours(cell, config.size):
                takes = there == key and not has_key
                opens = there == door and has_key and not is_open
                options.append(takes + opens + value[there, has_key or takes, is_open or opens])
            new[cell, has_key, is_open] = max(options)
        value = new
    return {cell: value[cell, False, False] for cell in cells}


@pytest.mark.parametrize("steps", [3, 5])
def test_optimum_equals_dynamic_programming_where_time_is_short(steps):
    config = KeyToDoorConfig(size=3, episode_length=steps)
    tasks = DarkKeyToDoorTasks(torch.arange(81), torch.zeros(81, dtype=torch.int64), config)
    expected = []
    for key, door in zip(tasks.key.tolist(), tasks.door.tolist(), strict=True):
        values = best_by_dynamic_programming(config, tuple(key), tuple(door))
        expected.append(sum(values.values()) / 9)
    assert 0 < min(expected) < max(expected)
    assert tasks.optimal_returns().tolist() == pytest.approx(expected)


def test_optimum_of_the_paper_is_2_from_every_start():
    corners = [((0, 0), (8, 8)), ((8, 0), (0, 8)), ((4, 4), (4, 4))]
    for key, door in corners:
        assert set(best_by_dynamic_programming(DARK_KEY_TO_DOOR, key, door).values()) == {2.0}
    everyone = torch.arange(6561)
    tasks = DarkKeyToDoorTasks(everyone, everyone)
    assert tasks.optimal_returns().unique().tolist() == [2.0]


def test_every_task_is_solved_by_walking_to_the_key_and_then_to_the_door():
    everyone = torch.arange(6561)
    tasks = DarkKeyToDoorTasks(everyone, everyone)
    obs = tasks.reset()
    earned = torch.zeros(6561)
    for _ in range(50):
        to_goal = torch.where(tasks.has_key[:, None], tasks.door, tasks.key) - obs
        sideways = torch.where(to_goal[:, 0] < 0, Move.LEFT, Move.RIGHT)
        along = torch.where(to_goal[:, 1] < 0, Move.UP, Move.DOWN)
        action = torch.where(to_goal[:, 0] != 0, sideways, along)
        step = tasks.step(torch.where((to_goal == 0).all(dim=1), Move.STAY, action))
        earned += step.reward
        obs = step.obs
    assert earned.unique().tolist() == [2.0]


def best_of_one_episode(size, steps):
    """The most that is earned on average by an agent that knows all it can within an episode.

    It keeps the set of (key, door) that its rewards have not ruled out, all equally likely.
    """

    @functools.cache
    def value(position, steps_left, tasks, has_key, is_open):
        if steps_left == 0 or is_open:
            return 0.0
        options = []
        for there in neighbours(position, size):
            paid = frozenset(task for task in tasks if task[has_key] == there)
            worth = 0.0
            for rest, reward in ((paid, 1), (tasks - paid, 0)):
                if rest:
                    after = value(
                        there,
                        steps_left - 1,
                        rest,
                        has_key or bool(reward),
                        has_key and bool(reward),
                    )
                    worth += len(rest) / len(tasks) * (reward + after)
            options.append(worth)
        return max(options)

    cells = list(itertools.product(range(size), repeat=2))
    tasks = frozenset(itertools.product(cells, repeat=2))
    return sum(value(start, steps, tasks, False, False) for start in cells) / len(cells)


@pytest.mark.parametrize(("size", "steps"), [(2, 3), (2, 4), (3, 4)])
def test_nobody_who_forgets_each_episode_beats_the_formula(size, steps):
    config = KeyToDoorConfig(size=size, episode_length=steps)
    assert best_of_one_episode(size, steps) == pytest.approx(no_adaptation_return(config))


def walk_without_returning(start, steps, size):
    """Moves that arrive in ``steps`` different cells: narrow cells first, and back when stuck."""
    path, moves = [start], []

    def free(cell):
        return [
            (action, there)
            for action, there in enumerate(neighbours(cell, size))
            if action and there not in path
        ]

    def extend():
        if len(moves) == steps:
            return True
        for action, there in sorted(free(path[-1]), key=lambda option: len(free(option[1]))):
            path.append(there)
            moves.append(action)
            if extend():
                return True
            path.pop()
            moves.pop()
        return False

    assert extend()
    return moves


@pytest.mark.parametrize("start", [(0, 0), (7, 4), (2, 6)])
def test_a_walk_that_never_returns_earns_it_over_all_tasks(start):
    everyone = torch.arange(6561)
    tasks = DarkKeyToDoorTasks(everyone, everyone)
    tasks.position = torch.tensor([start]).expand(6561, 2)
    moves = walk_without_returning(start, 50, 9)
    earned = sum(tasks.step(torch.full((6561,), action)).reward for action in moves)
    assert earned.double().mean().item() == pytest.approx(no_adaptation_return())
    assert no_adaptation_return() == pytest.approx(50 / 81 + 1225 / 6561)


def test_without_adaptation_needs_enough_cells():
    with pytest.raises(ValueError, match="5 steps among 4 cells"):
        no_adaptation_return(KeyToDoorConfig(size=2, episode_length=5))


def test_starts_are_uniform_and_differ_between_episodes():
    seeds = torch.arange(81 * 200)
    tasks = DarkKeyToDoorTasks(torch.zeros_like(seeds), seeds)
    first, second = tasks.reset(), tasks.begin_episode(1)
    cells = first[:, 1] * 9 + first[:, 0]
    counts = torch.bincount(cells, minlength=81)
    # Chi-squared with 80 degrees of freedom: 146 is its 1 - 1e-5 quantile.
    assert ((counts - 200.0) ** 2 / 200).sum() < 146
    same = (first == second).all(dim=1).float().mean().item()
    assert same == pytest.approx(1 / 81, abs=0.004)


def test_bad_rooms_are_refused():
    with pytest.raises(ValueError, match="size=1"):
        KeyToDoorConfig(size=1)
    with pytest.raises(ValueError, match="episode_length=0"):
        KeyToDoorConfig(episode_length=0)
    one = torch.tensor([0])
    with pytest.raises(ValueError, match=r"expected 0\.\.6560"):
        DarkKeyToDoorTasks(torch.tensor([6561]), one)
    with pytest.raises(ValueError, match=r"seeds of shape \(2,\), expected one for each of the 1"):
        DarkKeyToDoorTasks(one, torch.tensor([0, 1]))


@pytest.mark.parametrize("episode_length", [1, 4, 12])
def test_optimal_actions_earn_the_optimum_of_every_task_over_all_starts(episode_length):
    config = KeyToDoorConfig(size=3, episode_length=episode_length)
    task_ids = torch.arange(config.num_tasks)
    starts = torch.cartesian_prod(torch.arange(3), torch.arange(3))
    tasks = DarkKeyToDoorTasks(task_ids.repeat(9), task_ids.repeat(9), config)
    tasks.position = starts.repeat_interleave(config.num_tasks, dim=0)
    earned = sum(tasks.step(tasks.optimal_actions()).reward for _ in range(episode_length))
    optimum = tasks.optimal_returns()[: config.num_tasks]
    assert torch.allclose(earned.view(9, -1).mean(dim=0), optimum)
