import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vlmreward.evaluation import threshold_for_false_positive_rate


def test_the_rank_by_hand():
    # n = 19, rate .1: k = ceil(20 · .9) = 18, the 18th smallest of 1..19.
    assert threshold_for_false_positive_rate(np.arange(1.0, 20.0), 0.1) == 18.0
    # One score fewer: k = ceil(19 · .9) = 18 of 18, so none of them is paid.
    assert threshold_for_false_positive_rate(np.arange(1.0, 19.0), 0.1) == 18.0


@given(st.integers(1, 400), st.integers(1, 99))
def test_the_rank_is_exact_in_spite_of_rounding(num_scores, percent):
    rate = percent / 100
    # ceil((n + 1)(100 - percent) / 100) in integers.
    rank = -(-(num_scores + 1) * (100 - percent) // 100)
    scores = np.arange(1.0, num_scores + 1.0)
    if rank > num_scores:
        with pytest.raises(ValueError, match="needs at least"):
            threshold_for_false_positive_rate(scores, rate)
    else:
        assert threshold_for_false_positive_rate(scores, rate) == rank


@pytest.mark.parametrize("ties", [False, True])
def test_new_negatives_are_paid_at_most_at_the_promised_rate(ties):
    generator = np.random.default_rng(0)
    rate, num_scores, num_trials = 0.05, 99, 4000
    # Skewed scores: the promise does not depend on their distribution.
    scores = generator.beta(0.5, 3.0, size=(num_trials, num_scores + 1))
    if ties:
        scores = np.round(scores, 1)
    num_paid = sum(row[-1] > threshold_for_false_positive_rate(row[:-1], rate) for row in scores)
    # Without ties the probability is exactly .05: 200 ± 13.8 of 4000.
    assert num_paid <= 200 + 4 * 13.8
    if not ties:
        assert num_paid >= 200 - 4 * 13.8


def test_too_few_scores_are_refused_and_the_stated_number_is_enough():
    with pytest.raises(ValueError, match="at least 99 negative scores, got 98"):
        threshold_for_false_positive_rate(np.zeros(98), 0.01)
    assert threshold_for_false_positive_rate(np.zeros(99), 0.01) == 0.0


@pytest.mark.parametrize("rate", [0.0, 1.0, -0.1, float("nan")])
def test_a_rate_outside_the_open_unit_interval_is_refused(rate):
    with pytest.raises(ValueError, match="between 0 and 1"):
        threshold_for_false_positive_rate([0.1, 0.2], rate)


@pytest.mark.parametrize(
    ("scores", "message"),
    [([[0.1, 0.2]], r"\[1, 2\]"), ([0.1, float("nan")], "1 of 2")],
)
def test_bad_scores_are_refused(scores, message):
    with pytest.raises(ValueError, match=message):
        threshold_for_false_positive_rate(scores, 0.5)
