import numpy as np
import pytest
import torch
from torch.nn import functional

from algdistill.sources import ActorCritic, ActorCriticConfig
from algdistill.sources.policy_gradient import lambda_advantages
from algdistill.sources.random_streams import stream_origins
from algdistill.sources.stacked_adam import clip_each_learner
from algdistill.sources.stacked_networks import (
    StackedLinear,
    StackedLookup,
    StackedPerceptron,
    WeightStreams,
    feature_layer,
    symbolic_layer,
)
from vlmreward_envs.dark_room import DarkRoomConfig, DarkRoomTasks
from vlmreward_envs.key_to_door import DarkKeyToDoorTasks, KeyToDoorConfig

FIELDS = ("observations", "actions", "rewards")


@pytest.fixture
def streams():
    return WeightStreams(stream_origins(torch.arange(4)))


@pytest.fixture
def generator():
    return torch.Generator().manual_seed(0)


def test_lookup_equals_a_linear_map_of_one_hot_observations(streams, generator):
    sizes = (3, 5)
    lookup = StackedLookup(streams, sizes, 16)
    obs = torch.stack([torch.randint(k, (4, 7), generator=generator) for k in sizes], dim=-1)
    one_hot = [functional.one_hot(obs[..., k], size) for k, size in enumerate(sizes)]
    expected = torch.cat(one_hot, dim=-1).float() @ lookup.weight
    torch.testing.assert_close(lookup(obs), expected)


def test_each_learner_has_a_network_of_its_own(streams, generator):
    network = StackedPerceptron(streams, feature_layer(6), 16, 2, 6)
    with torch.no_grad():
        network.head_weight.normal_(generator=generator)
    features = torch.randn(4, 3, 6, generator=generator)
    found = network(features)
    first, second = network.layers
    for learner in range(4):
        hidden = features[learner]
        for layer in (first, second):
            hidden = torch.tanh(hidden @ layer.weight[learner] + layer.bias[learner])
        outputs = hidden @ network.head_weight[learner] + network.head_bias[learner]
        torch.testing.assert_close(found[learner], outputs[:, :6])
    assert not torch.equal(first.weight[0], first.weight[1])


def test_untrained_outputs_are_zero(streams):
    network = StackedPerceptron(streams, symbolic_layer((9, 9)), 16, 1, 17)
    outputs = network(torch.ones(4, 2, 2, dtype=torch.long))
    assert outputs.shape == (4, 2, 17)
    assert not outputs.any()


def test_initial_weights_fill_their_range(streams):
    weight = StackedLinear(streams, 50, 100).weight
    assert weight.abs().max().item() == pytest.approx(0.2, abs=1e-3)
    assert abs(weight.mean().item()) < 2e-3
    assert weight.std().item() == pytest.approx(0.2 / 3**0.5, rel=0.02)


@pytest.mark.parametrize("num_learners", [1, 3])
def test_advantages_equal_those_summed_by_hand(num_learners, generator):
    shape = (num_learners, 9, 2)
    rewards, values, next_values = torch.randn(3, *shape, generator=generator)
    terminated, truncated = torch.rand(2, *shape, generator=generator) < 0.2
    ended = terminated | truncated
    found = lambda_advantages(
        rewards, values, next_values, terminated, ended, discount=0.9, gae_lambda=0.8
    )
    for learner, start, actor in np.ndindex(shape):
        expected, weight = 0.0, 1.0
        for step in range(start, shape[1]):
            at = (learner, step, actor)
            future = 0.0 if terminated[at] else 0.9 * next_values[at].item()
            expected += weight * (rewards[at].item() + future - values[at].item())
            if ended[at]:
                break
            weight *= 0.9 * 0.8
        assert found[learner, start, actor].item() == pytest.approx(expected, abs=1e-5)


def test_only_gradients_that_are_too_long_are_shortened(generator):
    parameters = [
        torch.nn.Parameter(torch.zeros(2, 3, 4)),
        torch.nn.Parameter(torch.zeros(2, 1, 5)),
    ]
    gradients = [torch.randn(parameter.shape, generator=generator) for parameter in parameters]
    for parameter, gradient in zip(parameters, gradients, strict=True):
        gradient[1] *= 1e-3
        parameter.grad = gradient.clone()
    clip_each_learner(parameters, 0.5)
    flat = torch.cat([parameter.grad.flatten(1) for parameter in parameters], dim=1)
    before = torch.cat([gradient.flatten(1) for gradient in gradients], dim=1)
    assert flat[0].norm().item() == pytest.approx(0.5, rel=1e-5)
    torch.testing.assert_close(
        functional.normalize(flat, dim=1), functional.normalize(before, dim=1)
    )
    assert torch.equal(flat[1], before[1])


