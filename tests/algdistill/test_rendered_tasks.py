from types import SimpleNamespace

import pytest
import torch

from algdistill.sources import ActorCritic, ActorCriticConfig, RenderedTasks
from algdistill.spaces import Embedding
from algdistill.task_space import TaskSpace

LENGTH = 6


class Corridors:
    """Left and right in a row of cells; a frame lights the agent's cell, its seed the start."""

    num_actions, episode_length, device = 2, 12, torch.device("cpu")

    def __init__(self, num_tasks):
        self.num_tasks = num_tasks
        self.num_rendered = 0

    def restart(self):
        self.episode = torch.zeros(self.num_tasks, dtype=torch.long)
        self.clock = self.episode.clone()
        self.cell = torch.arange(self.num_tasks) % (LENGTH - 1)

    def begin(self, ended):
        self.episode = self.episode + ended
        self.clock = torch.where(ended, 0, self.clock)
        start = (torch.arange(self.num_tasks) + self.episode) % (LENGTH - 1)
        self.cell = torch.where(ended, start, self.cell)

    def step(self, actions):
        self.cell = (self.cell + 2 * actions - 1).clamp(0, LENGTH - 1)
        self.clock = self.clock + 1
        return SimpleNamespace(
            env_reward=(self.cell == LENGTH - 1).float(),
            terminated=torch.zeros(self.num_tasks, dtype=torch.bool),
            truncated=self.clock == self.episode_length,
        )

    def render(self, rows):
        self.num_rendered += len(rows)
        frames = torch.zeros(len(rows), 2, LENGTH, 3, dtype=torch.uint8)
        frames[torch.arange(len(rows)), :, self.cell[rows]] = 255
        return frames

    def known(self):
        return self.clock[:, None] / self.episode_length


def perceive(frames):
    """The lit cell one-hot; the last cell pays."""
    cells = frames[:, 0, :, 0] / 255
    return cells, cells[:, -1].clone()


@pytest.fixture
def corridors():
    return Corridors(8)


def everything(simulator):
    """What is seen where every frame is looked at."""
    features, paid = perceive(simulator.render(torch.arange(simulator.num_tasks)))
    return torch.cat([features, simulator.known()], dim=1), paid


@pytest.mark.parametrize("ends_when_paid", [False, True])
def test_steps_show_and_pay_what_looking_at_every_frame_would(corridors, ends_when_paid):
    tasks = RenderedTasks(corridors, perceive, ends_when_paid=ends_when_paid)
    plain = Corridors(8)
    plain.restart()
    assert torch.equal(tasks.reset(), everything(plain)[0])
    generator = torch.Generator().manual_seed(0)
    num_ended = 0
    for _ in range(60):
        actions = torch.randint(2, (8,), generator=generator)
        found, expected = tasks.step(actions), plain.step(actions)
        next_obs, paid = everything(plain)
        terminated = (paid > 0) & ends_when_paid
        assert torch.equal(found.next_obs, next_obs)
        assert torch.equal(found.reward, paid)
        assert torch.equal(found.env_reward, expected.env_reward)
        assert torch.equal(found.terminated, terminated)
        assert torch.equal(found.truncated, expected.truncated)
        plain.begin(terminated | expected.truncated)
        assert torch.equal(found.obs, everything(plain)[0])
        num_ended += int((terminated | expected.truncated).sum())
    assert num_ended > 30


def test_remembered_frames_are_not_looked_at_again(corridors):
    looked_at = []

    def perceive_and_count(frames):
        looked_at.append(len(frames))
        return perceive(frames)

    tasks = RenderedTasks(corridors, perceive_and_count)
    assert looked_at == [8]
    tasks.step(torch.zeros(8, dtype=torch.long))  # tasks 0 and 5 begin at the wall on the left
    assert looked_at == [8, 6]
    assert tasks.num_perceived == 14
    tasks.step(torch.ones(8, dtype=torch.long))  # the others go back to where they have been
    assert looked_at == [8, 6, 2]


@pytest.mark.parametrize(("num_remembered", "num_looks"), [(2, 8), (8, 1)])
def test_oldest_frames_are_forgotten(corridors, num_remembered, num_looks):
    tasks = RenderedTasks(corridors, perceive, num_remembered=num_remembered)
    for direction in (1, 1, 0, 0):
        before = tasks.num_perceived
        tasks.step(torch.full((8,), direction))
    # Back in their first cells, but for the one that met the end after a step.
    assert tasks.num_perceived - before == num_looks


def test_some_frame_must_be_remembered(corridors):
    with pytest.raises(ValueError, match="num_remembered=0"):
        RenderedTasks(corridors, perceive, num_remembered=0)


def test_tasks_show_embeddings_and_repeat_themselves(corridors):
    tasks = RenderedTasks(corridors, perceive)
    assert TaskSpace.of(tasks).observations == Embedding(LENGTH + 1)
    first = tasks.reset()
    tasks.step(torch.ones(8, dtype=torch.long))
    assert torch.equal(tasks.reset(), first)


def train(num_episodes, seed=0):
    """One learner in 32 corridors; the share of tasks that each step pays."""
    tasks = RenderedTasks(Corridors(32), perceive, ends_when_paid=True)
    config = ActorCriticConfig(
        num_episodes=num_episodes,
        num_actors=32,
        hidden_size=16,
        rollout_length=8,
        num_epochs=4,
        num_minibatches=4,
        discount=0.9,
    )
    agent = ActorCritic(tasks, config, torch.arange(32) + seed)
    return agent, torch.stack([result.reward.mean() for _, _, result in agent.steps()])


def test_one_learner_in_many_rendered_tasks_learns():
    _, paid = train(num_episodes=12)
    assert paid[:12].mean() < 0.13
    assert paid[-12:].mean() > 0.3  # the ends are 3 steps away on average


def test_same_seed_same_weights():
    agents = [train(num_episodes=2, seed=seed)[0] for seed in (0, 0, 100)]
    one, again, other = ([*agent.network.parameters()] for agent in agents)
    assert all(torch.equal(a, b) for a, b in zip(one, again, strict=True))
    assert not all(torch.equal(a, b) for a, b in zip(one, other, strict=True))
