import importlib.util
import math
import sys
from itertools import pairwise

import pytest
import torch
from torch import nn

from vlmreward.backbone.optimisers import OptimiserConfig, is_decayed, make_optimiser
from vlmreward.backbone.properties import PropertyError, check_optimizer

RATE, DECAY, BETA_1, BETA_2 = 0.05, 0.3, 0.9, 0.98
needs_lamb = pytest.mark.skipif(
    importlib.util.find_spec("pytorch_optimizer") is None, reason="needs pytorch_optimizer"
)


def settings(name, **changes):
    given = {"learning_rate": RATE, "weight_decay": DECAY, "betas": (BETA_1, BETA_2)}
    return OptimiserConfig(name, **(given | changes))


def of_matrix(config):
    return lambda parameters: make_optimiser([("weight", parameters[0])], config)


def generator():
    return torch.Generator().manual_seed(0)


def moments(gradient, state):
    mean, square = state or (torch.zeros_like(gradient), torch.zeros_like(gradient))
    return BETA_1 * mean + (1 - BETA_1) * gradient, BETA_2 * square + (1 - BETA_2) * gradient**2


def adamw(weights, gradient, step, state):
    mean, square = moments(gradient, state)
    unbiased = mean / (1 - BETA_1**step)
    scale = (square / (1 - BETA_2**step)).sqrt() + 1e-8
    return weights * (1 - RATE * DECAY) - RATE * unbiased / scale, (mean, square)


def lamb(weights, gradient, step, state):
    mean, square = moments(gradient, state)
    update = mean / (square.sqrt() + 1e-6) + DECAY * weights
    norm = min(math.sqrt((weights**2).sum()), 10.0)
    return weights - RATE * norm * update / (update.norm() + 1e-6), (mean, square)


def test_adamw_follows_its_recurrence():
    check_optimizer(of_matrix(settings("adamw")), adamw, num_steps=5, generator=generator())


@needs_lamb
def test_lamb_follows_its_recurrence():
    check_optimizer(of_matrix(settings("lamb")), lamb, num_steps=5, generator=generator())


@needs_lamb
def test_the_check_catches_the_defaults_of_the_library():
    from pytorch_optimizer import Lamb

    shared = {"lr": RATE, "betas": (BETA_1, BETA_2), "weight_decay": DECAY}
    for changes in ({"adam_debias": True}, {"weight_decouple": False}):
        with pytest.raises(PropertyError, match="after step 1"):
            check_optimizer(
                lambda parameters, changes=changes: Lamb(parameters, **shared, **changes),
                lamb,
                num_steps=1,
                generator=generator(),
            )


@needs_lamb
@pytest.mark.parametrize(("norm", "phi"), [(0.5, 0.5), (4.0, 4.0), (300.0, 10.0)])
def test_lamb_moves_a_matrix_by_a_fraction_of_its_norm_from_the_first_step(norm, phi):
    weights = torch.randn(8, 6, generator=generator())
    parameter = nn.Parameter(weights * norm / weights.norm())
    optimiser = make_optimiser([("weight", parameter)], settings("lamb"))
    for gradient_norm in (1e-2, 1.0, 100.0):
        before = parameter.detach().clone()
        phi = min(before.norm().item(), 10.0)
        parameter.grad = gradient_norm * torch.randn(8, 6, generator=generator())
        optimiser.step()
        moved = (parameter.detach() - before).norm().item()
        assert moved == pytest.approx(RATE * phi, rel=1e-3)


@needs_lamb
def test_lamb_moves_biases_as_adam_does():
    bias = nn.Parameter(torch.zeros(4))
    optimiser = make_optimiser([("bias", bias)], settings("lamb"))
    expected = torch.zeros(4)
    state = None
    for seed in range(4):
        bias.grad = torch.randn(4, generator=torch.Generator().manual_seed(seed))
        mean, square = state = moments(bias.grad.clone(), state)
        expected = expected - RATE * mean / (square.sqrt() + 1e-6)
        optimiser.step()
        torch.testing.assert_close(bias.detach(), expected)


