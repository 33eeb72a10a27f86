import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from vlmreward import SoftmaxHead


@given(
    similarity=st.lists(st.floats(-1, 1, width=32), min_size=2, max_size=8),
    temperature=st.floats(0.01, 2.0),
)
def test_probability_is_equation_1(similarity, temperature):
    head = SoftmaxHead(temperature, threshold=0.5)
    logits = np.array(similarity, dtype=np.float64) / temperature
    weights = np.exp(logits - logits.max())
    got = head.probability(torch.tensor([similarity]))
    assert float(got[0]) == pytest.approx(weights[0] / weights.sum(), abs=1e-5)


def test_the_sum_includes_the_goal_itself():
    head = SoftmaxHead(temperature=1.0, threshold=0.5)
    got = head.probability(torch.tensor([[0.0, 0.0, 0.0]]))
    assert float(got[0]) == pytest.approx(1 / 3)


def test_padding_takes_no_part():
    head = SoftmaxHead(temperature=0.1, threshold=0.5)
    similarity = torch.tensor([[0.3, 0.2, 0.9]])
    candidate = torch.tensor([[True, True, False]])
    torch.testing.assert_close(
        head.probability(similarity, candidate), head.probability(similarity[:, :2])
    )


def test_the_threshold_is_strict():
    head = SoftmaxHead(temperature=1.0, threshold=0.5)
    probability = head.probability(torch.tensor([[0.25, 0.25]]))
    assert probability.tolist() == [0.5]
    assert head.reward(probability).tolist() == [0.0]
    above = torch.nextafter(probability, torch.ones(1))
    assert head.reward(above).tolist() == [1.0]


def test_a_threshold_is_compared_in_the_precision_of_the_probability():
    # .3 has no exact float32: its neighbours must still fall on either side.
    head = SoftmaxHead(temperature=1.0, threshold=0.3)
    near = torch.tensor([0.3])
    below, above = (torch.nextafter(near, torch.tensor([limit])) for limit in (0.0, 1.0))
    assert head.reward(torch.cat([below, above])).tolist() == [0.0, 1.0]


@pytest.mark.parametrize("temperature", [0.0, -0.1, math.nan, math.inf])
def test_bad_temperatures_are_refused(temperature):
    with pytest.raises(ValueError, match="positive temperature"):
        SoftmaxHead(temperature, threshold=0.5)


@pytest.mark.parametrize("threshold", [-0.1, 1.0, 1.5, math.nan])
def test_thresholds_that_nothing_or_no_probability_exceeds_are_refused(threshold):
    with pytest.raises(ValueError, match="threshold from 0 to below 1"):
        SoftmaxHead(0.1, threshold)
