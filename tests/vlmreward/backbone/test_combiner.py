import copy
from dataclasses import replace

import pytest
import torch
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from vlmreward.backbone import combiner
from vlmreward.backbone.combiner import (
    CombinerConfig,
    MeanMemory,
    MemoryState,
    TokenMemory,
    TransformerCombiner,
    TTMCombiner,
    sinusoidal_stamps,
)
from vlmreward.backbone.properties import (
    PropertyError,
    check_batch_independence,
    check_causality,
    check_distinct_positions,
    check_eval_determinism,
    check_gradients,
    check_parameter_count,
    check_streaming,
)
from vlmreward.backbone.state import StateError
from vlmreward.backbone.ttm import TTMConfig

TRANSFORMER = CombinerConfig(embed_dim=8, num_outputs=3, num_layers=2, num_heads=2, mlp_dim=16)
MACHINE = TTMConfig(
    embed_dim=8,
    num_memory_tokens=5,
    num_process_tokens=3,
    num_layers=1,
    num_heads=2,
    mlp_dim=16,
    summariser_dim=7,
)
NUM_STEPS = 6


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def transformer(cls=TransformerCombiner, **options):
    return cls(TRANSFORMER, seeded(), **options)


MEMORIES = {
    "mean": lambda: MeanMemory(8),
    "transformer": transformer,
    "transformer, stamps": lambda: transformer(time_stamps=True),
    "machine": lambda: TTMCombiner(MACHINE, seeded()),
    "machine, stamps": lambda: TTMCombiner(MACHINE, seeded(), time_stamps=True),
}


@pytest.fixture(params=MEMORIES)
def memory(request):
    return MEMORIES[request.param]()


@pytest.fixture
def tokens():
    return torch.randn(3, NUM_STEPS, 4, 8, generator=seeded(1))


@pytest.fixture
def is_first():
    first = torch.zeros(3, NUM_STEPS, dtype=torch.bool)
    first[:, 0] = True
    first[0, 3] = first[2, 1] = first[2, 5] = True
    return first


class NeverForgets(TransformerCombiner):
    """Where an episode starts is not looked at."""

    def step(self, tokens, is_first, state):
        return super().step(tokens, torch.zeros_like(is_first), state)


class ForgetsEveryRow(TransformerCombiner):
    """One row's new episode makes all rows forget."""

    def step(self, tokens, is_first, state):
        return super().step(tokens, is_first.any().expand_as(is_first), state)


class GoesOnCounting(TransformerCombiner):
    """The steps of all episodes are counted as one."""

    def step(self, tokens, is_first, state):
        counted = state.num_steps
        summary, state = super().step(tokens, is_first, state)
        stamped = tokens + sinusoidal_stamps(counted, self.embed_dim)[:, None]
        return summary + stamped.mean(dim=1, keepdim=True), replace(state, num_steps=counted + 1)


class SeesTheFuture(TransformerCombiner):
    """All steps are known at each."""

    def forward(self, tokens, is_first):
        return super().forward(tokens + tokens.mean(dim=1, keepdim=True), is_first)


class MeanOverTheBatch(MeanMemory):
    """The rows are averaged too."""

    def step(self, tokens, is_first, state):
        return super().step(tokens.mean(dim=0, keepdim=True).expand_as(tokens), is_first, state)


class LastTokensWeighMost(MeanMemory):
    """A mean whose weights fade."""

    def _combine(self, tokens, carried, num_steps):
        mean = (carried + tokens.mean(dim=1, keepdim=True)) / 2
        return mean, mean


class KeepsTheFirst(TransformerCombiner):
    """What is put out stands where the step's tokens stood."""

    def _combine(self, tokens, carried, num_steps):
        hidden = torch.cat([tokens, self.queries + carried], dim=1)
        for block in self.blocks:
            hidden = block(hidden)
        summary = self.final_norm(hidden[:, : self.num_outputs])
        return summary, summary


def streaming(module, tokens, is_first):
    def step(inputs, first, state):
        return module.step(inputs, first, state or module.initial_state(len(inputs)))

    check_streaming(module, step, tokens, is_first, tolerance=1e-5)


def independence(module, tokens, is_first):
    check_batch_independence(
        lambda inputs: module(inputs["tokens"], inputs["is_first"]),
        {"tokens": tokens, "is_first": is_first},
        generator=seeded(2),
    )


