"""What every set of tasks promises, and that `algdistill` takes each as it is.

This file is type-checked with the packages: no adapter stands between the two.
"""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from algdistill.agents import RandomAgent
from algdistill.evaluation import evaluate_in_context
from algdistill.sources import (
    NoisyOracle,
    NoisyOracleConfig,
    TabularQLearning,
    TabularQLearningConfig,
)
from algdistill.sources.noisy_oracle import OracleTasks
from algdistill.spaces import Discrete, Pixels
from algdistill.tasks import BatchedStep, BatchedTasks, TaskSpace
from vlmreward_envs.adversarial_bandit import AdversarialBanditTasks, draw_arm_probabilities
from vlmreward_envs.dark_room import DARK_ROOM, DARK_ROOM_HARD, DarkRoomTasks
from vlmreward_envs.episodes import EpisodicTasks
from vlmreward_envs.key_to_door import DarkKeyToDoorTasks
from vlmreward_envs.watermaze import WatermazeTasks

TaskMaker = Callable[[Tensor], EpisodicTasks]


def dark_room(seeds: Tensor) -> DarkRoomTasks:
    return DarkRoomTasks(seeds % DARK_ROOM.num_tasks)


def dark_room_hard(seeds: Tensor) -> DarkRoomTasks:
    return DarkRoomTasks(seeds % DARK_ROOM_HARD.num_tasks, DARK_ROOM_HARD)


def key_to_door(seeds: Tensor) -> DarkKeyToDoorTasks:
    return DarkKeyToDoorTasks(seeds % 6561, seeds)


def bandit(seeds: Tensor) -> AdversarialBanditTasks:
    return AdversarialBanditTasks(seeds, seeds, draw_arm_probabilities(seeds))


def watermaze(seeds: Tensor) -> WatermazeTasks:
    return WatermazeTasks(seeds, seeds)


SYMBOLIC = [dark_room, dark_room_hard, key_to_door, bandit]
each_symbolic_kind = pytest.mark.parametrize("make", SYMBOLIC)
each_kind = pytest.mark.parametrize("make", [*SYMBOLIC, watermaze])


def play(tasks: EpisodicTasks, actions: Tensor, shown: slice = slice(None)) -> list[list[Tensor]]:
    """Return all that is observed and paid by the shown tasks, one list a step."""
    log = [[tasks.reset()[shown].clone()]]
    for row in actions:
        step = tasks.step(row)
        parts = step.obs, step.next_obs, step.reward, step.env_reward, step.truncated
        log.append([part[shown].clone() for part in parts])
    return log


