from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import torch

from algdistill.agents import Agent, InContextAgent, RandomAgent
from algdistill.tasks import TaskSpace
from algdistill.timesteps import TimestepBatch


def play(agent, num_steps, seed=0, num_tasks=3):
    """Feed an agent a random world; returns its logits and the steps it must have seen."""
    generator = torch.Generator().manual_seed(seed)
    space = agent.space
    agent.reset(num_tasks, torch.Generator().manual_seed(seed))
    prev_action = torch.full((num_tasks,), space.num_actions)
    prev_reward = torch.zeros(num_tasks)
    start = torch.ones(num_tasks, dtype=torch.bool)
    logits, seen = [], []
    for _ in range(num_steps):
        obs = torch.stack(
            [
                torch.randint(size, (num_tasks,), generator=generator)
                for size in space.observation_sizes
            ],
            dim=-1,
        )
        seen.append((obs, prev_action, prev_reward, start))
        logits.append(agent.action_logits(obs))
        prev_action = torch.randint(space.num_actions, (num_tasks,), generator=generator)
        prev_reward = torch.rand(num_tasks, generator=generator)
        # Episodes end at other times in other tasks, now and then in none.
        start = torch.rand(num_tasks, generator=generator) < 0.1
        agent.observe(prev_action, prev_reward, start)
    return torch.stack(logits, dim=1), TimestepBatch(
        *(torch.stack(column, dim=1) for column in zip(*seen, strict=True))
    )


@pytest.mark.parametrize("drop_length", [1, 10, 40])
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"positions": "rotary"},
        {"tokens_per_step": 3},
        {"norm": "post", "tokens_per_step": 3, "dropout": 0.1},
        {"norm": "post", "positions": "rotary", "tokens_per_step": 3},
    ],
    ids=str,
)
def test_acting_equals_full_recomputation_across_evictions(make_model, drop_length, options):
    model = make_model(**options)
    agent = InContextAgent(model, drop_length=drop_length)
    logits, seen = play(agent, 105)
    first = 0
    for step in range(105):
        if step - first == 40:
            first += drop_length
        expected = model(seen[slice(first, step + 1)])[:, -1]
        assert torch.allclose(logits[:, step], expected, atol=1e-5), step


@pytest.mark.parametrize("rows", [range(0, 7), range(12, 42), range(3, 60), range(0, 60)])
@pytest.mark.parametrize("drop_length", [1, 10, 40])
@pytest.mark.parametrize("lived_before", [0, 25])
def test_prompting_is_living_through_the_steps(
    model, make_history, drop_length, rows, lived_before
):
    histories = [make_history(num_steps=60, episode_length=20) for _ in range(3)]
    agents = [InContextAgent(model, drop_length=drop_length) for _ in range(2)]
    for agent in agents:
        if lived_before:
            play(agent, lived_before)
        else:
            agent.reset(3, torch.Generator().manual_seed(0))
    prompted, living = agents

    def outcome(row):
        return (
            torch.tensor([int(history.actions[row]) for history in histories]),
            torch.tensor([float(history.rewards[row]) for history in histories]),
            torch.tensor([bool(history.truncated[row]) for history in histories]),
        )

    if rows.start:
        living.observe(*outcome(rows.start - 1))
    for row in rows:
        living.act(torch.tensor(np.stack([h.observations[row] for h in histories])).long())
        living.observe(*outcome(row))
    prompted.prompt(histories, slice(rows.start, rows.stop))
    generator = torch.Generator().manual_seed(2)
    for step in range(45):
        obs = torch.randint(5, (3, 2), generator=generator)
        expected = living.action_logits(obs)
        assert torch.allclose(prompted.action_logits(obs), expected, atol=1e-5), step
        for agent in agents:
            agent.observe(*outcome(step))


def test_prompts_in_pieces_are_one_prompt(model, make_history):
    histories = [make_history(num_steps=60) for _ in range(3)]
    obs, answers = torch.tensor([[3, 2]] * 3), []
    for borders in ([0, 60], [0, 13, 20, 60]):
        agent = InContextAgent(model, drop_length=10)
        agent.reset(3, torch.Generator())
        for start, stop in pairwise(borders):
            agent.prompt(histories, slice(start, stop))
        answers.append(agent.action_logits(obs))
    assert torch.allclose(*answers, atol=1e-5)
    agent.reset(3, torch.Generator())
    assert not torch.allclose(agent.action_logits(obs), answers[0], atol=1e-3)


def test_prompts_that_do_not_fit_are_refused(model, make_history):
    agent = InContextAgent(model, drop_length=10)
    histories = [make_history(num_steps=60), make_history(num_steps=40)]
    with pytest.raises(RuntimeError, match="call `reset`"):
        agent.prompt(histories)
    agent.reset(2, torch.Generator())
    with pytest.raises(ValueError, match="got 1 histories, expected one for each of the 2 tasks"):
        agent.prompt(histories[:1])
    for rows in (slice(0, 41), slice(5, 5), slice(0, 40, 2), slice(-3, None)):
        with pytest.raises(ValueError, match="within the 40 of the shortest"):
            agent.prompt(histories, rows)
    other = replace(histories[0], space=TaskSpace.symbolic((7, 5), 4))
    with pytest.raises(ValueError, match="another space"):
        agent.prompt([other, other])
    agent.act(torch.zeros(2, 2, dtype=torch.long))
    with pytest.raises(RuntimeError, match="call `observe`"):
        agent.prompt(histories)


