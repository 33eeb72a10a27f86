"""What every fleet of source learners promises."""

import inspect
import json
from dataclasses import asdict

import numpy as np
import pytest
import torch

from algdistill import sources
from algdistill.sources import (
    UCB1,
    ActorCritic,
    ActorCriticConfig,
    DeepQLearning,
    DeepQLearningConfig,
    GoalSearch,
    GoalSearchConfig,
    NoisyOracle,
    NoisyOracleConfig,
    SourceFleet,
    TabularQLearning,
    TabularQLearningConfig,
    ThompsonSampling,
    ThompsonSamplingConfig,
    UCB1Config,
)
from vlmreward_envs.adversarial_bandit import AdversarialBanditTasks, draw_arm_probabilities
from vlmreward_envs.dark_room import DARK_ROOM_HARD, DarkRoomTasks
from vlmreward_envs.key_to_door import DarkKeyToDoorTasks

NUM_LEARNERS = 40
FIELDS = ("observations", "actions", "rewards", "env_rewards", "terminated", "truncated")


def bandits(ids):
    return AdversarialBanditTasks(ids, ids, draw_arm_probabilities(ids))


def rooms(ids):
    return DarkRoomTasks(ids * 7 % 81)


def hard_rooms(ids):
    return DarkRoomTasks(ids * 7 % 289, DARK_ROOM_HARD)


def key_rooms(ids):
    return DarkKeyToDoorTasks(ids * 157 % 6561, ids)


CASES = {
    "q_learning": (TabularQLearning, TabularQLearningConfig(6, exploration_episodes=4), rooms),
    "q_learning_hard": (TabularQLearning, TabularQLearningConfig(4), hard_rooms),
    "q_learning_key": (TabularQLearning, TabularQLearningConfig(3), key_rooms),
    "actor_critic": (ActorCritic, ActorCriticConfig(6, learning_rate=0.01), rooms),
    "actor_critic_key": (ActorCritic, ActorCriticConfig(3, rollout_length=30), key_rooms),
    "deep_q_learning": (DeepQLearning, DeepQLearningConfig(6, exploration_episodes=4), rooms),
    "deep_q_learning_key": (DeepQLearning, DeepQLearningConfig(3, update_interval=7), key_rooms),
    "goal_search": (GoalSearch, GoalSearchConfig(6), rooms),
    "goal_search_hard": (GoalSearch, GoalSearchConfig(4, epsilon=0.2), hard_rooms),
    "goal_search_key": (GoalSearch, GoalSearchConfig(3, memory=1), key_rooms),
    "ucb1": (UCB1, UCB1Config(2), bandits),
    "thompson_sampling": (ThompsonSampling, ThompsonSamplingConfig(2), bandits),
    "noisy_oracle": (NoisyOracle, NoisyOracleConfig(6), rooms),
    "noisy_oracle_key": (NoisyOracle, NoisyOracleConfig(3, final_epsilon=0.2), key_rooms),
}


@pytest.fixture(params=CASES, scope="module")
def case(request):
    return CASES[request.param]


def make(case, ids, seed_offset=1000):
    kind, config, tasks = case
    return kind(tasks(ids), config, ids + seed_offset)


@pytest.fixture(scope="module")
def histories(case):
    return make(case, torch.arange(NUM_LEARNERS)).train()


def contents(history):
    return [getattr(history, field).tobytes() for field in FIELDS]


def test_every_fleet_is_tested_here():
    fleets = {
        kind
        for kind in vars(sources).values()
        if inspect.isclass(kind) and issubclass(kind, SourceFleet) and kind is not SourceFleet
    }
    assert fleets == {kind for kind, _, _ in CASES.values()}


def test_same_seed_same_bytes_trained_again_and_made_anew(case, histories):
    fleet = make(case, torch.arange(NUM_LEARNERS))
    for again in (fleet.train(), fleet.train()):
        assert [contents(history) for history in again] == [
            contents(history) for history in histories
        ]


def test_other_seeds_other_actions(case, histories):
    others = make(case, torch.arange(NUM_LEARNERS), seed_offset=5000).train()
    assert not any(
        other.actions.tobytes() == history.actions.tobytes()
        for other, history in zip(others, histories, strict=True)
    )


@pytest.mark.parametrize("index", [0, 13, NUM_LEARNERS - 1])
def test_learner_alone_has_the_history_it_has_in_the_fleet(case, histories, index):
    (alone,) = make(case, torch.tensor([index])).train()
    assert alone.task_id == histories[index].task_id
    assert contents(alone) == contents(histories[index])


def test_histories_are_whole_and_of_their_tasks(case, histories):
    _, config, make_tasks = case
    tasks = make_tasks(torch.arange(NUM_LEARNERS))
    assert [history.task_id for history in histories] == tasks.task_ids.tolist()
    for history in histories:
        assert history.space.num_actions == tasks.num_actions
        assert history.space.observation_sizes == tasks.observation_sizes
        assert len(history) == config.num_episodes * tasks.episode_length
        assert history.observations.dtype == history.actions.dtype == np.uint8


def test_no_dead_steps_at_episode_borders(case, histories):
    """Replayed in fresh tasks, the actions lead to what was recorded, row by row."""
    _, _, make_tasks = case
    tasks = make_tasks(torch.arange(NUM_LEARNERS))
    obs = tasks.reset()
    for row in range(len(histories[0])):
        assert [history.observations[row].tolist() for history in histories] == obs.tolist()
        result = tasks.step(torch.tensor([int(history.actions[row]) for history in histories]))
        assert [history.rewards[row] for history in histories] == result.reward.tolist()
        obs = result.obs
    for history in histories:
        ends = np.flatnonzero(history.truncated)
        assert (ends % tasks.episode_length == tasks.episode_length - 1).all()
        assert len(ends) * tasks.episode_length == len(history)
        assert not history.terminated.any()


def test_metadata_name_algorithm_and_settings(case, histories):
    kind, config, _ = case
    expected = {"source_algorithm": kind.source_algorithm, **asdict(config)}
    assert len(expected) >= 2
    for history in histories:
        assert history.metadata == expected
        assert json.loads(json.dumps(dict(history.metadata))) == expected


def test_each_task_needs_a_seed(case):
    kind, config, make_tasks = case
    with pytest.raises(ValueError, match="one for each of the 3 tasks"):
        kind(make_tasks(torch.arange(3)), config, torch.arange(4))


def test_no_episodes_are_refused(case):
    _, config, _ = case
    with pytest.raises(ValueError, match="num_episodes=0, expected 1 to inf"):
        type(config)(num_episodes=0)