def actions_for(tasks: EpisodicTasks, num_steps: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(tasks.num_actions, (num_steps, tasks.num_tasks), generator=generator)


def equal_logs(log: list[list[Tensor]], other: list[list[Tensor]]) -> bool:
    return all(
        torch.equal(mine, theirs)
        for step, step2 in zip(log, other, strict=True)
        for mine, theirs in zip(step, step2, strict=True)
    )


@each_symbolic_kind
def test_algdistill_takes_them_without_an_adapter(make: TaskMaker) -> None:
    tasks = make(torch.arange(6))
    as_tasks: BatchedTasks = tasks
    as_step: BatchedStep = tasks.step(torch.zeros(6, dtype=torch.int64))
    assert isinstance(as_tasks, BatchedTasks)
    assert isinstance(as_step, BatchedStep)

    config = TabularQLearningConfig(num_episodes=3)
    learners = TabularQLearning(tasks, config, learner_seeds=torch.arange(6))
    first, again = learners.train(), learners.train()
    assert [history.task_id for history in first] == tasks.task_ids.tolist()
    for history, repeated in zip(first, again, strict=True):
        assert len(history) == 3 * tasks.episode_length
        assert history.truncated.nonzero()[0].tolist() == [
            tasks.episode_length * episode - 1 for episode in (1, 2, 3)
        ]
        assert not history.terminated.any()
        assert history.observations.tobytes() == repeated.observations.tobytes()
        assert history.rewards.tobytes() == repeated.rewards.tobytes()

    result = evaluate_in_context(
        RandomAgent(TaskSpace.of(tasks)),
        tasks,
        num_episodes=2,
        generator=torch.Generator().manual_seed(0),
    )
    assert result.returns.shape == (6, 2)
    assert np.array_equal(result.returns, result.env_returns)


def test_algdistill_takes_frames_as_they_are() -> None:
    tasks = watermaze(torch.arange(4))
    as_tasks: OracleTasks = tasks
    assert isinstance(as_tasks, OracleTasks)
    assert TaskSpace.of(tasks) == TaskSpace(Pixels(72, 96), Discrete(8))

    config = NoisyOracleConfig(num_episodes=2)
    histories = NoisyOracle(tasks, config, learner_seeds=torch.arange(4)).train()
    tasks.reset()
    frames = tasks.observe().numpy()
    for history, frame in zip(histories, frames, strict=True):
        assert history.observations.shape == (100, 72, 96, 3)
        assert np.array_equal(history.observations[0], frame)
        assert history.episode_returns[1] == 1


@each_kind
def test_episodes_end_by_their_time_limit_and_begin_in_the_same_step(make: TaskMaker) -> None:
    tasks = make(torch.arange(5))
    length = tasks.episode_length
    tasks.reset()
    starts = [make(torch.arange(5)).begin_episode(number) for number in (1, 2)]
    for number, row in enumerate(actions_for(tasks, 2 * length), start=1):
        step = tasks.step(row)
        assert not step.terminated.any()
        assert bool(step.truncated.all()) is bool(step.truncated.any()) is (number % length == 0)
        if number % length == 0:
            assert torch.equal(step.obs, starts[number // length - 1])
            assert (tasks.episode, tasks.num_steps) == (number // length, 0)
        else:
            assert torch.equal(step.obs, step.next_obs)


@each_kind
def test_reset_starts_over_with_the_same_chance(make: TaskMaker) -> None:
    tasks = make(torch.arange(5))
    actions = actions_for(tasks, tasks.episode_length + 3)
    assert equal_logs(play(tasks, actions), play(tasks, actions))


@each_kind
@settings(max_examples=10)
@given(
    seeds=st.lists(st.integers(0, 2**62), min_size=1, max_size=40),
    data=st.data(),
)
def test_a_task_is_the_same_alone_and_among_others(
    make: TaskMaker, seeds: list[int], data: st.DataObject
) -> None:
    together = make(torch.tensor(seeds))
    index = data.draw(st.integers(0, len(seeds) - 1))
    alone = make(torch.tensor([seeds[index]]))
    # Enough steps to see the end of one episode and the beginning of the next.
    actions = actions_for(together, together.episode_length + 3)
    shown = slice(index, index + 1)
    assert equal_logs(play(together, actions, shown), play(alone, actions[:, shown]))


@each_symbolic_kind  # frames, which take longer to draw, are in `test_watermaze.py`
def test_among_thousands_as_well(make: TaskMaker) -> None:
    together, alone = make(torch.arange(3000)), make(torch.tensor([2718]))
    actions = actions_for(together, together.episode_length + 2)
    shown = slice(2718, 2719)
    assert equal_logs(play(together, actions, shown), play(alone, actions[:, shown]))


@each_kind
def test_observations_stay_in_their_space_and_are_not_changed_later(make: TaskMaker) -> None:
    tasks = make(torch.arange(20))
    kept: list[tuple[Tensor, Tensor]] = []
    for row in actions_for(tasks, tasks.episode_length + 5):
        obs = tasks.step(row).obs
        assert obs.shape == (20, *tasks.observation_shape)
        assert obs.dtype == tasks.observation_dtype
        kept.append((obs, obs.clone()))
    assert all(torch.equal(obs, copy) for obs, copy in kept)


@each_symbolic_kind
def test_symbols_are_below_their_sizes(make: TaskMaker) -> None:
    tasks = make(torch.arange(50))
    sizes = torch.tensor(tasks.observation_sizes)
    for row in actions_for(tasks, tasks.episode_length):
        obs = tasks.step(row).obs
        assert ((obs >= 0) & (obs < sizes)).all()


@each_kind
def test_no_policy_earns_more_than_the_optimum(make: TaskMaker) -> None:
    tasks = make(torch.arange(2000))
    total = torch.zeros(2000)
    for row in actions_for(tasks, tasks.episode_length):
        total += tasks.advance(row)
    optimum = tasks.optimal_returns()
    assert optimum.shape == (2000,)
    assert total.mean() < optimum.mean()
    if make is not bandit:  # there the optimum is an expectation
        assert (total <= optimum).all()


@each_kind
def test_bad_actions_are_refused(make: TaskMaker) -> None:
    tasks = make(torch.arange(3))
    tasks.reset()
    with pytest.raises(ValueError, match=r"shape \(1,\), expected one for each of the 3 tasks"):
        tasks.step(torch.tensor([0]))
    for action in (-1, tasks.num_actions):
        with pytest.raises((IndexError, RuntimeError), match=r"out of (range|bounds)"):
            tasks.step(torch.full((3,), action))


@each_kind
def test_advancing_past_the_end_is_refused(make: TaskMaker) -> None:
    tasks = make(torch.arange(3))
    stay = torch.zeros(3, dtype=torch.int64)
    for _ in range(tasks.episode_length):
        tasks.advance(stay)
    assert tasks.is_over
    with pytest.raises(RuntimeError, match=f"over after {tasks.episode_length} steps"):
        tasks.advance(stay)
