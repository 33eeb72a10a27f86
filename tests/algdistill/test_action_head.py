import math

import pytest
import torch
from torch.distributions import Independent, Normal

from algdistill.models.action_head import (
    LOG_STD_BOUNDS,
    gaussian,
    likeliest_action,
    num_outputs,
    sample_action,
)
from algdistill.spaces import Continuous, Discrete
from algdistill.training import action_loss


@pytest.fixture
def outputs():
    return torch.randn(3, 7, 4, generator=torch.Generator().manual_seed(0))


def test_number_of_outputs():
    assert num_outputs(Discrete(5)) == 5
    assert num_outputs(Continuous(3)) == 6


def test_standard_deviation_has_bounds_and_moves_between_them():
    low, high = LOG_STD_BOUNDS
    raw = torch.tensor([-1e4, 0.0, 1e4])
    mean, log_std = gaussian(torch.cat([torch.tensor([-3.0, 0.5, 9.0]), raw]))
    assert mean.tolist() == [-3.0, 0.5, 9.0]
    assert log_std.tolist() == [low, (low + high) / 2, high]


def test_loss_of_continuous_actions_is_their_likelihood(outputs):
    actions = 2.0 * torch.rand(3, 7, 2, generator=torch.Generator().manual_seed(1)) - 1.0
    masked = torch.zeros(3, 7, dtype=torch.bool)
    masked[1, 2:5] = True
    mean, log_std = gaussian(outputs)
    distribution = Independent(Normal(mean, log_std.exp()), 1)
    loss, error = action_loss(outputs, actions, masked)
    expected = -distribution.log_prob(actions)[~masked].mean()
    assert loss.item() == pytest.approx(expected.item(), rel=1e-5)
    distances = [
        abs(float(mean[b, t, a] - actions[b, t, a]))
        for b in range(3) for t in range(7) for a in range(2) if not masked[b, t]
    ]  # fmt: skip
    assert error.item() == pytest.approx(sum(distances) / 36, rel=1e-5)


def test_loss_of_continuous_actions_trains_visible_steps_and_no_other(outputs):
    masked = torch.rand(3, 7, generator=torch.Generator().manual_seed(1)) < 0.4
    outputs.requires_grad_()
    action_loss(outputs, torch.zeros(3, 7, 2), masked)[0].backward()
    assert torch.equal((outputs.grad != 0).all(-1), ~masked)
    assert torch.equal((outputs.grad != 0).any(-1), ~masked)


def test_continuous_labels_are_not_smoothed(outputs):
    unmasked = torch.zeros(3, 7, dtype=torch.bool)
    with pytest.raises(ValueError, match=r"label_smoothing=0\.1 for continuous actions"):
        action_loss(outputs, torch.zeros(3, 7, 2), unmasked, label_smoothing=0.1)


@pytest.mark.parametrize("temperature", [1.0, 0.25])
def test_continuous_actions_are_drawn_as_told_and_clipped(temperature):
    raw = torch.tensor([0.2, 0.9, 0.4, 0.8])  # standard deviations e^-1 and e^-0.55
    count = 40_000
    actions = sample_action(
        Continuous(2), raw.expand(count, 4), temperature, torch.Generator().manual_seed(0)
    )
    std = gaussian(raw)[1].exp() * math.sqrt(temperature)
    normal = Normal(raw[:2], std)
    for point in (-0.5, 0.2, 0.7):
        share = (actions <= point).float().mean(0)
        assert torch.allclose(share, normal.cdf(torch.tensor(point)), atol=0.01)
    assert (actions == 1.0).float().mean(0)[1].item() == pytest.approx(
        1.0 - normal.cdf(torch.tensor(1.0))[1].item(), abs=0.01
    )
    assert actions.abs().max() <= 1.0


def test_likeliest_actions():
    assert likeliest_action(Discrete(3), torch.tensor([[0.1, 2.0, -5.0]])).tolist() == [1]
    best = likeliest_action(Continuous(2), torch.tensor([[0.25, -7.0, 3.0, 3.0]]))
    assert best.tolist() == [[0.25, -1.0]]
