import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from vlmreward.backbone.properties import (
    PropertyError,
    check_batch_independence,
    check_eval_determinism,
    check_gradients,
    check_parameter_count,
)
from vlmreward.backbone.summariser import TokenSummariser


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def summariser(cls=TokenSummariser):
    return cls(embed_dim=6, num_outputs=3, generator=seeded(), hidden_dim=5)


class OverOutputs(TokenSummariser):
    """The softmax runs over the outputs."""

    def weights(self, tokens):
        return super().weights(tokens).log().softmax(dim=1)


class OfNormalised(TokenSummariser):
    """The weights are those of the normalised tokens, and so is what they weigh."""

    def forward(self, tokens):
        return self.weights(tokens) @ self.norm(tokens)


class BatchIsTokens(TokenSummariser):
    """Rows and tokens change places."""

    def forward(self, tokens):
        return super().forward(tokens.transpose(0, 1)).transpose(0, 1)


class WithPositions(TokenSummariser):
    """Earlier tokens are preferred."""

    def weights(self, tokens):
        return (super().weights(tokens).log() - torch.arange(tokens.shape[1])).softmax(dim=-1)


def check_inside_the_inputs(module, tokens):
    outputs = module(tokens)
    slack = 1e-5 * tokens.abs().max()
    assert (outputs <= tokens.amax(dim=1, keepdim=True) + slack).all()
    assert (outputs >= tokens.amin(dim=1, keepdim=True) - slack).all()


def check_order_does_not_matter(module, tokens):
    order = torch.randperm(tokens.shape[1], generator=seeded(1))
    assert torch.allclose(module(tokens), module(tokens[:, order]), atol=1e-6)


def test_equals_the_formula_number_by_number():
    module, tokens = summariser(), torch.randn(2, 4, 6, generator=seeded(1))
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.normal_(generator=seeded(2))
        outputs = module(tokens)
        for row in range(2):
            scores = []
            for token in tokens[row]:
                spread = ((token - token.mean()) ** 2).mean().item()
                normed = (token - token.mean()) / math.sqrt(spread + module.norm.eps)
                hidden = module.mlp_in.weight @ (normed * module.norm.weight + module.norm.bias)
                hidden = hidden + module.mlp_in.bias
                gelu = hidden * 0.5 * (1 + torch.erf(hidden / math.sqrt(2)))
                scores.append((module.mlp_out.weight @ gelu + module.mlp_out.bias).tolist())
            for output in range(3):
                exponentials = [math.exp(score[output]) for score in scores]
                total = sum(exponentials)
                expected = sum(
                    e / total * token for e, token in zip(exponentials, tokens[row], strict=True)
                )
                assert torch.allclose(outputs[row, output], expected, atol=1e-5)


@settings(max_examples=30)
@given(
    num_tokens=st.integers(1, 9), scale=st.sampled_from([1e-3, 1.0, 1e4]), seed=st.integers(0, 99)
)
def test_outputs_lie_inside_the_inputs(num_tokens, scale, seed):
    tokens = scale * torch.randn(2, num_tokens, 6, generator=seeded(seed)) + scale
    check_inside_the_inputs(summariser(), tokens)


def test_any_number_of_tokens_gives_the_same_number_of_outputs():
    module = summariser()
    for num_tokens in (1, 2, 50):
        assert module(torch.randn(2, num_tokens, 6)).shape == (2, 3, 6)


def test_outputs_differ_from_the_start():
    tokens = torch.randn(1, 8, 6, generator=seeded(1))
    outputs = summariser()(tokens)[0]
    assert torch.pdist(outputs).min() > 0.05


def test_holds_the_properties():
    module, tokens = summariser(), torch.randn(3, 5, 6, generator=seeded(1))
    check_order_does_not_matter(module, tokens)
    check_eval_determinism(module, tokens)
    check_batch_independence(
        lambda inputs: module(inputs["tokens"]), {"tokens": tokens}, generator=seeded(2)
    )
    check_gradients(
        lambda inputs: {"outputs": module(inputs["tokens"])},
        {"tokens": tokens},
        {"outputs": {"tokens"}},
    )
    check_parameter_count(module, 2 * 6 + (6 * 5 + 5) + (5 * 3 + 3))


@pytest.mark.parametrize("bug", [OverOutputs, OfNormalised])
def test_bugs_in_the_weighted_mean_are_caught(bug):
    tokens = torch.randn(2, 4, 6, generator=seeded(1)) + 5.0
    with pytest.raises(AssertionError):
        check_inside_the_inputs(summariser(bug), tokens)


def test_rows_as_tokens_and_positions_are_caught():
    tokens = torch.randn(3, 5, 6, generator=seeded(1))
    module = summariser(BatchIsTokens)
    with pytest.raises(PropertyError, match="other rows"):
        check_batch_independence(
            lambda inputs: module(inputs["tokens"]), {"tokens": tokens}, generator=seeded(2)
        )
    with pytest.raises(AssertionError):
        check_order_does_not_matter(summariser(WithPositions), tokens)


def test_weights_come_from_the_generator_alone():
    torch.manual_seed(1)
    one = summariser()
    before = torch.get_rng_state()
    other = summariser()
    assert torch.equal(before, torch.get_rng_state())
    for left, right in zip(one.parameters(), other.parameters(), strict=True):
        assert torch.equal(left, right)
    different = TokenSummariser(6, 3, seeded(1), 5)
    assert not torch.equal(one.mlp_in.weight, different.mlp_in.weight)


def test_nothing_to_summarise_and_sizes_below_one_raise():
    with pytest.raises(ValueError, match="no tokens"):
        summariser()(torch.zeros(2, 0, 6))
    with pytest.raises(ValueError, match="num_outputs=0"):
        TokenSummariser(6, 0, seeded())
