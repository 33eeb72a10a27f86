import math

import pytest
import torch

from vlmreward.backbone.layers import (
    Attention,
    AttentionPool,
    Block,
    MaxAttentionPool,
    dropped,
    linear,
)
from vlmreward.backbone.properties import (
    PropertyError,
    check_batch_independence,
    check_causality,
    check_eval_determinism,
    check_gradients,
    check_parameter_count,
)


def draws(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def tokens(batch: int = 2, length: int = 5, width: int = 8) -> torch.Tensor:
    return torch.randn(batch, length, width, generator=draws(1))


CAUSAL = torch.ones(5, 5, dtype=torch.bool).tril()


def by_hand(layer: Attention, queries, context, mask) -> torch.Tensor:
    """Attention one query and one head at a time, in double precision; queries that read: some."""
    output = torch.zeros(queries.shape, dtype=torch.float64)
    width = queries.shape[-1] // layer.num_heads
    query = torch.nn.functional.linear(queries, layer.query.weight, layer.query.bias)
    mixed = torch.nn.functional.linear(context, layer.key_value.weight, layer.key_value.bias)
    keys, values = mixed.chunk(2, dim=-1)
    for row, position in torch.cartesian_prod(*map(torch.arange, queries.shape[:2])).tolist():
        readable = mask[row, position].nonzero()[:, 0].tolist()
        heads = []
        for head in range(layer.num_heads):
            part = slice(head * width, (head + 1) * width)
            scores = [
                math.exp(query[row, position, part] @ keys[row, place, part] / math.sqrt(width))
                for place in readable
            ]
            read = sum(
                score / sum(scores) * values[row, place, part].double()
                for score, place in zip(scores, readable, strict=True)
            )
            heads.append(read)
        if readable:
            output[row, position] = layer.out.weight.double() @ torch.cat(heads)
            output[row, position] += layer.out.bias.double()
    return output


@torch.no_grad()
def test_attention_equals_the_formula_also_where_nothing_may_be_read() -> None:
    layer = Attention(8, 2, draws(), context_dim=6)
    layer.out.bias.fill_(0.3)
    queries, context = tokens(), tokens(length=4, width=6)
    mask = torch.rand(2, 5, 4, generator=draws(2)) < 0.5
    mask[0, 1] = False
    mask[1, 3] = False
    output = layer(queries, context, mask)
    torch.testing.assert_close(
        output, by_hand(layer, queries, context, mask).float(), atol=1e-6, rtol=1e-5
    )
    assert output[0, 1].eq(0).all()
    assert output[1, 3].eq(0).all()


def test_a_query_that_reads_nothing_has_no_gradient_and_spoils_none() -> None:
    layer = Attention(8, 2, draws())
    inputs = tokens().requires_grad_()
    mask = CAUSAL.clone()
    mask[2] = False
    output = layer(inputs, inputs, mask)
    (gradient,) = torch.autograd.grad(output[:, 2].sum(), inputs, retain_graph=True)
    assert gradient.eq(0).all()
    (gradient,) = torch.autograd.grad(output.sum(), inputs)
    assert gradient.isfinite().all()
    assert gradient.ne(0).any()


@torch.no_grad()
def test_one_mask_for_all_rows_equals_it_repeated_for_each() -> None:
    block = Block(8, 2, 16, draws())
    each = CAUSAL.expand(2, 5, 5)
    torch.testing.assert_close(block(tokens(), CAUSAL), block(tokens(), each), atol=1e-6, rtol=0)
    everything = torch.ones(5, 5, dtype=torch.bool)
    torch.testing.assert_close(block(tokens(), everything), block(tokens()), atol=1e-6, rtol=0)


@torch.no_grad()
def test_the_block_puts_the_norm_before_each_part() -> None:
    block = Block(8, 2, 16, draws())
    inputs = tokens()
    normal = torch.nn.functional.layer_norm
    middle = inputs + block.attention(normal(inputs, (8,)), normal(inputs, (8,)), CAUSAL)
    expanded = torch.nn.functional.gelu(block.mlp.expand(normal(middle, (8,))))
    torch.testing.assert_close(block(inputs, CAUSAL), middle + block.mlp.out(expanded))


def test_a_mask_is_all_that_decides_what_reads_what() -> None:
    block = Block(8, 2, 16, draws())
    check_causality(lambda x: block(x, CAUSAL), tokens(), generator=draws())
    check_batch_independence(lambda x: block(x["x"], CAUSAL), {"x": tokens()}, generator=draws())
    with pytest.raises(PropertyError):
        check_causality(lambda x: block(x, CAUSAL.T), tokens(), generator=draws())


def test_dropout_happens_in_training_with_a_generator() -> None:
    block = Block(8, 2, 16, draws(), dropout=0.5)
    whole = Block(8, 2, 16, draws())(tokens())
    assert torch.equal(block(tokens()), whole)
    first, again = (block(tokens(), generator=draws(3)) for _ in range(2))
    assert torch.equal(first, again)
    assert not torch.equal(first, whole)
    check_eval_determinism(block, tokens(), None, draws(3))
    assert torch.equal(block.eval()(tokens(), generator=draws(3)), whole)


def test_dropped_keeps_the_mean() -> None:
    values = dropped(torch.ones(100_000), 0.2, draws())
    torch.testing.assert_close(values.unique(), torch.tensor([0.0, 1.25]))
    assert values.mean().item() == pytest.approx(1.0, abs=0.01)


def test_each_query_of_the_pool_reads_its_own_tokens() -> None:
    pool = AttentionPool(8, 2, 2, draws())
    mask = torch.tensor([[True, True, False], [False, False, True]])

    def forward(inputs):
        first, second = pool(torch.cat([inputs["ab"], inputs["c"]], 1), mask).unbind(1)
        return {"first": first, "second": second}

    inputs = {"ab": tokens(length=2), "c": tokens(length=1)}
    check_gradients(forward, inputs, {"first": {"ab"}, "second": {"c"}})
    emptied = pool(tokens(length=3), torch.zeros(2, 3, dtype=torch.bool))
    assert torch.equal(emptied, torch.zeros(2, 2, 8))


def test_the_pool_does_not_care_for_the_order_of_tokens() -> None:
    pool = AttentionPool(8, 2, 3, draws())
    torch.testing.assert_close(pool(tokens()), pool(tokens().flip(1)), atol=1e-6, rtol=0)


@torch.no_grad()
def test_the_max_pool_adds_the_maximum_of_what_is_read() -> None:
    pool = MaxAttentionPool(8, 2, 2, draws())
    mask = torch.tensor([[True, True, False, False, True], [False] * 5])
    values = tokens()
    pooled = pool(values, mask)
    largest = values[:, [0, 1, 4]].amax(dim=1)
    expected = pool.attention(values, mask)[:, 0] + pool.out(pool.norm(largest))
    torch.testing.assert_close(pooled[:, 0], expected, atol=1e-6, rtol=0)
    assert not pooled[:, 1].any()
    torch.testing.assert_close(pool(values, mask.expand(2, -1, -1)), pooled)
    first_row_reads_nothing = torch.stack([torch.zeros_like(mask), mask])
    assert not pool(values, first_row_reads_nothing)[0].any()


def test_each_query_of_the_max_pool_reads_its_own_tokens() -> None:
    pool = MaxAttentionPool(8, 2, 2, draws())
    own = torch.tensor([[True, True, False, False, False], [False, False, True, True, True]])

    def pooled(inputs, mask=own):
        both = pool(torch.cat([inputs["first"], inputs["last"]], dim=1), mask)
        return {"first": both[:, 0], "last": both[:, 1]}

    inputs = {"first": tokens(length=2), "last": tokens(length=3)}
    reads = {"first": {"first"}, "last": {"last"}}
    check_gradients(pooled, inputs, reads)
    with pytest.raises(PropertyError, match="'first' with respect to input 'last'"):
        check_gradients(lambda given: pooled(given, torch.ones_like(own)), inputs, reads)
    check_batch_independence(
        lambda given: pool(given["all"], own), {"all": tokens()}, generator=draws(2)
    )


def test_a_query_of_the_max_pool_that_reads_nothing_has_no_gradient() -> None:
    pool, values = MaxAttentionPool(8, 2, 2, draws()), tokens().requires_grad_()
    mask = torch.tensor([[True, False, False, False, False], [False] * 5])
    pool(values, mask).square().sum().backward()
    assert all(bool(weights.grad.isfinite().all()) for weights in pool.parameters())
    assert values.grad[:, 0].any()
    assert not values.grad[:, 1:].any()


def test_weights_come_from_the_generator_alone() -> None:
    state = torch.get_rng_state()
    one, same, other = (Block(8, 2, 16, draws(seed)).state_dict() for seed in (0, 0, 1))
    assert torch.equal(state, torch.get_rng_state())
    assert all(torch.equal(one[name], same[name]) for name in one)
    drawn = [name for name in one if name.endswith("weight") and "norm" not in name]
    assert len(drawn) == 5
    assert all(not torch.equal(one[name], other[name]) for name in drawn)
    assert linear(400, 300, draws()).weight.std().item() == pytest.approx(1 / 20, rel=0.02)


def test_parameters() -> None:
    norm, attention, mlp = 2 * 8, 4 * (8 * 8 + 8), 8 * 16 + 16 + 16 * 8 + 8
    check_parameter_count(Block(8, 2, 16, draws()), 2 * norm + attention + mlp)
    check_parameter_count(AttentionPool(8, 2, 3, draws()), 3 * 8 + norm + attention)


def test_impossible_settings_are_refused() -> None:
    with pytest.raises(ValueError, match="embed_dim=8 and num_heads=3"):
        Attention(8, 3, draws())
    with pytest.raises(ValueError, match=r"dropout=1\.0"):
        Block(8, 2, 16, draws(), dropout=1.0)