class Part(nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(3, 4)
        self.convolution = nn.Conv2d(2, 3, 3)
        self.words = nn.Embedding(5, 4)
        self.position_table = nn.Embedding(6, 4)
        self.norm = nn.LayerNorm([3, 4])
        self.group_norm = nn.GroupNorm(1, 4)
        self.positions = nn.Parameter(torch.ones(7, 4))
        self.gain = nn.Parameter(torch.ones(4, 1, 1, 1))
        self.skip_gains = nn.Parameter(torch.ones(4, 2))
        self.gate = nn.Parameter(torch.zeros(()))
        self.token = nn.Parameter(torch.ones(1, 1, 4))


def test_only_matrices_decay():
    decayed = {name for name, weights in Part().named_parameters() if is_decayed(name, weights)}
    assert decayed == {"linear.weight", "convolution.weight", "words.weight"}


@pytest.mark.parametrize("name", ["adamw", pytest.param("lamb", marks=needs_lamb)])
def test_decay_alone_shrinks_what_decays_and_nothing_else(name):
    part = Part()
    for weights in part.parameters():
        weights.data.fill_(1.0)
        weights.grad = torch.zeros_like(weights)
    make_optimiser(part.named_parameters(), settings(name)).step()
    for parameter, weights in part.named_parameters():
        unmoved = torch.equal(weights.detach(), torch.ones_like(weights))
        assert unmoved != is_decayed(parameter, weights), parameter
        assert weights.max().item() <= 1.0


def test_frozen_parameters_are_left_out():
    part = Part()
    part.linear.requires_grad_(False)
    groups = make_optimiser(part.named_parameters(), OptimiserConfig()).param_groups
    held = {id(weights) for group in groups for weights in group["params"]}
    assert held == {id(weights) for weights in part.parameters() if weights.requires_grad}
    with pytest.raises(ValueError, match="nothing to train"):
        make_optimiser(part.requires_grad_(False).named_parameters(), OptimiserConfig())


def test_lamb_says_how_to_install_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "pytorch_optimizer", None)
    with pytest.raises(ImportError, match=r"pip install 'vlmreward\[lamb\]'"):
        make_optimiser(Part().named_parameters(), OptimiserConfig("lamb"))


def test_learning_rate_warms_up_and_follows_a_cosine():
    config = OptimiserConfig(learning_rate=2.0, warmup_steps=10, final_learning_rate_fraction=0.1)
    rates = [config.learning_rate_at(step, 110) for step in range(111)]
    assert rates[:10] == pytest.approx([0.2 * (step + 1) for step in range(10)])
    assert rates[10] == pytest.approx(2.0)
    assert rates[60] == pytest.approx(0.2 + 1.8 * 0.5)
    assert rates[35] == pytest.approx(0.2 + 1.8 * (1 + math.cos(math.pi / 4)) / 2)
    assert rates[110] == pytest.approx(0.2)
    assert all(later <= earlier for earlier, later in pairwise(rates[10:]))


def test_without_a_warm_up_the_first_step_is_at_the_peak():
    config = OptimiserConfig(learning_rate=3.0, warmup_steps=0)
    assert config.learning_rate_at(0, 5) == 3.0
    assert config.learning_rate_at(5, 5) == pytest.approx(0.0)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"name": "sgd"}, "sgd"),
        ({"learning_rate": 0.0}, "learning_rate=0.0"),
        ({"betas": (0.9, 1.0)}, "betas="),
        ({"warmup_steps": -1}, "warmup_steps=-1"),
        ({"final_learning_rate_fraction": 1.5}, "final_learning_rate_fraction=1.5"),
        ({"weight_decay": -0.1}, "weight_decay=-0.1"),
    ],
)
def test_settings_out_of_range_are_named(changes, message):
    with pytest.raises((ValueError, TypeError), match=message):  # annotations are checked in tests
        OptimiserConfig(**changes)
