import numpy as np
import pytest
import torch

from algdistill.agents import InContextAgent, RandomAgent
from algdistill.evaluation import (
    bootstrap_interval,
    evaluate_in_context,
    improvement,
    interquartile_mean,
    mean_return,
)
from algdistill.tasks import StepResult, TaskSpace
from algdistill.tasks_fake import GridTasks, dark_room_tasks


class ScriptedAgent:
    """Walks right in the first episode and stays from the second on."""

    space = TaskSpace.symbolic((3, 3), 5)

    def reset(self, num_tasks, generator):
        self.num_ended = 0
        self.log = []

    def act(self, obs):
        return torch.full((len(obs),), 2 if self.num_ended == 0 else 0)

    def observe(self, actions, rewards, episode_ended):
        self.log.append((actions.tolist(), rewards.tolist(), episode_ended.tolist()))
        self.num_ended += int(episode_ended[0])


def test_returns_are_those_of_each_episode_and_truth_is_kept_apart():
    seen = torch.zeros(2, 9)
    seen[0, 4], seen[1, 5] = 1.0, 1.0
    truth = torch.zeros(2, 9)
    truth[:, 4] = 1.0
    tasks = GridTasks(seen, env_cell_rewards=truth, episode_length=4)
    agent = ScriptedAgent()
    result = evaluate_in_context(agent, tasks, num_episodes=3, generator=torch.Generator())
    assert result.returns.tolist() == [[0.0, 4.0, 4.0], [4.0, 0.0, 0.0]]
    assert result.env_returns.tolist() == [[0.0, 4.0, 4.0], [0.0, 4.0, 4.0]]
    # The agent is told the reward, not the truth, and every end of an episode.
    assert agent.log[0] == ([2, 2], [0.0, 1.0], [False, False])
    assert [log[2][0] for log in agent.log] == [False, False, False, True] * 3


def test_unpaid_circles_are_found_in_each_episode_of_each_task():
    paid = torch.zeros(2, 9)
    paid[0, 4] = 1.0
    tasks = GridTasks(paid, episode_length=4)
    result = evaluate_in_context(
        ScriptedAgent(), tasks, num_episodes=5, generator=torch.Generator()
    )
    # Right, then against the wall three times: seen on (1, 1), then the same three times.
    assert result.loops.tolist() == [[True] + [False] * 4, [True] * 5]
    assert result.loop_share.tolist() == [1.0, 0.5, 0.5, 0.5, 0.5]


def test_random_agent_earns_the_same_in_every_episode():
    tasks = dark_room_tasks(size=5)
    agent = RandomAgent(TaskSpace.of(tasks))
    result = evaluate_in_context(
        agent, tasks, num_episodes=200, generator=torch.Generator().manual_seed(0)
    )
    halves = result.env_returns[:, :100].mean(), result.env_returns[:, 100:].mean()
    assert halves[0] == pytest.approx(20 / 25, abs=0.05)
    assert halves[1] == pytest.approx(20 / 25, abs=0.05)


def test_agent_for_other_tasks_is_refused(model):
    agent = InContextAgent(model, drop_length=10)
    with pytest.raises(ValueError, match=r"got an agent for TaskSpace.*\(7, 5\)"):
        evaluate_in_context(agent, dark_room_tasks(), num_episodes=1, generator=torch.Generator())
    with pytest.raises(ValueError, match="num_episodes=0"):
        evaluate_in_context(
            RandomAgent(TaskSpace.symbolic((9, 9), 5)),
            dark_room_tasks(),
            num_episodes=0,
            generator=torch.Generator(),
        )


def test_episode_that_ends_early_is_refused():
    class Early(GridTasks):
        def step(self, actions):
            result = super().step(actions)
            ended = torch.ones_like(result.terminated)
            return StepResult(
                obs=result.obs,
                next_obs=result.next_obs,
                reward=result.reward,
                env_reward=result.env_reward,
                terminated=ended,
                truncated=result.truncated,
            )

    with pytest.raises(ValueError, match="9 of 9 episodes ending at step 1"):
        evaluate_in_context(
            RandomAgent(TaskSpace.symbolic((3, 3), 5)),
            Early(torch.eye(9)),
            num_episodes=1,
            generator=torch.Generator(),
        )


def test_statistics_by_hand():
    returns = np.arange(16.0).reshape(2, 4, 2)
    assert mean_return(returns).tolist() == [7.0, 8.0]
    returns[1, 3] = 1000.0
    # Of 0 2 4 6 8 10 12 1000 and of 1 3 … 13 1000, the middle four.
    assert interquartile_mean(returns).tolist() == [7.0, 8.0]
    assert improvement(1)(np.array([[[1.0, 5.0, 4.0], [3.0, 5.0, 8.0]]])).tolist() == [3.0]


def test_interval_covers_the_truth_as_often_as_it_says():
    rng = np.random.default_rng(0)
    covered = 0
    for trial in range(100):
        returns = rng.normal(2.0, 1.0, size=(1, 60, 1))
        interval = bootstrap_interval(returns, mean_return, seed=trial, num_resamples=200)
        covered += bool(interval.low[0] <= 2.0 <= interval.high[0])
    assert 88 <= covered <= 100


def test_episodes_of_one_task_are_resampled_together():
    # Every task improves by exactly 1, however different the tasks are.
    base = np.random.default_rng(0).normal(0.0, 100.0, size=(3, 20, 1))
    returns = np.concatenate([base, base + 1.0], axis=-1)

    def gain(values):
        return np.array([(values[..., 1] - values[..., 0]).mean()])

    interval = bootstrap_interval(returns, gain, seed=0, num_resamples=100)
    assert interval.low[0] == pytest.approx(1.0)
    assert interval.high[0] == pytest.approx(1.0)


def test_interval_depends_on_its_seed_only_and_leaves_numpy_alone():
    returns = np.random.default_rng(0).normal(size=(3, 10, 2))
    np.random.seed(5)  # noqa: NPY002
    expected = np.random.random(3)  # noqa: NPY002
    np.random.seed(5)  # noqa: NPY002
    first = bootstrap_interval(returns, mean_return, seed=1, num_resamples=50)
    assert np.array_equal(np.random.random(3), expected)  # noqa: NPY002
    second = bootstrap_interval(returns, mean_return, seed=1, num_resamples=50)
    other = bootstrap_interval(returns, mean_return, seed=2, num_resamples=50)
    assert np.array_equal(first.low, second.low)
    assert not np.array_equal(first.low, other.low)
    assert np.array_equal(first.value, mean_return(returns))


def test_bad_returns_are_refused():
    with pytest.raises(ValueError, match=r"shape \(1, 0, 2\)"):
        bootstrap_interval(np.zeros((1, 0, 2)), mean_return, seed=0)
    with pytest.raises(ValueError, match="finite"):
        bootstrap_interval(np.full((1, 1, 1), np.nan), mean_return, seed=0)


def test_an_agent_is_prepared_once_it_is_reset():
    calls = []

    class Watched(RandomAgent):
        def reset(self, num_tasks, generator):
            calls.append("reset")
            super().reset(num_tasks, generator)

        def act(self, obs):
            calls.append("act")
            return super().act(obs)

    tasks = dark_room_tasks(size=3)
    evaluate_in_context(
        Watched(TaskSpace.of(tasks)),
        tasks,
        num_episodes=1,
        generator=torch.Generator(),
        prepare=lambda: calls.append("prepare"),
    )
    assert calls[:3] == ["reset", "prepare", "act"]