def check_episodes_alone(module, tokens):
    """Two episodes one after the other in a row give what each gives alone."""
    is_first = torch.zeros(3, NUM_STEPS, dtype=torch.bool)
    is_first[:, 4] = True
    together, none = module(tokens, is_first), torch.zeros_like(is_first)
    assert torch.allclose(together[:, :4], module(tokens[:, :4], none[:, :4]), atol=1e-5)
    assert torch.allclose(together[:, 4:], module(tokens[:, 4:], none[:, 4:]), atol=1e-5)


def check_mean(module, tokens, is_first):
    outputs = module(tokens, is_first)
    for row in range(len(tokens)):
        start = 0
        for time in range(NUM_STEPS):
            start = time if is_first[row, time] else start
            expected = tokens[row, start : time + 1].flatten(0, 1).mean(dim=0)
            assert torch.allclose(outputs[row, time, 0], expected, atol=1e-5)


def check_queries_are_kept(module, tokens):
    """Recompute two steps: the last outputs of the first are what the second is handed."""
    is_first = torch.tensor([True, False]).expand(3, 2)
    outputs = module(tokens[:, :2], is_first)
    carried = torch.zeros(3, 3, 8)
    for time in range(2):
        hidden = torch.cat([tokens[:, time], module.queries + carried], dim=1)
        for block in module.blocks:
            read = block.attention_norm(hidden)
            hidden = hidden + block.attention(read, read)
            hidden = hidden + block.mlp(block.mlp_norm(hidden))
        carried = F.layer_norm(hidden[:, 4:7], (8,))
        assert torch.allclose(outputs[:, time], carried, atol=1e-5)


def test_one_interface(memory, tokens, is_first):
    assert isinstance(memory, TokenMemory)
    outputs = memory(tokens, is_first)
    assert outputs.shape == (3, NUM_STEPS, memory.num_outputs, 8)
    state = memory.initial_state(3)
    assert torch.equal(state.num_steps, torch.zeros(3, dtype=torch.long))
    assert not state.carried.any()
    summary, after = memory.step(tokens[:, 0], is_first[:, 0], state)
    assert torch.equal(summary, outputs[:, 0])
    assert after.carried.shape == state.carried.shape
    assert torch.equal(after.num_steps, torch.ones(3, dtype=torch.long))


def test_holds_the_properties(memory, tokens, is_first):
    streaming(memory, tokens, is_first)
    independence(memory, tokens, is_first)
    check_causality(lambda inputs: memory(inputs, is_first), tokens, generator=seeded(2))
    check_eval_determinism(memory, tokens, is_first)
    check_episodes_alone(memory, tokens)


def test_step_reads_its_tokens_and_what_is_carried(memory, tokens):
    num_steps = torch.full((3,), 2)
    carried = torch.randn(memory.initial_state(3).carried.shape, generator=seeded(3))

    def forward(inputs):
        state = MemoryState(inputs["carried"], num_steps, memory)
        summary, after = memory.step(inputs["tokens"], num_steps < 0, state)
        return {"summary": summary, "carried after": after.carried}

    def forward_first(inputs):
        state = MemoryState(inputs["carried"], num_steps, memory)
        return {"summary": memory.step(inputs["tokens"], num_steps > 0, state)[0]}

    inputs = {"tokens": tokens[:, 0], "carried": carried}
    both = {"tokens", "carried"}
    check_gradients(forward, inputs, {"summary": both, "carried after": both})
    check_gradients(forward_first, inputs, {"summary": {"tokens"}})


def test_cost_and_state_do_not_grow(memory, tokens, is_first):
    state, none = memory.initial_state(3), torch.zeros(3, dtype=torch.bool)
    costs, sizes = set(), set()
    for time in range(NUM_STEPS):
        with FlopCounterMode(display=False) as counter:
            _, state = memory.step(tokens[:, time], none, state)
        costs.add(counter.get_total_flops())
        sizes.add((state.carried.shape, state.num_steps.shape))
    assert len(costs) == len(sizes) == 1
    count = sum(parameter.numel() for parameter in memory.parameters())
    memory(tokens.repeat(1, 5, 1, 1), is_first.repeat(1, 5))
    check_parameter_count(memory, count)


def test_steps_may_differ_in_their_number_of_tokens(memory, tokens):
    none, state = torch.zeros(3, dtype=torch.bool), memory.initial_state(3)
    _, state = memory.step(tokens[:, 0], none, state)
    summary, _ = memory.step(tokens[:, 1, :1], none, state)
    assert summary.shape == (3, memory.num_outputs, 8)


