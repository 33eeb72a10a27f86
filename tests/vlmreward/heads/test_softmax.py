import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from vlmreward import SoftmaxHead, ThresholdHead
from vlmreward.heads import Similarities


def seen(cosines):
    """The goal's cosine first, then those of its negatives."""
    values = torch.tensor([cosines], dtype=torch.float32)
    return Similarities.of(values[:, 0], negatives=values[:, 1:])


@given(
    cosines=st.lists(st.floats(-1, 1, width=32), min_size=2, max_size=8),
    temperature=st.floats(0.01, 2.0),
)
def test_the_score_is_equation_1(cosines, temperature):
    logits = np.array(cosines, dtype=np.float64) / temperature
    weights = np.exp(logits - logits.max())
    got = SoftmaxHead(temperature).score(seen(cosines))
    assert float(got[0]) == pytest.approx(weights[0] / weights.sum(), abs=1e-5)


def test_the_sum_includes_the_goal_itself():
    assert float(SoftmaxHead(1.0).score(seen([0.0, 0.0, 0.0]))[0]) == pytest.approx(1 / 3)


def test_padding_takes_no_part():
    padded = Similarities(
        goal=torch.tensor([0.3]),
        negatives=torch.tensor([[0.2, 0.9]]),
        is_negative=torch.tensor([[True, False]]),
        baseline=torch.tensor([math.nan]),
        goal_to_baseline=torch.tensor([math.nan]),
    )
    head = SoftmaxHead(temperature=0.1)
    torch.testing.assert_close(head.score(padded), head.score(seen([0.3, 0.2])))


def test_alone_it_pays_the_probability():
    score = torch.tensor([0.2, 0.8])
    assert torch.equal(SoftmaxHead(0.1).reward(score), score)


def test_the_threshold_is_strict():
    head = ThresholdHead(SoftmaxHead(temperature=1.0), threshold=0.5)
    score = head.score(seen([0.25, 0.25]))
    assert score.tolist() == [0.5]
    assert head.reward(score).tolist() == [0.0]
    above = torch.nextafter(score, torch.ones(1))
    assert head.reward(above).tolist() == [1.0]


def test_a_threshold_is_compared_in_the_precision_of_the_score():
    # .3 has no exact float32: its neighbours must still fall on either side.
    head = ThresholdHead(SoftmaxHead(temperature=1.0), threshold=0.3)
    near = torch.tensor([0.3])
    below, above = (torch.nextafter(near, torch.tensor([limit])) for limit in (0.0, 1.0))
    assert head.reward(torch.cat([below, above])).tolist() == [0.0, 1.0]


@pytest.mark.parametrize("temperature", [0.0, -0.1, math.nan, math.inf])
def test_bad_temperatures_are_refused(temperature):
    with pytest.raises(ValueError, match="positive temperature"):
        SoftmaxHead(temperature)


@pytest.mark.parametrize("threshold", [math.nan, math.inf])
def test_bad_thresholds_are_refused(threshold):
    with pytest.raises(ValueError, match="finite threshold"):
        ThresholdHead(SoftmaxHead(0.1), threshold)
