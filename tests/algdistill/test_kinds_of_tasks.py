"""From a source to an acting agent, whatever tasks show and take."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from algdistill.agents import InContextAgent, RandomAgent
from algdistill.evaluation import evaluate_in_context
from algdistill.histories import HistoryStore, WindowSampler
from algdistill.models import ADTransformer, ADTransformerConfig, KeyValueCache, load_model
from algdistill.sources import NoisyOracle, NoisyOracleConfig
from algdistill.spaces import Continuous, Discrete, Embedding, Pixels
from algdistill.tasks import EmbeddedObservations, TaskSpace
from algdistill.tasks_fake import PixelRoomTasks, PointTasks
from algdistill.training import SELECTION_METRIC, Trainer, TrainingConfig, action_loss


def pixel_rooms():
    return PixelRoomTasks(torch.arange(9).repeat(8))


def points():
    angle = torch.arange(64) * 0.7
    return PointTasks(0.8 * torch.stack([angle.cos(), angle.sin()], dim=-1))


def embedded_rooms():
    projection = torch.randn(12 * 12 * 3, 10, generator=torch.Generator().manual_seed(0))

    def embed(frames):
        return torch.nn.functional.normalize(frames.flatten(1) / 255.0 @ projection, dim=-1)

    return EmbeddedObservations(pixel_rooms(), embed)


TASKS = {"pixels": pixel_rooms, "continuous": points, "embedded": embedded_rooms}


@pytest.fixture(params=TASKS)
def tasks(request):
    return TASKS[request.param]()


@pytest.fixture
def sampler(tasks):
    histories = NoisyOracle(tasks, NoisyOracleConfig(num_episodes=8), tasks.task_ids).train()
    return WindowSampler(
        histories, window_length=32, start_fraction=0.2, generator=np.random.default_rng(0)
    )


def other_than(values):
    """Other values that are possible as well."""
    if values.dtype == torch.bool:
        return ~values
    if values.dtype == torch.uint8:
        return 255 - values
    return 0.5 - values if values.is_floating_point() else (values + 1) % 5


def make_model(space, **options):
    config = ADTransformerConfig(
        space, context_length=32, embed_dim=16, num_layers=2, num_heads=2, mlp_dim=32, **options
    )
    return ADTransformer(config, torch.Generator().manual_seed(0))


def test_what_fakes_show_and_take():
    assert TaskSpace.of(pixel_rooms()) == TaskSpace(Pixels(12, 12), Discrete(5))
    assert TaskSpace.of(points()) == TaskSpace(Embedding(6), Continuous(2))
    assert TaskSpace.of(embedded_rooms()) == TaskSpace(Embedding(10), Discrete(5))


@pytest.mark.parametrize("tokens_per_step", [1, 3])
def test_from_source_to_acting_agent(tasks, sampler, tmp_path, tokens_per_step):
    def evaluate(model):
        agent = InContextAgent(model, drop_length=8)
        result = evaluate_in_context(
            agent, tasks, num_episodes=5, generator=torch.Generator().manual_seed(0)
        )
        return {SELECTION_METRIC: float(result.returns.mean())}

    model = make_model(sampler.space, tokens_per_step=tokens_per_step)
    config = TrainingConfig(
        num_updates=40, batch_size=16, warmup_updates=5, evaluate_every=40, log_every=10
    )
    batch = sampler.sample(64)
    unmasked = torch.zeros(batch.actions.shape[:2], dtype=torch.bool)
    before, _ = action_loss(model(batch.steps), batch.actions, unmasked)
    generator = torch.Generator().manual_seed(0)
    result = Trainer(
        model, sampler, config, tmp_path, evaluate=evaluate, generator=generator
    ).train()
    after, _ = action_loss(model(batch.steps), batch.actions, unmasked)
    assert after < before - 0.1
    loaded = load_model(result.best_model)
    assert torch.equal(loaded(batch.steps), model(batch.steps))


@pytest.mark.parametrize("tokens_per_step", [1, 3])
def test_cache_equals_full_recomputation(sampler, tokens_per_step):
    model = make_model(sampler.space, tokens_per_step=tokens_per_step)
    steps = sampler.sample(3).steps
    cache = KeyValueCache(model.config, 3, model.device)
    outputs = [model(steps[slice(t, t + 1)], cache=cache) for t in range(32)]
    assert torch.allclose(torch.cat(outputs, dim=1), model(steps), atol=1e-5)


@pytest.mark.parametrize("tokens_per_step", [1, 3])
def test_every_input_matters_and_nothing_leaks_backwards(sampler, tokens_per_step):
    model = make_model(sampler.space, tokens_per_step=tokens_per_step)
    steps = sampler.sample(3).steps
    before = model(steps)
    for name in ("obs", "prev_action", "prev_reward", "episode_start"):
        values = getattr(steps, name).clone()
        values[:, 20] = other_than(values[:, 20])
        after = model(replace(steps, **{name: values}))
        assert torch.equal(before[:, :20], after[:, :20])
        assert ((before - after)[:, 20:].abs().amax(dim=(0, 2)) > 1e-7).all(), name


def test_context_of_frames_is_kept_as_tokens(tasks):
    model = make_model(TaskSpace.of(tasks))
    agent = InContextAgent(model, drop_length=8)
    agent.reset(tasks.num_tasks, torch.Generator().manual_seed(0))
    obs = tasks.reset()
    agent.act(obs)
    kept = sum(
        value.numel()
        for value in vars(agent).values()
        if isinstance(value, torch.Tensor) and value.ndim > 2
    )
    assert kept == tasks.num_tasks * 32 * 16


def test_prompting_is_living_through_the_steps(tasks, sampler):
    histories = NoisyOracle(tasks, NoisyOracleConfig(num_episodes=8), tasks.task_ids).train()
    model = make_model(sampler.space)
    prompted, living = (InContextAgent(model, drop_length=8) for _ in range(2))
    for agent in (prompted, living):
        agent.reset(tasks.num_tasks, torch.Generator().manual_seed(0))
    prompted.prompt(histories)
    space = sampler.space
    for row in range(64):
        living.act(torch.from_numpy(np.stack([history.observations[row] for history in histories])))
        actions = np.stack([history.actions[row] for history in histories])
        living.observe(
            torch.from_numpy(actions).to(space.actions.dtype),
            torch.tensor([float(history.rewards[row]) for history in histories]),
            torch.tensor([bool(history.truncated[row]) for history in histories]),
        )
    obs = tasks.reset()
    assert torch.allclose(prompted.action_logits(obs), living.action_logits(obs), atol=1e-5)


def test_histories_are_stored_without_loss(tasks, sampler, tmp_path):
    histories = NoisyOracle(tasks, NoisyOracleConfig(num_episodes=2), tasks.task_ids).train()
    store = HistoryStore.create(tmp_path / "store", sampler.space, num_steps=16)
    store.append(histories)
    for found, expected in zip(store.read(), histories, strict=True):
        assert np.array_equal(found.observations, expected.observations)
        assert np.array_equal(found.actions, expected.actions)


def test_random_agent_does_what_it_may(tasks):
    agent = RandomAgent(TaskSpace.of(tasks))
    agent.reset(tasks.num_tasks, torch.Generator().manual_seed(0))
    obs = tasks.reset()
    actions = torch.stack([agent.act(obs) for _ in range(300)])
    agent.space.actions.check(actions.numpy())
    if isinstance(agent.space.actions, Continuous):
        quarters = torch.histc(actions, bins=4, min=-1.0, max=1.0) / actions.numel()
        assert torch.allclose(quarters, torch.full((4,), 0.25), atol=0.02)
