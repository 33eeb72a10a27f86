import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from vlmreward.backbone.properties import (
    PropertyError,
    check_batch_independence,
    check_causality,
    check_eval_determinism,
    check_gradients,
    check_parameter_count,
    check_streaming,
)
from vlmreward.backbone.ttm import TokenTuringMachine, TTMConfig

CONFIG = TTMConfig(
    embed_dim=8,
    num_memory_tokens=5,
    num_process_tokens=3,
    num_layers=2,
    num_heads=2,
    mlp_dim=16,
    summariser_dim=7,
)
NUM_STEPS = 6


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def machine(cls=TokenTuringMachine):
    return cls(CONFIG, seeded())


@pytest.fixture
def tokens():
    return torch.randn(3, NUM_STEPS, 4, 8, generator=seeded(1))


@pytest.fixture
def is_first():
    first = torch.zeros(3, NUM_STEPS, dtype=torch.bool)
    first[:, 0] = True
    first[0, 3] = first[2, 1] = first[2, 5] = True
    return first


class BatchIsTokens(TokenTuringMachine):
    """The summarised tokens are mixed over the rows, as a forgotten `batch_first` does."""

    def step(self, tokens, memory):
        output, memory = super().step(tokens, memory)
        for block in self.blocks:
            output = block(output.transpose(0, 1)).transpose(0, 1)
        return output, memory


class SeesTheFuture(TokenTuringMachine):
    """Every step's tokens are told the mean of all steps."""

    def forward(self, tokens, is_first=None):
        return super().forward(tokens - tokens.mean(dim=1, keepdim=True), is_first)


class NeverForgets(TokenTuringMachine):
    """Where an episode starts is not looked at."""

    def forward(self, tokens, is_first=None):
        return super().forward(tokens)


class ForgetsTooLate(TokenTuringMachine):
    """The memory is emptied after the first step instead of before it."""

    def forward(self, tokens, is_first=None):
        return super().forward(tokens, is_first.roll(1, dims=1))


class KnowsPlaces(TokenTuringMachine):
    """The tokens of a step have positions."""

    def step(self, tokens, memory):
        return super().step(tokens + torch.randn(tokens.shape[1:], generator=seeded(5)), memory)


class Adds(TokenTuringMachine):
    """What is written is added to the memory."""

    def step(self, tokens, memory):
        output, written = super().step(tokens, memory)
        return output, memory + written


class LooksLonger(TokenTuringMachine):
    """Every step reads once more than the one before."""

    num_reads = 0

    def step(self, tokens, memory):
        self.num_reads += 1
        for _ in range(self.num_reads):
            output, after = super().step(tokens, memory)
        return output, after


def streaming(module, inputs, is_first):
    def step(tokens, first, memory):
        memory = module.initial_memory(len(tokens)) if memory is None else memory
        return module.step(tokens, torch.where(first[:, None, None], 0.0, memory))

    check_streaming(module, step, inputs, is_first, tolerance=0.0)


def independence(module, tokens):
    check_batch_independence(
        lambda inputs: module(inputs["tokens"]), {"tokens": tokens}, generator=seeded(2)
    )


def check_order_within_a_step(module, tokens):
    order = torch.randperm(tokens.shape[2], generator=seeded(1))
    assert not torch.equal(order, order.sort().values)
    assert torch.allclose(module(tokens), module(tokens[:, :, order]), atol=1e-5)


def check_memory_is_a_mean(module, tokens):
    """After every step, each number of the memory lies between those it could be made of."""
    memory = module.initial_memory(len(tokens))
    for time in range(tokens.shape[1]):
        output, after = module.step(tokens[:, time], memory)
        made_of = torch.cat([memory, tokens[:, time], output], dim=1)
        assert (after <= made_of.amax(dim=1, keepdim=True) + 1e-5).all()
        assert (after >= made_of.amin(dim=1, keepdim=True) - 1e-5).all()
        memory = after


def flops_of_steps(module, tokens, num_steps):
    memory, counts = module.initial_memory(len(tokens)), []
    for _ in range(num_steps):
        with FlopCounterMode(display=False) as counter:
            _, memory = module.step(tokens[:, 0], memory)
        counts.append(counter.get_total_flops())
    return counts


def test_the_paper_has_this_many_parameters():
    config = TTMConfig()
    check_parameter_count(TokenTuringMachine(config, seeded()), 12_726_472)
    assert config.num_memory_tokens == 64
    assert config.num_process_tokens == 8


@pytest.mark.parametrize("lost", ["final_norm", "positions"])
def test_a_part_left_out_changes_the_count(lost):
    module = machine()
    count = sum(parameter.numel() for parameter in module.parameters())
    setattr(module, lost, nn.Identity() if lost == "final_norm" else None)
    with pytest.raises(PropertyError, match="parameters"):
        check_parameter_count(module, count)


