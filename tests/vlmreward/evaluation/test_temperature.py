import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from vlmreward.evaluation import fit_temperature, negative_log_likelihood
from vlmreward.heads import Similarities, SoftmaxHead


def drawn_at(temperature, num_frames, num_negatives, rng):
    """Cosines, and labels drawn from the softmax head's own probabilities."""
    goal = torch.tensor(rng.normal(0.25, 0.05, num_frames))
    negatives = torch.tensor(rng.normal(0.2, 0.05, (num_frames, num_negatives)))
    seen = Similarities.of(goal, negatives=negatives)
    probability = SoftmaxHead(temperature).score(seen).numpy()
    return seen, rng.random(num_frames) < probability


def test_the_likelihood_is_that_of_the_softmax_head():
    seen, labels = drawn_at(0.03, 200, 4, np.random.default_rng(0))
    for temperature in (0.01, 0.03, 1.0):
        probability = SoftmaxHead(temperature).score(seen).numpy()
        expected = -np.log(np.where(labels, probability, 1 - probability)).mean()
        assert negative_log_likelihood(seen, labels, temperature) == pytest.approx(expected)


def test_padding_does_not_count():
    seen, labels = drawn_at(0.03, 50, 2, np.random.default_rng(0))
    padded = Similarities(
        seen.goal,
        torch.cat([seen.negatives, torch.full((50, 1), 0.9, dtype=torch.float64)], dim=1),
        torch.tensor([True, True, False]).expand(50, 3),
        seen.baseline,
        seen.goal_to_baseline,
    )
    assert negative_log_likelihood(padded, labels, 0.1) == pytest.approx(
        negative_log_likelihood(seen, labels, 0.1)
    )
    assert fit_temperature(padded, labels) == pytest.approx(fit_temperature(seen, labels))


def test_a_sure_mistake_costs_its_margin_and_not_infinity():
    seen = Similarities.of(torch.tensor([1.0, 0.0]), negatives=torch.tensor([[0.0], [0.0]]))
    # The first is wrong by 1 / .0001 = 10000 nats, the second costs ln 2.
    surprise = negative_log_likelihood(seen, [False, True], 1e-4)
    assert surprise == pytest.approx((1e4 + math.log(2)) / 2)


@pytest.mark.parametrize("num_negatives", [1, 5])
@pytest.mark.parametrize("temperature", [0.01, 0.05])
def test_the_temperature_that_drew_the_labels_is_found(num_negatives, temperature):
    seen, labels = drawn_at(temperature, 20_000, num_negatives, np.random.default_rng(0))
    assert fit_temperature(seen, labels) == pytest.approx(temperature, rel=0.1)


@settings(max_examples=40)
@given(st.integers(0, 10_000), st.integers(1, 4))
def test_no_other_temperature_is_likelier(seed, num_negatives):
    seen, labels = drawn_at(0.05, 60, num_negatives, np.random.default_rng(seed))
    best = fit_temperature(seen, labels)
    lowest = negative_log_likelihood(seen, labels, best)
    for other in np.geomspace(1e-3, 10, 30):
        assert negative_log_likelihood(seen, labels, float(other)) >= lowest - 1e-9
    for near in (0.99, 1.01):
        assert negative_log_likelihood(seen, labels, near * best) >= lowest


def test_separated_labels_have_no_temperature():
    seen = Similarities.of(torch.tensor([0.3, 0.1]), negatives=torch.full((2, 1), 0.2))
    with pytest.raises(ValueError, match=r"without an error.*keep the model's own"):
        fit_temperature(seen, [True, False])


def test_reversed_labels_have_no_temperature():
    seen = Similarities.of(torch.tensor([0.3, 0.1]), negatives=torch.full((2, 1), 0.2))
    with pytest.raises(ValueError, match="do not agree with these labels at any temperature"):
        fit_temperature(seen, [False, True])


@pytest.mark.parametrize("measure", [fit_temperature, lambda *a: negative_log_likelihood(*a, 0.1)])
@pytest.mark.parametrize(
    ("seen", "labels", "error", "message"),
    [
        (Similarities.of(torch.zeros(2)), [True, False], ValueError, "at least one negative"),
        (
            Similarities.of(torch.zeros(2), negatives=torch.tensor([[0.1], [math.nan]])),
            [True, False],
            ValueError,
            "negatives must be finite",
        ),
        (
            Similarities.of(torch.tensor([0.1, math.nan]), negatives=torch.zeros(2, 1)),
            [True, False],
            ValueError,
            "1 of 2",
        ),
        (Similarities.of(torch.zeros(2), negatives=torch.zeros(2, 1)), [0, 1], TypeError, "bool"),
        (
            Similarities.of(torch.zeros(2), negatives=torch.zeros(2, 1)),
            [True, True],
            ValueError,
            "not achieved",
        ),
    ],
)
def test_bad_input_says_what_came(measure, seen, labels, error, message):
    with pytest.raises(error, match=message):
        measure(seen, labels)


@pytest.mark.parametrize("temperature", [0.0, -1.0, math.nan, math.inf])
def test_a_temperature_is_positive(temperature):
    seen = Similarities.of(torch.zeros(2), negatives=torch.zeros(2, 1))
    with pytest.raises(ValueError, match="positive temperature, got"):
        negative_log_likelihood(seen, [True, False], temperature)
