"""Each check passes what is right and refuses a planted bug."""

import doctest
import math
from dataclasses import dataclass
from typing import ClassVar

import pytest
import torch
from torch import nn

from vlmreward.backbone import properties
from vlmreward.backbone.properties import (
    PropertyError,
    check_batch_independence,
    check_causality,
    check_chance_level,
    check_distinct_positions,
    check_eval_determinism,
    check_gradients,
    check_optimizer,
    check_parameter_count,
    check_streaming,
)


def draws(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def normal(*shape: int) -> torch.Tensor:
    return torch.randn(shape, generator=draws(7))


def test_examples_in_docstrings_run() -> None:
    result = doctest.testmod(properties)
    assert result.attempted > 0
    assert result.failed == 0


class TestGradients:
    inputs: ClassVar = {"audio": normal(2, 3), "video": normal(2, 3)}
    reads: ClassVar = {"heard": {"audio"}, "both": {"audio", "video"}}

    def test_passes_what_is_declared(self) -> None:
        def forward(inputs):
            return {"heard": inputs["audio"] ** 2, "both": inputs["audio"] * inputs["video"]}

        check_gradients(forward, self.inputs, self.reads)

    def test_refuses_a_leak_however_small(self) -> None:
        def forward(inputs):
            heard = inputs["audio"] + 1e-20 * inputs["video"]
            return {"heard": heard, "both": inputs["audio"] * inputs["video"]}

        with pytest.raises(PropertyError, match=r"'heard' with respect to input 'video'.*e-20"):
            check_gradients(forward, self.inputs, self.reads)

    @pytest.mark.parametrize("unread", [torch.Tensor.detach, torch.zeros_like])
    def test_refuses_what_does_not_read_what_it_says(self, unread) -> None:
        def forward(inputs):
            return {"heard": inputs["audio"], "both": inputs["audio"] * unread(inputs["video"])}

        with pytest.raises(PropertyError, match=r"'both' with respect to input '\w+' is 0"):
            check_gradients(forward, self.inputs, self.reads)

    def test_refuses_an_output_without_any_gradient(self) -> None:
        def forward(inputs):
            both = (inputs["audio"] * inputs["video"]).detach()
            return {"heard": inputs["audio"], "both": both}

        with pytest.raises(PropertyError, match="'both'"):
            check_gradients(forward, self.inputs, self.reads)

    def test_sees_through_outputs_of_constant_sum(self) -> None:
        def forward(inputs):
            return {"heard": inputs["audio"].softmax(-1)}

        check_gradients(forward, {"audio": normal(2, 3)}, {"heard": {"audio"}})
        with pytest.raises(PropertyError, match="not declared"):
            check_gradients(forward, {"audio": normal(2, 3)}, {"heard": set()})

    def test_refuses_nan(self) -> None:
        def forward(inputs):
            return {"heard": (inputs["audio"] * 0).sqrt() * 0}

        with pytest.raises(PropertyError, match="is NaN"):
            check_gradients(forward, {"audio": normal(2, 3)}, {"heard": {"audio"}})

    def test_names_that_do_not_exist_are_refused(self) -> None:
        forward = dict  # the identity
        with pytest.raises(ValueError, match="expected those of reads"):
            check_gradients(forward, self.inputs, {"audio": {"audio"}})
        with pytest.raises(ValueError, match="sound"):
            check_gradients(forward, self.inputs, {"audio": {"sound"}, "video": {"video"}})


def attend(mask: torch.Tensor):
    def forward(inputs: torch.Tensor) -> torch.Tensor:
        scores = (inputs @ inputs.mT).masked_fill(~mask, -math.inf)
        return scores.softmax(-1) @ inputs

    return forward


class TestCausality:
    everything = torch.ones(6, 6, dtype=torch.bool)

    def test_passes_a_causal_mask(self) -> None:
        check_causality(attend(self.everything.tril()), normal(2, 6, 3), generator=draws())

    @pytest.mark.parametrize(
        "mask",
        [everything, everything.triu(), everything.tril(1)],
        ids=["none", "transposed", "one late"],
    )
    def test_refuses_a_wrong_mask(self, mask) -> None:
        with pytest.raises(PropertyError, match="changes outputs before it by up to"):
            check_causality(attend(mask), normal(2, 6, 3), generator=draws())

    def test_refuses_a_constant_and_what_does_not_see_its_own_step(self) -> None:
        def shifted(inputs: torch.Tensor) -> torch.Tensor:
            return torch.cat([torch.zeros_like(inputs[:, :1]), inputs[:, :-1]], 1)

        for forward in (torch.zeros_like, shifted):
            with pytest.raises(PropertyError, match="expected it to change"):
                check_causality(forward, normal(2, 6, 3), generator=draws())

    def test_takes_any_time_axis_and_integers(self) -> None:
        tokens = torch.randint(3, 9, (7, 2), generator=draws(1))

        def forward(tokens: torch.Tensor) -> torch.Tensor:
            assert tokens.min() >= 3, "changed inputs must stay legal"
            assert tokens.max() <= 8, "changed inputs must stay legal"
            return tokens.cumsum(0)

        check_causality(forward, tokens, generator=draws(), time_axis=0)
        with pytest.raises(PropertyError):
            check_causality(lambda t: t.flip(0).cumsum(0), tokens, generator=draws(), time_axis=0)

    def test_what_cannot_be_checked_is_refused(self) -> None:
        with pytest.raises(ValueError, match="2 or more"):
            check_causality(torch.neg, normal(2, 1), generator=draws())
        with pytest.raises(ValueError, match="expected 6 time steps"):
            check_causality(lambda x: x[:, :3], normal(2, 6), generator=draws())
        with pytest.raises(ValueError, match="inputs that vary"):
            check_causality(torch.neg, torch.zeros(2, 6), generator=draws())


@dataclass
class Pooled:
    audio: torch.Tensor
    video: torch.Tensor | None = None


class TestBatchIndependence:
    inputs: ClassVar = {"tokens": normal(4, 5, 6)}

    def check(self, forward) -> None:
        check_batch_independence(
            lambda inputs: forward(inputs["tokens"]), self.inputs, generator=draws()
        )

    @pytest.mark.parametrize(
        "forward",
        [torch.sin, lambda x: Pooled(x.mean(1)), lambda x: {"a": x, "b": [x * 2, x.sum(1)]}],
    )
    def test_passes_independent_rows(self, forward) -> None:
        self.check(forward)

    def test_refuses_a_batch_norm(self) -> None:
        with pytest.raises(PropertyError, match=r"changing row 0 changes .* of other rows"):
            self.check(nn.BatchNorm1d(5))

    def test_refuses_a_forgotten_batch_first(self) -> None:
        forgotten = nn.MultiheadAttention(6, 2)
        right = nn.MultiheadAttention(6, 2, batch_first=True)
        self.check(lambda x: right(x, x, x)[0])
        with pytest.raises(PropertyError, match="other rows"):
            self.check(lambda x: forgotten(x, x, x)[0])

    def test_refuses_a_leak_in_one_of_several_outputs(self) -> None:
        with pytest.raises(PropertyError, match="changes video of other rows"):
            self.check(lambda x: Pooled(audio=x, video=x - x.mean()))

    def test_refuses_a_row_that_reads_nothing(self) -> None:
        with pytest.raises(PropertyError, match="expected it to change"):
            self.check(torch.zeros_like)

    def test_one_row_is_refused(self) -> None:
        with pytest.raises(ValueError, match="2 or more"):
            check_batch_independence(dict, {"a": normal(1, 2)}, generator=draws())


class AlwaysDropping(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return nn.functional.dropout(x, 0.5, training=True)


class Counting(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("seen", torch.zeros(()))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.seen += 1
        return x


class TestEvalDeterminism:
    def test_passes_dropout_and_batch_norm_and_restores_every_mode(self) -> None:
        module = nn.Sequential(nn.Dropout(0.5), nn.BatchNorm1d(6))
        module[0].eval()
        check_eval_determinism(module, normal(4, 6))
        assert [part.training for part in module.modules()] == [True, False, True]

    def test_refuses_dropout_in_eval_and_restores_the_mode(self) -> None:
        module = AlwaysDropping()
        with pytest.raises(PropertyError, match="two passes in eval mode differ"):
            check_eval_determinism(module, normal(4, 6))
        assert module.training

    def test_refuses_a_trace(self) -> None:
        with pytest.raises(PropertyError, match=r"changed seen by up to 2"):
            check_eval_determinism(Counting(), normal(4, 6))


class TestDistinctPositions:
    def test_passes_different_rows(self) -> None:
        check_distinct_positions(normal(50, 2))

    def test_refuses_repeated_rows(self) -> None:
        with pytest.raises(PropertyError, match=r"positions 0 and 5 .* only 5 of 10"):
            check_distinct_positions(normal(5, 2).repeat(2, 1))

    def test_refuses_a_table_that_wraps_around(self) -> None:
        angles = torch.arange(8) % 4 * torch.pi / 2
        with pytest.raises(PropertyError, match="positions 0 and 4"):
            check_distinct_positions(torch.stack([angles.sin(), angles.cos()], 1))

    def test_refuses_nan(self) -> None:
        with pytest.raises(PropertyError, match="position 1 is not finite"):
            check_distinct_positions(torch.tensor([[0.0], [math.nan]]))


def running_sum(inputs, is_first, state):
    kept = torch.where(is_first[:, None], 0.0, torch.zeros_like(inputs) if state is None else state)
    return kept + inputs, kept + inputs


def offline_sum(inputs, is_first):
    state, outputs = None, []
    for time in range(inputs.shape[1]):
        output, state = running_sum(inputs[:, time], is_first[:, time], state)
        outputs.append(output)
    return torch.stack(outputs, 1)


class TestStreaming:
    inputs = normal(2, 6, 3)
    is_first = torch.zeros(2, 6, dtype=torch.bool)
    is_first[:, 0] = True
    is_first[1, 3] = True

    def check(self, offline, step, tolerance: float = 0.0) -> None:
        check_streaming(offline, step, self.inputs, self.is_first, tolerance=tolerance)

    def test_passes_what_resets(self) -> None:
        self.check(offline_sum, running_sum)

    def test_refuses_a_step_that_forgets_to_reset(self) -> None:
        def step(inputs, is_first, state):
            return running_sum(inputs, torch.zeros_like(is_first), state)

        with pytest.raises(PropertyError, match="step by step, output 3 is off by"):
            self.check(offline_sum, step)

    def test_refuses_a_reset_of_the_whole_batch(self) -> None:
        def step(inputs, is_first, state):
            return running_sum(inputs, is_first.any().expand(2), state)

        with pytest.raises(PropertyError, match="output 3"):
            self.check(offline_sum, step)

    def test_refuses_a_reset_that_both_forget(self) -> None:
        def step(inputs, is_first, state):
            return running_sum(inputs, torch.zeros_like(is_first), state)

        def offline(inputs, is_first):
            return offline_sum(inputs, torch.zeros_like(is_first))

        with pytest.raises(PropertyError, match="emptying row 1 before its reset at step 3"):
            self.check(offline, step)

    def test_the_tolerance_decides(self) -> None:
        def step(inputs, is_first, state):
            output, state = running_sum(inputs, is_first, state)
            return output + 1e-3, state

        self.check(offline_sum, step, tolerance=2e-3)
        with pytest.raises(PropertyError, match=r"off by 0\.001"):
            self.check(offline_sum, step, tolerance=5e-4)

    def test_no_reset_inside_is_refused(self) -> None:
        no_reset = self.is_first[:1].expand(2, -1)
        with pytest.raises(ValueError, match="put some inside"):
            check_streaming(offline_sum, running_sum, self.inputs, no_reset, tolerance=0.0)


def test_parameter_count() -> None:
    shared = nn.Sequential(layer := nn.Linear(3, 2), layer)
    check_parameter_count(shared, 8)
    with pytest.raises(PropertyError, match=r"got 8 parameters, expected 9: -1"):
        check_parameter_count(shared, 9)


def adam(rate: float = 1e-3):
    def recurrence(parameter, gradient, step, state):
        first, second = state or (0.0, 0.0)
        first = 0.9 * first + 0.1 * gradient
        second = 0.999 * second + 0.001 * gradient**2
        direction = (first / (1 - 0.9**step)) / ((second / (1 - 0.999**step)).sqrt() + 1e-8)
        return parameter - rate * direction, (first, second)

    return recurrence


class TestOptimizer:
    def check(self, make_optimizer) -> None:
        check_optimizer(make_optimizer, adam(), num_steps=4, generator=draws())

    def test_passes_adam(self) -> None:
        self.check(lambda parameters: torch.optim.Adam(parameters, lr=1e-3))

    def test_refuses_a_first_step_ten_times_too_large(self) -> None:
        def make(parameters):
            optimizer = torch.optim.Adam(parameters, lr=1e-2)
            optimizer.register_step_post_hook(
                lambda *_: optimizer.param_groups[0].update({"lr": 1e-3})
            )
            return optimizer

        with pytest.raises(PropertyError, match="after step 1 parameters are off by 9 times"):
            self.check(make)

    def test_refuses_a_difference_that_shows_later(self) -> None:
        with pytest.raises(PropertyError, match="after step 2"):
            self.check(lambda parameters: torch.optim.Adam(parameters, lr=1e-3, betas=(0.8, 0.999)))

    def test_a_recurrence_that_stands_still_is_refused(self) -> None:
        with pytest.raises(ValueError, match="changes nothing"):
            check_optimizer(
                torch.optim.SGD, lambda p, _g, _n, s: (p, s), num_steps=1, generator=draws()
            )


def test_chance_level() -> None:
    labels = torch.arange(8)
    check_chance_level(nn.functional.cross_entropy(torch.zeros(8, 8), labels), 8, tolerance=1e-6)
    with pytest.raises(PropertyError, match=r"log 8 = 2\.079"):
        check_chance_level(nn.functional.cross_entropy(torch.eye(8), labels), 8, tolerance=0.1)
    with pytest.raises(PropertyError):
        check_chance_level(math.nan, 8, tolerance=0.1)