def test_first_update_equals_one_of_plain_torch():
    """A rollout replayed through a network of `torch.nn` gives the same weights."""
    config = ActorCriticConfig(
        num_episodes=1, hidden_size=16, num_layers=1, entropy_coefficient=0.1
    )
    tasks = DarkRoomTasks(torch.tensor([2]), DarkRoomConfig(size=3))
    fleet = ActorCritic(tasks, config, torch.tensor([5]))
    start = [parameter[0].detach().clone() for parameter in fleet.network.parameters()]
    steps = list(fleet.steps())
    weight, bias, table = (torch.nn.Parameter(value) for value in start)
    optimizer = torch.optim.Adam([weight, bias, table], config.learning_rate, eps=1e-5)
    obs = torch.cat([obs for obs, _, _ in steps])
    next_obs = torch.cat([result.next_obs for _, _, result in steps])
    actions = torch.cat([actions for _, actions, _ in steps])
    rewards = torch.cat([result.reward for _, _, result in steps])

    def outputs(at):
        return torch.tanh(table[at[:, 0]] + table[3 + at[:, 1]]) @ weight + bias[0]

    with torch.no_grad():
        values, next_values = 100 * outputs(obs)[:, 5], 100 * outputs(next_obs)[:, 5]
        advantages = torch.zeros(20)
        later = torch.tensor(0.0)
        for step in reversed(range(20)):
            delta = rewards[step] + 0.99 * next_values[step] - values[step]
            later = delta + 0.99 * 0.95 * later
            advantages[step] = later
    policy = torch.distributions.Categorical(logits=outputs(obs)[:, :5])
    loss = (
        0.5 * functional.mse_loss(outputs(obs)[:, 5], (advantages + values) / 100)
        - (policy.log_prob(actions) * advantages).mean()
        - 0.1 * policy.entropy().mean()
    )
    loss.backward()
    torch.nn.utils.clip_grad_norm_([weight, bias, table], 0.5)
    optimizer.step()
    assert rewards.any()
    for parameter, expected in zip(fleet.network.parameters(), (weight, bias, table), strict=True):
        torch.testing.assert_close(parameter[0], expected)


@pytest.mark.parametrize(
    ("num_learners", "num_actors", "settings"),
    [
        (300, 1, {"hidden_size": 64, "num_layers": 3}),
        (50, 3, {"hidden_size": 48, "rollout_length": 7}),
        (50, 2, {"num_epochs": 3, "num_minibatches": 2}),
    ],
)
def test_learner_alone_has_the_same_weights_bit_for_bit(num_learners, num_actors, settings):
    config = ActorCriticConfig(
        num_episodes=5, num_actors=num_actors, learning_rate=0.01, **settings
    )

    def train(learners):
        rows = (learners[:, None] * num_actors + torch.arange(num_actors)).flatten()
        fleet = ActorCritic(DarkRoomTasks(rows // num_actors * 7 % 81), config, rows)
        return fleet.train(), list(fleet.network.parameters())

    everyone, weights = train(torch.arange(num_learners))
    for learner in (0, 17, num_learners - 1):
        alone, own = train(torch.tensor([learner]))
        assert all(
            torch.equal(mine[0], stack[learner]) for mine, stack in zip(own, weights, strict=True)
        )
        for mine, other in zip(alone, everyone[learner * num_actors :], strict=False):
            assert all(
                getattr(mine, name).tobytes() == getattr(other, name).tobytes() for name in FIELDS
            )


def mean_returns(tasks, **settings):
    """Over all learners, of each episode."""
    config = ActorCriticConfig(num_epochs=4, discount=0.9, **settings)
    histories = ActorCritic(tasks, config, torch.arange(tasks.num_tasks)).train()
    return np.mean([history.episode_returns for history in histories], axis=0)


def test_fleet_learns_dark_rooms_from_random_to_most_of_the_optimum():
    tasks = DarkRoomTasks(torch.arange(25), DarkRoomConfig(size=5))
    returns = mean_returns(tasks, num_episodes=60)
    optimum = tasks.optimal_returns().mean().item()
    assert returns[:5].mean() < 0.1 * optimum
    assert returns[-10:].mean() > 0.9 * optimum


def test_fleet_learns_key_to_door_as_far_as_it_can_without_memory():
    """It cannot know whether it has the key, so its best is a round that passes both."""
    config = KeyToDoorConfig(size=5, episode_length=25)
    ids = torch.arange(0, 625, 26)
    tasks = DarkKeyToDoorTasks(ids, ids, config)
    returns = mean_returns(tasks, num_episodes=60, rollout_length=25)
    assert returns[:3].mean() < 0.7
    assert returns[-10:].mean() > 1.7


class RoomFrames(DarkRoomTasks):
    """Dark Rooms that show their frames."""

    observation_sizes = property(lambda _: None, lambda *_: None)
    observation_shape, observation_dtype = (224, 224, 3), torch.uint8

    def observe(self):
        return self.render()


def test_pixels_are_read_by_a_layer_that_learns(generator):
    class Brightness(torch.nn.Module):
        def __init__(self, width):
            super().__init__()
            weight = 0.1 * torch.randn(1, 3, width, generator=generator)
            self.weight = torch.nn.Parameter(weight)

        def forward(self, frames):
            return (frames.float() / 255).mean(dim=(2, 3)) @ self.weight

    tasks = RoomFrames(torch.tensor([40]))
    config = ActorCriticConfig(num_episodes=2)
    with pytest.raises(ValueError, match="no first_layer"):
        ActorCritic(tasks, config, torch.arange(1))
    layers = []
    agent = ActorCritic(
        tasks,
        config,
        torch.arange(1),
        lambda _, width: layers.append(Brightness(width)) or layers[-1],
    )
    before = agent.network.layers[0].weight.detach().clone()
    assert len(list(agent.steps())) == 40
    assert layers[-1] is agent.network.layers[0]
    assert not torch.equal(layers[-1].weight, before)


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"hidden_size": 20}, "hidden_size=20, expected a multiple of 16"),
        ({"num_layers": 0}, "num_layers=0"),
        ({"num_minibatches": 21}, "num_minibatches=21, expected 1 to 20"),
        ({"discount": 1.0}, "discount=1.0"),
        ({"learning_rate": 0.0}, "learning_rate=0.0"),
        ({"num_actors": 0}, "num_actors=0"),
    ],
)
def test_bad_settings_are_refused(setting, message):
    with pytest.raises(ValueError, match=message):
        ActorCriticConfig(**setting)


def test_tasks_must_divide_among_learners():
    with pytest.raises(ValueError, match="multiple of num_actors=2"):
        ActorCritic(
            DarkRoomTasks(torch.arange(3)), ActorCriticConfig(num_actors=2), torch.arange(3)
        )