def test_broken_episode_does_not_outlive_its_end(memory, tokens):
    is_first = torch.zeros(3, NUM_STEPS, dtype=torch.bool)
    is_first[:, 3] = True
    tokens[:, 1] = float("nan")
    outputs = memory(tokens, is_first)
    assert outputs[:, 1:3].isnan().all()
    assert outputs[:, 3:].isfinite().all()


def test_mean_is_the_mean_of_the_episode_so_far(tokens, is_first):
    check_mean(MeanMemory(8), tokens, is_first)
    check_parameter_count(MeanMemory(8), 0)


def test_mean_stays_exact_over_a_thousand_steps():
    memory, none = MeanMemory(1), torch.zeros(1, dtype=torch.bool)
    state = memory.initial_state(1)
    for number in range(1000):
        tokens = torch.full((1, 1, 1), float(number % 100))
        summary, state = memory.step(tokens, none, state)
    assert summary.item() == pytest.approx(49.5, abs=1e-3)


@torch.no_grad()
def test_what_a_transformer_carries_lasts_before_anything_is_learned():
    memory = TransformerCombiner(CombinerConfig(), seeded())
    draws = seeded()
    one, other = (
        MemoryState(
            torch.randn(4, 8, 128, generator=draws), torch.ones(4, dtype=torch.long), memory
        )
        for _ in range(2)
    )
    going_on = torch.zeros(4, dtype=torch.bool)
    for _ in range(20):
        same = torch.randn(4, 8, 128, generator=draws)
        summary, one = memory.step(same, going_on, one)
        different, other = memory.step(same, going_on, other)
    # Of two episodes that were alike for twenty steps, each is still told by what was before.
    apart = torch.cosine_similarity(summary, different, dim=2).mean()
    assert apart < 0.5


def test_transformer_keeps_its_last_outputs(tokens):
    check_queries_are_kept(transformer(), tokens)


def test_machine_puts_out_what_its_machine_does(tokens, is_first):
    memory = TTMCombiner(MACHINE, seeded())
    assert torch.equal(memory(tokens, is_first), memory.machine(tokens, is_first))


def test_bugs_are_caught(tokens, is_first):
    with pytest.raises(PropertyError, match="before its reset"):
        streaming(transformer(NeverForgets), tokens, is_first)
    with pytest.raises(PropertyError, match="other rows"):
        independence(transformer(ForgetsEveryRow), tokens, is_first)
    with pytest.raises(PropertyError, match="before it"):
        check_causality(
            lambda inputs: transformer(SeesTheFuture)(inputs, is_first),
            tokens,
            generator=seeded(2),
        )
    with pytest.raises(PropertyError, match="other rows"):
        independence(MeanOverTheBatch(8), tokens, is_first)
    with pytest.raises(AssertionError):
        check_episodes_alone(transformer(GoesOnCounting), tokens)
    with pytest.raises(AssertionError):
        check_mean(LastTokensWeighMost(8), tokens, is_first)
    with pytest.raises(AssertionError):
        check_queries_are_kept(transformer(KeepsTheFirst), tokens)


def late_steps_are_apart():
    """Neighbouring steps differ as much after a million steps as at the start."""
    early = sinusoidal_stamps(torch.arange(2), 16).diff(dim=0).norm()
    late = sinusoidal_stamps(10**6 + torch.arange(2), 16).diff(dim=0).norm()
    assert late == pytest.approx(early.item(), rel=1e-4)


def test_stamps_tell_all_steps_apart():
    steps = torch.cat([torch.arange(5000), 10**6 + torch.arange(500)])
    check_distinct_positions(sinusoidal_stamps(steps, 16))
    late_steps_are_apart()
    with pytest.raises(PropertyError, match="the same"):
        check_distinct_positions(sinusoidal_stamps(steps % 1000, 16))


def test_stamps_equal_the_formula(monkeypatch):
    stamps = sinusoidal_stamps(torch.tensor([0, 7, 123]), 6)
    for row, step in enumerate((0, 7, 123)):
        for pair in range(3):
            angle = torch.tensor(step * 10_000.0 ** (-2 * pair / 6))
            assert stamps[row, pair] == pytest.approx(angle.sin().item(), abs=1e-5)
            assert stamps[row, 3 + pair] == pytest.approx(angle.cos().item(), abs=1e-5)
    monkeypatch.setattr(torch, "float64", torch.float32)
    with pytest.raises(AssertionError):
        late_steps_are_apart()


