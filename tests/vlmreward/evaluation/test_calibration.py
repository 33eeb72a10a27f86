import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from vlmreward.evaluation import threshold_for_false_positive_rate, threshold_for_precision


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


def frames_of_rising_precision(num_frames, rng):
    """Scores uniform on [0, 1]; a frame with score s is achieved with probability s ** 2."""
    scores = rng.random(num_frames)
    return rng.random(num_frames) < scores**2, scores


def true_precision(threshold):
    """Mean of s ** 2 over s in (threshold, 1)."""
    return (1 - threshold**3) / (3 * (1 - threshold))


def test_the_promised_precision_is_kept_as_often_as_promised():
    rng = np.random.default_rng(0)
    kept = [
        true_precision(
            threshold_for_precision(
                *frames_of_rising_precision(400, rng), 0.6, confidence=0.8, num_candidates=3
            ).threshold
        )
        >= 0.6
        for _ in range(200)
    ]
    # At least Binomial(200, .8): 160 ± 5.7, the bound is conservative.
    assert sum(kept) >= 160 - 4 * 5.7


def test_more_frames_come_closer_to_the_threshold_of_theory():
    # (1 − t³) / (3 (1 − t)) = (1 + t + t²) / 3 = .6 at t = .525.
    best = (-1 + np.sqrt(1 + 4 * 0.8)) / 2
    gaps = []
    for num_frames in (300, 30_000):
        frames = frames_of_rising_precision(num_frames, np.random.default_rng(1))
        gaps.append(threshold_for_precision(*frames, 0.6, num_candidates=50).threshold - best)
    assert 0.0 <= gaps[1] < 0.1 < gaps[0] < 0.5


def test_the_bound_is_clopper_pearson_s_at_the_level_that_all_candidates_share():
    labels, scores = frames_of_rising_precision(500, np.random.default_rng(0))
    found = threshold_for_precision(labels, scores, 0.6, confidence=0.9, num_candidates=4)
    paid = scores > found.threshold
    true = int((paid & labels).sum())
    assert found.at_threshold.true_positives == true
    bound = stats.beta.ppf(0.1 / 4, true, paid.sum() - true + 1)
    assert found.precision_low == pytest.approx(bound)
    assert found.precision_low >= 0.6
    assert found.to_dict()["precision_low"] == found.precision_low


def test_the_lowest_threshold_that_passes_is_taken():
    scores = np.arange(1000) / 1000
    found = threshold_for_precision(scores >= 0.5, scores, 0.9, num_candidates=200)
    # Of m ≥ 500 paid frames 500 are achieved; the bound at m = 540 is below 500 / 540 = .926.
    assert found.at_threshold.recall == 1.0
    assert 500 <= scores.size - found.threshold * 1000 - 1 < 540


def test_one_candidate_is_an_exact_binomial_test():
    # .05 = .9^28.4, so 29 frames without an error promise .9, with 95 % confidence.
    labels = np.arange(31) >= 1
    found = threshold_for_precision(labels, np.arange(31.0), 0.9, num_candidates=1)
    assert found.threshold == 1.0
    assert found.precision_low == pytest.approx(0.05 ** (1 / 29))
    with pytest.raises(ValueError, match=r"at least 30 labelled frames for 1 candidate .* got 29"):
        threshold_for_precision(labels[:29], np.arange(29.0), 0.9, num_candidates=1)


def test_a_threshold_that_no_frame_exceeds_promises_nothing():
    with pytest.raises(ValueError, match=r"best lower bound is 0.000, from 0 of 0 paid"):
        threshold_for_precision(np.arange(100) < 50, np.ones(100), 0.5)


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"labels": np.zeros(100, int)}, TypeError, "bool"),
        ({"labels": np.zeros(100, bool)}, ValueError, "achieved"),
        ({"precision": 1.0}, ValueError, "precision must be strictly .* got 1.0"),
        ({"confidence": 0.0}, ValueError, "confidence must be strictly .* got 0.0"),
        ({"num_candidates": 0}, ValueError, "num_candidates must be at least 1, got 0"),
        ({"precision": 0.99}, ValueError, "needs at least 529 labelled frames"),
        ({"scores": -np.arange(100.0)}, ValueError, "no threshold can be promised"),
    ],
)
def test_what_cannot_be_promised_is_refused(changes, error, message):
    arguments = {"labels": np.arange(100) >= 40, "scores": np.arange(100.0), "precision": 0.8}
    threshold_for_precision(**arguments)
    with pytest.raises(error, match=message):
        threshold_for_precision(**(arguments | changes))
