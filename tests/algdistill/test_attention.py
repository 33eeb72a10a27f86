"""Attention weights are those that the model itself uses."""

import doctest
import math

import pytest
import torch
from torch.nn import functional as F

from algdistill.models import attention, attention_weights

SHAPES = [
    {},
    {"norm": "post"},
    {"positions": "rotary"},
    {"norm": "post", "positions": "rotary", "tokens_per_step": 3},
]


@pytest.mark.parametrize("options", SHAPES)
def test_rows_sum_to_one_and_look_at_nothing_later(make_model, sampler, options):
    model, steps = make_model(**options), sampler.sample(3).steps
    weights = attention_weights(model, steps)
    num_tokens = 40 * options.get("tokens_per_step", 1)
    assert weights.shape == (3, 3, 2, num_tokens, num_tokens)
    torch.testing.assert_close(weights.sum(-1), torch.ones(3, 3, 2, num_tokens))
    assert torch.equal(weights, weights.tril())
    assert weights.std() > 0.01  # not all alike


def test_the_first_layer_is_the_softmax_of_queries_and_keys(model, sampler):
    steps = sampler.sample(2).steps
    block = model.blocks[0]
    with torch.no_grad():
        tokens = model.encode(steps) + model.positions
        read = F.layer_norm(tokens, (16,), block.attention_norm.weight, block.attention_norm.bias)
        query, key = (
            F.linear(read, weight, bias)
            for weight, bias in zip(
                block.query_key_value.weight.split(16)[:2],
                block.query_key_value.bias.split(16)[:2],
                strict=True,
            )
        )
    weights = attention_weights(model, steps)
    for head in range(2):
        own = slice(8 * head, 8 * head + 8)
        for row, last in ((0, 0), (1, 17), (1, 39)):
            scores = key[row, : last + 1, own] @ query[row, last, own] / math.sqrt(8)
            expected = scores.exp() / scores.exp().sum()
            torch.testing.assert_close(weights[row, 0, head, last, : last + 1], expected)


@pytest.mark.parametrize("options", SHAPES)
def test_weights_times_values_are_what_every_layer_attends_to(make_model, sampler, options):
    """Whatever torch's fused attention computes, these weights explain it."""
    model, steps = make_model(**options), sampler.sample(2).steps
    seen = []
    for block in model.blocks:
        block.query_key_value.register_forward_hook(lambda *call: seen.append(call[2]))
        block.attention_out.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    with torch.no_grad():
        model(steps)
    read = list(seen)  # projections and what was attended to, layer by layer
    weights = attention_weights(model, steps)
    for layer in range(3):
        projected, attended = read[2 * layer : 2 * layer + 2]
        values = projected[..., 32:].unflatten(-1, (2, 8)).transpose(1, 2)
        mixed = (weights[:, layer] @ values).transpose(1, 2).flatten(2)
        torch.testing.assert_close(mixed, attended, atol=1e-5, rtol=1e-4)


def test_looking_leaves_the_model_as_it_was(model, sampler):
    steps = sampler.sample(2).steps
    with torch.no_grad():
        before = model(steps)
    attention_weights(model, steps)
    with torch.no_grad():
        assert torch.equal(model(steps), before)
    assert not any(block._forward_pre_hooks for block in model.blocks)


def test_too_many_steps_are_refused_and_no_hook_is_left(make_model, sampler):
    model = make_model(context_length=20)
    with pytest.raises(ValueError, match="got 40 time steps"):
        attention_weights(model, sampler.sample(1).steps)
    assert not any(block._forward_pre_hooks for block in model.blocks)


def test_the_example_runs():
    assert doctest.testmod(attention).failed == 0
