import numpy as np
import pytest
import torch
from torch.nn import functional

from algdistill.sources import DeepQLearning, DeepQLearningConfig
from algdistill.sources.deep_q_learning import _Steps
from algdistill.sources.stacked_networks import StackedLinear
from algdistill.tasks import EmbeddedObservations, StepResult
from algdistill.tasks_fake import PixelRoomTasks
from vlmreward_envs.dark_room import DarkRoomConfig, DarkRoomTasks

FIELDS = ("observations", "actions", "rewards")
DISCOUNT = 0.9


def small_rooms(ids):
    return DarkRoomTasks(ids % 9, DarkRoomConfig(size=3, episode_length=8))


def fleet_of(num_learners, **settings):
    ids = torch.arange(num_learners)
    return DeepQLearning(small_rooms(ids), DeepQLearningConfig(**settings), ids)


@pytest.fixture
def generator():
    return torch.Generator().manual_seed(0)


def scatter_heads(fleet, generator):
    """Give both networks values that are not all zero, and differ."""
    with torch.no_grad():
        for network in (fleet.network, fleet.target_network):
            network.head_weight.normal_(generator=generator)


@pytest.mark.parametrize("q_lambda", [0.0, 0.7, 1.0])
def test_targets_equal_those_computed_by_hand(q_lambda, generator):
    """Each is a sum of n-step returns, weighted by lambda, of one sequence of one learner."""
    fleet = fleet_of(2, q_lambda=q_lambda, discount=DISCOUNT)
    scatter_heads(fleet, generator)
    shape = (2, 5, 3)
    _, length, num_sequences = shape
    visited = torch.randint(3, (2, length + 1, num_sequences, 2), generator=generator)
    rewards = torch.randn(shape, generator=generator)
    terminated, truncated = torch.rand(2, *shape, generator=generator) < 0.2
    ended = terminated | truncated
    steps = _Steps(
        visited[:, :-1], torch.zeros_like(ended), rewards, visited[:, 1:], terminated, ended
    )
    found = fleet._targets(steps)
    assert terminated.any()
    assert (ended & ~terminated).any()
    with torch.no_grad():
        online, target = (
            network(visited.flatten(1, 2)).view(2, length + 1, num_sequences, 5) / (1 - DISCOUNT)
            for network in (fleet.network, fleet.target_network)
        )
    for learner, start, sequence in np.ndindex(shape):
        expected, weight, earned = 0.0, 1.0, 0.0
        for step in range(start, length):
            at, after = (learner, step, sequence), (learner, step + 1, sequence)
            power = DISCOUNT ** (step - start)
            earned += power * rewards[at].item()
            best = online[after].argmax()  # Double DQN: chosen by one network, judged by the other
            beyond = 0.0 if terminated[at] else power * DISCOUNT * target[after][best].item()
            last = ended[at] or step == length - 1
            expected += (weight if last else weight * (1 - q_lambda)) * (earned + beyond)
            if last:
                break
            weight *= q_lambda
        assert found[learner, start, sequence].item() == pytest.approx(expected, abs=1e-4)


@pytest.mark.parametrize(("target_rate", "target_interval"), [(1.0, 1), (0.25, 1), (0.5, 2)])
def test_an_update_is_adam_on_the_squared_error_and_the_target_follows(
    target_rate, target_interval, generator
):
    fleet = fleet_of(1, target_rate=target_rate, target_interval=target_interval, num_layers=1)
    scatter_heads(fleet, generator)
    start = [parameter[0].detach().clone() for parameter in fleet.network.parameters()]
    old_target = [value.clone() for value in fleet.target_network.parameters()]
    obs, next_obs = torch.randint(3, (2, 1, 10, 4, 2), generator=generator)
    actions = torch.randint(5, (1, 10, 4), generator=generator)
    rewards = torch.randn(1, 10, 4, generator=generator)
    never = torch.zeros_like(rewards, dtype=torch.bool)
    steps = _Steps(obs, actions, rewards, next_obs, never, never)
    targets = fleet._targets(steps)
    fleet._update(steps)

    weight, bias, table = (torch.nn.Parameter(value) for value in start)
    optimizer = torch.optim.Adam([weight, bias, table], 3e-3, eps=1e-5)
    outputs = torch.tanh(table[obs[0, ..., 0]] + table[3 + obs[0, ..., 1]]) @ weight + bias[0]
    chosen = outputs.gather(-1, actions[0][..., None])[..., 0]
    (0.5 * functional.mse_loss(chosen, (1 - DISCOUNT) * targets[0])).backward()
    torch.nn.utils.clip_grad_norm_([weight, bias, table], 0.5)
    optimizer.step()
    moved = target_rate if target_interval == 1 else 0.0
    for found, expected, follower, before in zip(
        fleet.network.parameters(), (weight, bias, table), fleet.target_network.parameters(),
        old_target, strict=True,
    ):  # fmt: skip
        torch.testing.assert_close(found[0], expected)
        torch.testing.assert_close(follower, before + moved * (found - before))


class Counter:
    """Shows how many steps were taken; the episodes of the second task end after three."""

    num_tasks, episode_length, num_actions, observation_sizes = 2, 4, 2, (1000,)
    task_ids, device = torch.arange(2), torch.device("cpu")

    def reset(self):
        self._count = torch.tensor([[0], [500]])
        return self._count

    def step(self, actions):
        next_obs = self._count + 1
        terminated = torch.tensor([False, next_obs[1, 0] % 3 == 0])
        truncated = (next_obs[:, 0] % 4 == 0) & ~terminated
        self._count = next_obs + (terminated | truncated)[:, None]
        reward = next_obs[:, 0].float()
        return StepResult(self._count, next_obs, reward, reward, terminated, truncated)


