import pytest
import torch

from vlmreward.backbone.fusion import GatedCrossAttention, ModalityGates
from vlmreward.backbone.properties import (
    PropertyError,
    check_batch_independence,
    check_gradients,
    check_parameter_count,
)


def draws(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def normal(*shape: int, seed: int = 1) -> torch.Tensor:
    return torch.randn(shape, generator=draws(seed))


def gated() -> GatedCrossAttention:
    return GatedCrossAttention(8, 2, 16, draws(), context_dim=6)


def opened() -> GatedCrossAttention:
    layer = gated()
    with torch.no_grad():
        layer.attention_gate.fill_(0.7)
        layer.mlp_gate.fill_(-0.4)
    return layer


def test_at_the_start_the_stream_is_bitwise_what_it_was() -> None:
    tokens, context = normal(2, 5, 8), normal(2, 3, 6, seed=2)
    assert torch.equal(gated()(tokens, context), tokens)
    assert torch.equal(gated()(tokens, 1e6 * context), tokens)


def test_at_the_start_the_gates_alone_learn() -> None:
    layer = gated()
    target = normal(2, 5, 8, seed=3)
    (layer(normal(2, 5, 8), normal(2, 3, 6, seed=2)) - target).square().mean().backward()
    assert layer.attention_gate.grad.abs() > 1e-4
    assert layer.mlp_gate.grad.abs() > 1e-4
    behind = [p for name, p in layer.named_parameters() if not name.endswith("gate")]
    assert all(parameter.grad.eq(0).all() for parameter in behind)


@torch.no_grad()
def test_open_gates_follow_the_formula() -> None:
    layer, tokens, context = opened(), normal(2, 5, 8), normal(2, 3, 6, seed=2)
    mask = torch.tensor([[True, False, True]]).expand(5, 3)
    norm = torch.nn.functional.layer_norm
    read = layer.attention(norm(tokens, (8,)), norm(context, (6,)), mask)
    middle = tokens + torch.tensor(0.7).tanh() * read
    expected = middle + torch.tensor(-0.4).tanh() * layer.mlp(norm(middle, (8,)))
    torch.testing.assert_close(layer(tokens, context, mask), expected)


@torch.no_grad()
def test_what_no_token_may_read_may_be_anything() -> None:
    tokens, context = normal(2, 5, 8), normal(2, 3, 6, seed=2)
    mask = torch.tensor([[[True, False, True]], [[True, True, False]]]).expand(2, 5, 3)
    expected = opened()(tokens, context, mask)
    context[0, 1] = context[1, 2] = torch.nan
    assert torch.equal(opened()(tokens, context, mask), expected)


def test_what_reads_what() -> None:
    inputs = {"tokens": normal(2, 5, 8), "context": normal(2, 3, 6, seed=2)}

    def through(layer):
        return lambda inputs: {"fused": layer(inputs["tokens"], inputs["context"])}

    check_gradients(through(gated()), inputs, {"fused": {"tokens"}})
    check_gradients(through(opened()), inputs, {"fused": {"tokens", "context"}})
    check_batch_independence(through(opened()), inputs, generator=draws())
    with pytest.raises(PropertyError, match="'context'"):
        check_gradients(through(opened()), inputs, {"fused": {"tokens"}})


def test_number_of_parameters() -> None:
    norms, attention, mlp = (
        2 * 8 + 2 * 6 + 2 * 8,
        2 * 72 + 2 * (6 * 8 + 8),
        8 * 16 + 16 + 16 * 8 + 8,
    )
    check_parameter_count(gated(), norms + attention + mlp + 2)


class TestModalityGates:
    gates = ModalityGates(["audio", "video"], 8, draws())

    @torch.no_grad()
    def test_weighs_each_modality_by_its_gate(self) -> None:
        vectors = {"audio": normal(3, 8), "video": normal(3, 8, seed=2)}
        expected = torch.zeros(3, 8)
        for name, vector in vectors.items():
            layer = self.gates.gate[name][1]
            score = torch.nn.functional.layer_norm(vector, (8,)) @ layer.weight[0] + layer.bias
            openness = 1 / (1 + (-score).exp())
            assert openness.min() > 0
            assert openness.max() < 1
            torch.testing.assert_close(self.gates.gates(name, vector), openness)
            expected += openness[:, None] * vector
        torch.testing.assert_close(self.gates(vectors), expected)

    @torch.no_grad()
    def test_what_is_absent_adds_nothing(self) -> None:
        vectors = {"audio": normal(3, 8), "video": normal(3, 8, seed=2)}
        present = {"audio": torch.tensor([True, False, True])}
        vectors["audio"][1] = torch.nan
        fused = self.gates(vectors, present)
        video = self.gates({"video": vectors["video"]})
        assert torch.equal(fused[1], video[1])
        assert not torch.equal(fused[0], video[0])

    def test_what_is_absent_spoils_no_gradient(self) -> None:
        gates = ModalityGates(["audio", "video"], 8, draws())
        audio = normal(3, 8)
        audio[1] = torch.nan
        fused = gates({"audio": audio}, {"audio": torch.tensor([True, False, True])})
        fused.square().sum().backward()
        assert all(weights.grad.isfinite().all() for weights in gates.gate["audio"].parameters())

    def test_an_unknown_modality_is_refused(self) -> None:
        for vectors in ({}, {"touch": normal(3, 8)}):
            with pytest.raises(ValueError, match=r"expected some of \['audio', 'video'\]"):
                self.gates(vectors)