def test_a_step_reads_processes_and_writes(tokens):
    module, memory = machine(), torch.randn(3, 5, 8, generator=seeded(3))
    output, after = module.step(tokens[:, 0], memory)
    seen = torch.cat([memory, tokens[:, 0]], dim=1)
    hidden = module.read.weights(seen) @ seen + module.positions
    for block in module.blocks:
        read = block.attention_norm(hidden)
        hidden = hidden + block.attention(read, read)
        hidden = hidden + block.mlp(block.mlp_norm(hidden))
    expected = nn.functional.layer_norm(hidden, (8,))
    written = torch.cat([memory, tokens[:, 0], expected], dim=1)
    assert torch.allclose(output, expected, atol=1e-5)
    assert torch.allclose(after, module.write.weights(written) @ written, atol=1e-5)


def test_an_episode_starts_with_a_memory_of_zeros(tokens):
    module = machine()
    assert torch.equal(module.initial_memory(2), torch.zeros(2, 5, 8))
    expected, _ = module.step(tokens[:, 0], torch.zeros(3, 5, 8))
    assert torch.equal(module(tokens)[:, 0], expected)


def test_holds_the_properties(tokens, is_first):
    module = machine()
    check_causality(module, tokens, generator=seeded(2))
    streaming(module, tokens, is_first)
    independence(module, tokens)
    check_eval_determinism(module, tokens, is_first)
    check_order_within_a_step(module, tokens)
    check_memory_is_a_mean(module, 10 * tokens)


def test_output_and_memory_read_memory_and_tokens(tokens):
    module = machine()
    check_gradients(
        lambda inputs: dict(
            zip(("output", "after"), module.step(inputs["tokens"], inputs["memory"]), strict=True)
        ),
        {"tokens": tokens[:, 0], "memory": torch.randn(3, 5, 8, generator=seeded(3))},
        {"output": {"tokens", "memory"}, "after": {"tokens", "memory"}},
    )


def test_first_step_still_matters_at_the_last(tokens):
    tokens.requires_grad_()
    (machine()(tokens)[:, -1] * torch.randn(8, generator=seeded(4))).sum().backward()
    assert tokens.grad[:, 0].abs().max() > 0


def test_episodes_side_by_side_equal_episodes_alone(tokens):
    module = machine()
    is_first = torch.zeros(3, NUM_STEPS, dtype=torch.bool)
    is_first[:, 4] = True
    together = module(tokens, is_first)
    assert torch.equal(together[:, :4], module(tokens[:, :4]))
    assert torch.equal(together[:, 4:], module(tokens[:, 4:]))


def test_a_broken_episode_does_not_outlive_its_end(tokens):
    is_first = torch.zeros(3, NUM_STEPS, dtype=torch.bool)
    is_first[:, 3] = True
    tokens[:, 1] = float("nan")
    outputs = machine()(tokens, is_first)
    assert outputs[:, 1:3].isnan().all()
    assert outputs[:, 3:].isfinite().all()


def test_memory_stays_small_over_hundreds_of_steps(tokens):
    module = machine()
    memory = module.initial_memory(3)
    with torch.no_grad():
        for time in range(300):
            output, memory = module.step(tokens[:, time % NUM_STEPS], memory)
    # What is put out leaves a LayerNorm: none of its numbers is beyond the root of the width.
    assert memory.abs().max() <= max(tokens.abs().max(), 8**0.5)
    assert output.abs().max() <= 8**0.5


def test_every_step_costs_the_same(tokens):
    counts = flops_of_steps(machine(), tokens, 5)
    assert counts[0] > 0
    assert len(set(counts)) == 1


def test_bugs_are_caught(tokens, is_first):
    with pytest.raises(PropertyError, match="before it"):
        check_causality(machine(SeesTheFuture), tokens, generator=seeded(2))
    with pytest.raises(PropertyError, match="other rows"):
        independence(machine(BatchIsTokens), tokens)
    for bug in (NeverForgets, ForgetsTooLate):
        with pytest.raises(PropertyError, match="step by step"):
            streaming(machine(bug), tokens, is_first)
    with pytest.raises(AssertionError):
        check_order_within_a_step(machine(KnowsPlaces), tokens)
    with pytest.raises(AssertionError):
        check_memory_is_a_mean(machine(Adds), tokens)
    assert len(set(flops_of_steps(machine(LooksLonger), tokens, 5))) == 5


def test_same_seed_same_weights_and_no_global_draw():
    before = torch.get_rng_state()
    one, other = machine(), machine()
    assert torch.equal(before, torch.get_rng_state())
    for left, right in zip(one.parameters(), other.parameters(), strict=True):
        assert torch.equal(left, right)


@pytest.mark.parametrize("name", ["num_memory_tokens", "num_process_tokens", "num_layers"])
def test_sizes_below_one_raise(name):
    with pytest.raises(ValueError, match=f"{name}=0, expected at least 1"):
        TTMConfig(**{name: 0})


def test_heads_that_do_not_divide_the_width_raise():
    with pytest.raises(ValueError, match="embed_dim=10 and num_heads=4"):
        TokenTuringMachine(TTMConfig(embed_dim=10, num_heads=4), seeded())
