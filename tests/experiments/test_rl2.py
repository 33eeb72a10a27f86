"""RL², whose policy reads what happened and remembers it from episode to episode."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from sb3_contrib.common.recurrent.policies import RecurrentActorCriticPolicy

import dark_room
import key_to_door
from algdistill.agents import Agent
from algdistill.evaluation import evaluate_in_context
from algdistill.tasks import TaskSpace
from in_context_learning import Options, run_experiment
from rl2 import RL2Config, TrialEnv, load_rl2, train_rl2
from rl2_agent import PolicyInputs, RL2Agent, TrialPolicy
from vlmreward_envs.dark_room import DarkRoomConfig, DarkRoomTasks
from vlmreward_envs.grid import Move

ROOM = DarkRoomConfig(size=3, episode_length=2)
CONFIG = RL2Config(
    num_updates=2, evaluate_every=1, num_trials=4, episodes_per_trial=3, hidden_size=8
)
LEFT_OR_RIGHT = torch.tensor([3, 5])
"""Goals beside the centre, where everyone starts."""


def make_tasks(ids, streams):
    del streams
    return DarkRoomTasks(ids, ROOM)


SPACE = TaskSpace.of(make_tasks(LEFT_OR_RIGHT, LEFT_OR_RIGHT))


@pytest.fixture(scope="module")
def agent(tmp_path_factory):
    folder = tmp_path_factory.mktemp("rl2")
    train_rl2(make_tasks, LEFT_OR_RIGHT, CONFIG, folder, evaluate=lambda agent: 0.0, seed=0)
    return load_rl2(folder / "best.safetensors", SPACE, CONFIG)


def test_what_the_policy_reads_by_hand():
    inputs = PolicyInputs(SPACE)
    assert inputs.dim == 13
    inputs.reset(2)
    obs = torch.tensor([[0, 2], [1, 1]])
    none = [0, 0, 0, 0, 0]
    assert inputs.vectors(obs).tolist() == [
        [1, 0, 0, 0, 0, 1, *none, 0, 1],
        [0, 1, 0, 0, 1, 0, *none, 0, 1],
    ]
    inputs.observe(torch.tensor([4, 0]), torch.tensor([0.5, 1.0]), torch.tensor([False, True]))
    assert inputs.vectors(obs).tolist() == [
        [1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1, 0.5, 0],
        [0, 1, 0, 0, 1, 0, 1, 0, 0, 0, 0, 1.0, 1],
    ]


def test_a_trial_is_several_episodes_of_one_task():
    env = TrialEnv(make_tasks, LEFT_OR_RIGHT, replace(CONFIG, num_trials=40))
    first, _ = env.reset(seed=0)
    left = np.full(40, Move.LEFT)
    seen = [env.step(left) for _ in range(7)]
    assert [over.all() for _, _, over, _, _ in seen] == [False] * 5 + [True, False]
    assert [obs[0, -1] for obs, *_ in seen] == [0, 1, 0, 1, 0, 1, 0]  # episodes of two steps
    # Paid in each episode's first step where the goal is on the left; the wall is no way further.
    rewards = np.stack([reward for _, reward, *_ in seen])
    on_the_left = rewards[0] == 1
    assert 0 < on_the_left.sum() < 40
    np.testing.assert_array_equal(rewards[:6], np.tile(on_the_left, (6, 1)))
    assert (rewards[6] != rewards[0]).any()  # tasks of their own
    # Between episodes the previous action and its reward are known, between trials they are not.
    np.testing.assert_array_equal(seen[1][0][:, 6 + Move.LEFT], 1)
    np.testing.assert_array_equal(seen[1][0][:, -2], on_the_left)
    np.testing.assert_array_equal(seen[5][0], first)
    np.testing.assert_array_equal(np.stack(seen[5][4]["final_obs"]), seen[1][0])
    again, _ = env.reset(seed=0)
    np.testing.assert_array_equal(again, first)
    np.testing.assert_array_equal(env.step(left)[1], rewards[0])


@pytest.mark.parametrize("starts", [[], [0], [0, 5], [3]], ids=str)
def test_a_trial_read_at_once_is_read_as_the_library_reads_it(starts):
    lstm = torch.nn.LSTM(6, 8)
    episode_starts = torch.zeros(4, 7)
    episode_starts[1:3, starts] = 1
    arguments = (
        torch.randn(4 * 7, 6),
        (torch.randn(1, 4, 8), torch.randn(1, 4, 8)),
        episode_starts.flatten(),
        lstm,
    )
    ours, our_state = TrialPolicy._process_sequence(*arguments)
    theirs, their_state = RecurrentActorCriticPolicy._process_sequence(*arguments)
    torch.testing.assert_close(ours, theirs)
    torch.testing.assert_close(our_state, their_state)


def live(agent, actions, rewards):
    """Logits before each action, in episodes of two steps at the centre."""
    obs = torch.ones(1, 2, dtype=torch.int64)
    logits = []
    for step, (action, reward) in enumerate(zip(actions, rewards, strict=True)):
        logits.append(agent.action_logits(obs))
        agent.observe(torch.tensor([action]), torch.tensor([reward]), torch.tensor([step % 2 == 1]))
    return torch.cat(logits)


def test_memory_outlives_episodes_and_ends_with_reset(agent):
    def logits(actions, rewards):
        agent.reset(1, torch.Generator())
        return live(agent, actions, rewards)

    # Both know of the step before, in which the same was done and paid: the rest is memory.
    paid = logits([1, 2, 3, 3, 0], [1.0, 0.0, 0.0, 0.0, 0.0])
    unpaid = logits([4, 2, 3, 3, 0], [0.0, 0.0, 0.0, 0.0, 0.0])
    torch.testing.assert_close(paid[0], unpaid[0])
    assert all((paid[step] - unpaid[step]).abs().max() > 1e-5 for step in range(1, 5))
    torch.testing.assert_close(logits([1, 2, 3, 3, 0], [1.0, 0.0, 0.0, 0.0, 0.0]), paid)


def test_agents_act_as_the_policy_was_trained(agent):
    """Step by step gives what reading the whole trial at once gives, as updates do."""
    env = TrialEnv(make_tasks, LEFT_OR_RIGHT, replace(CONFIG, num_trials=1))
    obs, _ = env.reset(seed=0)
    actions, read, rewards = [0, 1, 2, 3, 4, 1], [], []
    for action in actions:
        read.append(torch.from_numpy(obs))
        obs, reward, *_ = env.step(np.array([action]))
        rewards.append(float(reward[0]))
    starts = torch.zeros(6)
    starts[0] = 1
    stale = (torch.randn(1, 1, 8), torch.randn(1, 1, 8))
    with torch.no_grad():
        whole, _ = agent.policy.get_distribution(torch.cat(read), stale, starts)
    at_once = whole.distribution.logits  # the policy makes the next distribution in its place
    agent.reset(1, torch.Generator())
    tasks = make_tasks(LEFT_OR_RIGHT[:1], None)
    positions = tasks.reset()
    for step, action in enumerate(actions):
        logits = agent.action_logits(positions)
        torch.testing.assert_close(logits[0], at_once[step])
        result = tasks.step(torch.tensor([action]))
        agent.observe(torch.tensor([action]), torch.tensor([rewards[step]]), result.truncated)
        positions = result.obs


def test_it_learns_to_learn(tmp_path):
    """Left or right is found out by trying, and then known."""
    config = RL2Config(
        num_updates=30, evaluate_every=30, num_trials=64, episodes_per_trial=3, hidden_size=16,
        learning_rate=1e-2,
    )  # fmt: skip
    train_rl2(make_tasks, LEFT_OR_RIGHT, config, tmp_path, evaluate=lambda agent: 0.0, seed=0)
    agent = load_rl2(tmp_path / "best.safetensors", SPACE, config)
    assert isinstance(agent, Agent)
    tasks = make_tasks(LEFT_OR_RIGHT.repeat(100), None)
    found = evaluate_in_context(
        agent, tasks, num_episodes=3, generator=torch.Generator().manual_seed(0)
    ).env_returns.mean(axis=0)
    # Who does not remember earns at most 1 of 2 in the mean: always left, or always right.
    assert found[0] < 1.2
    assert found[2] > 1.6


def test_the_best_policy_is_kept_and_the_same_seed_gives_it_again(tmp_path):
    def train(name, seed, measures):
        folder = tmp_path / name
        measured = iter(measures)
        found = train_rl2(
            make_tasks, LEFT_OR_RIGHT, CONFIG, folder, evaluate=lambda _: next(measured), seed=seed
        )
        return found, load_file(folder / "best.safetensors")

    def same(one, other):
        return all(torch.equal(one[name], other[name]) for name in one)

    found, first = train("first", 0, [2.0, 1.0])
    assert found == (2.0, 1)
    assert same(train("again", 0, [2.0, 1.0])[1], first)
    found, last = train("last", 0, [1.0, 2.0])
    assert found == (2.0, 2)
    assert not same(last, first)
    assert not same(train("other", 1, [2.0, 1.0])[1], first)


def test_killed_training_goes_on_as_if_it_had_not_been(tmp_path):
    config = replace(CONFIG, num_updates=3, evaluate_every=1)

    def train(name, measures):
        def evaluate(_):
            if isinstance(measure := measures.pop(0), BaseException):
                raise measure
            return measure

        return train_rl2(
            make_tasks, LEFT_OR_RIGHT, config, tmp_path / name, evaluate=evaluate, seed=0
        )

    found = train("through", [1.0, 3.0, 4.0])
    with pytest.raises(KeyboardInterrupt):
        train("killed", [1.0, KeyboardInterrupt()])
    assert train("killed", [3.0, 4.0]) == found == (4.0, 3)
    through, resumed = (
        load_file(tmp_path / name / "best.safetensors") for name in ("through", "killed")
    )
    for name, weights in through.items():
        assert torch.equal(resumed[name], weights), name
    assert train("killed", []) == found


def test_greedy_agents_take_the_likeliest_action(agent):
    greedy = RL2Agent(agent.policy, SPACE, greedy=True)
    obs = torch.tensor([[1, 1], [0, 2]])
    greedy.reset(2, torch.Generator())
    expected = greedy.action_logits(obs).argmax(dim=1)
    greedy.reset(2, torch.Generator())
    assert torch.equal(greedy.act(obs), expected)


def test_training_without_an_evaluation_is_refused():
    with pytest.raises(ValueError, match="evaluate_every=3, expected 1 to num_updates=2"):
        replace(CONFIG, evaluate_every=3)


def test_the_experiment_compares_it_with_what_is_distilled(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    options = Options(preset="debug", seeds=(0,), methods=("rl2", "dpt"))
    run = run_experiment(dark_room.TASK, options)
    summary = json.loads((run / "summary.json").read_text())
    assert list(summary["methods"]) == ["dpt", "rl2"]
    assert summary["in_context"]["method"] == "dpt"
    assert summary["methods"]["rl2"]["source"] is None
    assert summary["settings"]["methods"]["rl2"]["num_trials"] == 4
    assert {str(file.relative_to(run).with_suffix("")) for file in run.rglob("*.npz")} == {
        "random", "dpt/histories_0", "dpt/distil_0", "dpt/returns_0", "dpt/source",
        "rl2/train_0", "rl2/returns_0",
    }  # fmt: skip
    report = (run / "report.html").read_text()
    assert "Decision-Pretrained Transformer" in report
    assert "RL²" in report


def test_it_is_trained_only_where_it_is_named_and_never_alone(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert "rl2" not in dark_room.TASK.methods
    assert "rl2" in dark_room.TASK.titles
    assert "rl2" not in key_to_door.TASK.titles
    with pytest.raises(ValueError, match="got RL² alone, expected another method"):
        run_experiment(dark_room.TASK, Options(preset="debug", methods=("rl2",)))