@pytest.mark.parametrize("temperature", [0.25, 4.0])
def test_temperature_is_an_exponent(model, temperature):
    obs = torch.tensor([[2, 4]]).expand(20_000, 2)
    agent = InContextAgent(model, drop_length=10, temperature=temperature)
    agent.reset(20_000, torch.Generator().manual_seed(0))
    frequency = agent.act(obs).bincount(minlength=3) / 20_000
    agent.reset(1, torch.Generator())
    probabilities = agent.action_logits(obs[:1])[0].softmax(-1)
    expected = probabilities ** (1 / temperature)
    assert torch.allclose(frequency, expected / expected.sum(), atol=0.015)
    assert not torch.allclose(frequency, probabilities, atol=0.05)


@pytest.mark.parametrize(
    "settings", [{"temperature": 0.0}, {"temperature": -1.0}, {"greedy": True, "temperature": 0.5}]
)
def test_temperatures_that_cannot_be_are_refused(model, settings):
    with pytest.raises(ValueError, match=f"temperature={settings['temperature']}"):
        InContextAgent(model, drop_length=10, **settings)


def test_context_outlives_episodes_and_ends_with_reset(model):
    agent = InContextAgent(model, drop_length=10)
    first, _ = play(agent, 30)
    again, _ = play(agent, 30)
    assert torch.equal(first, again)
    # The same observation in a second episode is answered in the light of the first episode.
    agent.reset(1, torch.Generator())
    obs = torch.tensor([[3, 2]])
    answers = []
    for _ in range(2):
        answers.append(agent.action_logits(obs))
        agent.observe(torch.tensor([1]), torch.tensor([1.0]), torch.tensor([True]))
    assert not torch.allclose(answers[0], answers[1], atol=1e-3)


def test_tasks_do_not_see_each_other(model):
    agent = InContextAgent(model, drop_length=10)
    together, seen = play(agent, 50)
    agent.reset(1, torch.Generator())
    for step in range(50):
        now = seen[slice(step, step + 1)]
        if step:
            agent.observe(now.prev_action[1], now.prev_reward[1], now.episode_start[1])
        alone = agent.action_logits(now.obs[1])
        assert torch.allclose(alone, together[1:2, step], atol=1e-5)


def test_weights_stay_frozen(model):
    before = {name: value.clone() for name, value in model.state_dict().items()}
    logits, _ = play(InContextAgent(model, drop_length=10), 60)
    assert not logits.requires_grad
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())


def test_actions_are_sampled_by_default_and_greedy_on_request(model):
    obs = torch.tensor([[2, 4]]).expand(20_000, 2)
    agent = InContextAgent(model, drop_length=10)
    agent.reset(20_000, torch.Generator().manual_seed(0))
    frequency = agent.act(obs).bincount(minlength=3) / 20_000
    agent.reset(1, torch.Generator())
    probabilities = agent.action_logits(obs[:1])[0].softmax(-1)
    assert probabilities.min() > 0.01
    assert torch.allclose(frequency, probabilities, atol=0.015)
    greedy = InContextAgent(model, drop_length=10, greedy=True)
    greedy.reset(50, torch.Generator())
    assert (greedy.act(obs[:50]) == probabilities.argmax()).all()


def test_same_generator_same_actions(model):
    obs = torch.randint(5, (64, 2), generator=torch.Generator().manual_seed(0))
    agent = InContextAgent(model, drop_length=10)
    chosen = []
    for seed in (0, 0, 1):
        agent.reset(64, torch.Generator().manual_seed(seed))
        chosen.append(agent.act(obs))
    assert torch.equal(chosen[0], chosen[1])
    assert not torch.equal(chosen[0], chosen[2])


def test_misuse_is_named(model):
    agent = InContextAgent(model, drop_length=10)
    obs = torch.zeros(2, 2, dtype=torch.long)
    with pytest.raises(RuntimeError, match="call `reset`"):
        agent.act(obs)
    agent.reset(2, torch.Generator())
    agent.act(obs)
    with pytest.raises(RuntimeError, match="call `observe`"):
        agent.act(obs)
    for drop_length in (0, 41):
        with pytest.raises(ValueError, match=f"drop_length={drop_length}"):
            InContextAgent(model, drop_length=drop_length)


def test_agents_are_agents(model):
    assert isinstance(InContextAgent(model, drop_length=1), Agent)
    assert isinstance(RandomAgent(model.config.space), Agent)


def test_random_agent_is_uniform(model):
    agent = RandomAgent(model.config.space)
    agent.reset(9000, torch.Generator().manual_seed(0))
    frequency = agent.act(torch.zeros(9000, 2, dtype=torch.long)).bincount(minlength=3) / 9000
    assert torch.allclose(frequency, torch.full((3,), 1 / 3), atol=0.02)