@pytest.mark.parametrize("name", ["transformer", "machine"])
def test_stamps_are_added_to_the_tokens(name, tokens, is_first):
    plain, stamped = MEMORIES[name](), MEMORIES[f"{name}, stamps"]()
    steps = torch.zeros(3, NUM_STEPS, dtype=torch.long)
    for time in range(1, NUM_STEPS):
        steps[:, time] = torch.where(is_first[:, time], 0, steps[:, time - 1] + 1)
    stamps = sinusoidal_stamps(steps.flatten(), 8).reshape(3, NUM_STEPS, 1, 8)
    expected = plain(tokens + stamps, is_first)
    assert torch.allclose(stamped(tokens, is_first), expected, atol=1e-6)
    assert not torch.allclose(plain(tokens, is_first), expected, atol=1e-3)


def test_mean_cannot_tell_which_step_came_first_and_the_others_can(memory, tokens):
    none = torch.zeros(3, NUM_STEPS, dtype=torch.bool)
    last = memory(tokens, none)[:, -1]
    turned = memory(tokens.flip(1), none)[:, -1]
    is_blind = isinstance(memory, MeanMemory)
    assert torch.allclose(last, turned, atol=1e-5 if is_blind else 1e-3) == is_blind


@pytest.mark.parametrize("name", ["transformer", "machine"])
def test_learns_what_the_first_of_three_steps_was(name):
    if name == "transformer":
        memory = TransformerCombiner(CombinerConfig(16, 3, 2, 2, 32), seeded())
    else:
        memory = TTMCombiner(TTMConfig(16, 5, 3, 1, 2, 32, 7), seeded())
    words, generator = torch.randn(2, 16, generator=seeded(5)), seeded(6)
    is_first = torch.zeros(16, 3, dtype=torch.bool)
    optimizer = torch.optim.Adam(memory.parameters(), lr=3e-3)
    losses = []
    for _ in range(70):
        shown = torch.randint(2, (16, 3), generator=generator)
        last = memory(words[shown][:, :, None], is_first)[:, -1]
        loss = F.binary_cross_entropy_with_logits(last[:, 0, 0], shown[:, 0].float())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert sum(losses[-10:]) / 10 < 0.2  # guessing loses log 2 = 0.69


def test_same_seed_same_weights_and_no_global_draw(tokens, is_first):
    before = torch.get_rng_state()
    for make in MEMORIES.values():
        assert torch.equal(make()(tokens, is_first), make()(tokens, is_first))
    assert torch.equal(before, torch.get_rng_state())


def test_wrong_tokens_raise(memory):
    state, first = memory.initial_state(2), torch.ones(2, dtype=torch.bool)
    for shape in [(2, 0, 8), (2, 4, 6)]:
        with pytest.raises(ValueError, match=f"got {shape[1]} tokens of width {shape[2]}"):
            memory.step(torch.zeros(shape), first, state)


def test_wrong_sizes_raise():
    with pytest.raises(ValueError, match="num_outputs=0"):
        CombinerConfig(num_outputs=0)
    with pytest.raises(ValueError, match="embed_dim=0"):
        MeanMemory(0)
    odd = CombinerConfig(embed_dim=9, num_heads=3)
    with pytest.raises(ValueError, match="even number"):
        combiner.TransformerCombiner(odd, seeded(), time_stamps=True)
    with pytest.raises(ValueError, match="even number"):
        sinusoidal_stamps(torch.zeros(1, dtype=torch.long), 9)


def test_a_state_of_another_batch_or_model_is_refused(memory, tokens):
    none, state = torch.zeros(3, dtype=torch.bool), memory.initial_state(3)
    with pytest.raises(StateError, match=r"shape \[1, .* expected \[3, .* of another batch"):
        memory.step(tokens[:, 0], none, memory.initial_state(1))
    twin = copy.deepcopy(memory)
    with pytest.raises(StateError, match="of another memory, a "):
        memory.step(tokens[:, 0], none, twin.initial_state(3))
    wider = replace(state, carried=torch.zeros(3, 1 + len(memory.start), 8))
    with pytest.raises(StateError, match="of another model"):
        memory.step(tokens[:, 0], none, wider)
    begun, _ = memory.step(tokens[:, 0], none, None)
    assert torch.equal(begun, memory.step(tokens[:, 0], none, state)[0])
    for is_first in (none[:1], none.float()):  # either would be spread over all rows
        with pytest.raises(StateError, match=r"expected torch.bool and \[3\], one flag"):
            memory.step(tokens[:, 0], is_first, state)