def test_memory_holds_the_latest_steps_and_gives_every_sequence_of_them():
    config = DeepQLearningConfig(
        num_episodes=10, replay_capacity=12, batch_size=6, sequence_length=3, update_interval=100
    )
    fleet = DeepQLearning(Counter(), config, torch.arange(2))
    shown = list(fleet.steps())[-12:]
    kept = fleet._remembered(torch.arange(0.0, 1.0, 0.1).expand(2, 10))
    for learner in range(2):
        for sequence in range(10):
            expected = shown[sequence : sequence + 3]
            at = (learner, slice(None), sequence)
            results = [result for _, _, result in expected]
            assert kept.obs[at][:, 0].tolist() == [obs[learner].item() for obs, _, _ in expected]
            assert kept.actions[at].tolist() == [taken[learner].item() for _, taken, _ in expected]
            for name in ("next_obs", "terminated"):
                values = torch.stack([getattr(result, name)[learner] for result in results])
                assert torch.equal(getattr(kept, name)[at], values)
            ended = [bool((r.terminated | r.truncated)[learner]) for r in results]
            assert kept.ended[at].tolist() == ended
    assert kept.terminated[1].any()
    assert not kept.terminated[0].any()


@pytest.mark.parametrize(
    ("num_learners", "settings"),
    [(200, {"hidden_size": 48, "num_layers": 3}), (30, {"sequence_length": 1, "batch_size": 7})],
)
def test_learner_alone_has_the_same_weights_bit_for_bit(num_learners, settings):
    config = DeepQLearningConfig(
        num_episodes=8, exploration_episodes=4, replay_capacity=50, **settings
    )

    def train(learners):
        fleet = DeepQLearning(small_rooms(learners), config, learners)
        return fleet.train(), list(fleet.network.parameters())

    everyone, weights = train(torch.arange(num_learners))
    for learner in (0, 17, num_learners - 1):
        (alone,), own = train(torch.tensor([learner]))
        assert all(
            torch.equal(mine[0], stack[learner]) for mine, stack in zip(own, weights, strict=True)
        )
        assert all(
            getattr(alone, name).tobytes() == getattr(everyone[learner], name).tobytes()
            for name in FIELDS
        )


def mean_returns(fleet):
    """Over all learners, of each episode."""
    return np.mean([history.episode_returns for history in fleet.train()], axis=0)


def test_fleet_learns_dark_rooms_from_random_to_most_of_the_optimum():
    tasks = DarkRoomTasks(torch.arange(25), DarkRoomConfig(size=5))
    returns = mean_returns(DeepQLearning(tasks, DeepQLearningConfig(30), torch.arange(25)))
    optimum = tasks.optimal_returns().mean().item()
    assert returns[:3].mean() < 0.15 * optimum
    assert returns[-5:].mean() > 0.9 * optimum


class FlatFrames(StackedLinear):
    """Every number of a frame, through an affine map of each learner's own."""

    def forward(self, frames):
        return super().forward(frames.flatten(2) / 255)


def seen_as_pixels(rooms, config):
    def first_layer(streams, width):
        return FlatFrames(streams, rooms.observation_shape[0] ** 2 * 3, width)

    return DeepQLearning(rooms, config, rooms.task_ids, first_layer)


def seen_as_embeddings(rooms, config):
    projection = torch.randn(12 * 12 * 3, 16, generator=torch.Generator().manual_seed(0))
    embedded = EmbeddedObservations(rooms, lambda frames: frames.flatten(1) / 255 @ projection / 7)
    return DeepQLearning(embedded, config, rooms.task_ids)


@pytest.mark.parametrize("seen", [seen_as_pixels, seen_as_embeddings])
def test_fleet_learns_rooms_from_frames(seen):
    """At the start an agent is in the middle, paid there or at most two steps away: 7 of 8."""
    config = DeepQLearningConfig(20, exploration_episodes=14, update_interval=1, batch_size=20)
    returns = mean_returns(seen(PixelRoomTasks(torch.arange(9)), config))
    assert returns[:3].mean() < 2.0
    assert returns[-4:].mean() > 6.0


def test_frames_are_remembered_as_bytes_and_need_a_layer():
    rooms, config = PixelRoomTasks(torch.arange(2)), DeepQLearningConfig(1)
    fleet = seen_as_pixels(rooms, config)
    fleet.train()
    frames = [column for column in fleet._memory if column.ndim > 2]
    assert [(column.dtype, column.shape) for column in frames] == [
        (torch.uint8, (2, 8, 12, 12, 3))
    ] * 2
    with pytest.raises(ValueError, match="no first_layer"):
        DeepQLearning(rooms, config, torch.arange(2))


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"hidden_size": 20}, "hidden_size=20, expected a multiple of 16"),
        ({"num_layers": 0}, "num_layers=0"),
        ({"batch_size": 25}, "batch_size=25, expected a multiple of sequence_length=10"),
        ({"batch_size": 0}, "batch_size=0, expected a multiple"),
        ({"replay_capacity": 39}, "replay_capacity=39, expected 40 to inf"),
        ({"q_lambda": 1.1}, "q_lambda=1.1, expected 0 to 1"),
        ({"update_interval": 0}, "update_interval=0"),
        ({"target_interval": 0}, "target_interval=0"),
        ({"target_rate": 0.0}, "target_rate=0.0"),
        ({"final_epsilon": 2.0}, "final_epsilon=2.0"),
        ({"exploration_episodes": -1}, "exploration_episodes=-1"),
        ({"discount": 1.0}, "discount=1.0"),
        ({"learning_rate": 0.0}, "learning_rate=0.0"),
    ],
)
def test_bad_settings_are_refused(setting, message):
    with pytest.raises(ValueError, match=message):
        DeepQLearningConfig(**setting)
