import doctest

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vlmreward.evaluation import (
    accuracy,
    average_precision,
    calibration,
    curves,
    operating_point,
    precision_recall_curve,
)

FOUR_LABELS = [False, True, False, True]
FOUR_SCORES = [0.1, 0.4, 0.6, 0.9]

labelled_scores = st.lists(
    # Few distinct scores, so that ties are common.
    st.tuples(st.booleans(), st.integers(0, 6).map(lambda level: level / 8)),
    min_size=2,
    max_size=40,
).filter(lambda rows: 0 < sum(label for label, _ in rows) < len(rows))


def columns(rows):
    """Split rows of (label, score) into two arrays."""
    labels, scores = zip(*rows, strict=True)
    return np.array(labels), np.array(scores)


@pytest.mark.parametrize("module", [accuracy, calibration, curves])
def test_docstring_examples_run(module):
    results = doctest.testmod(module)
    assert results.attempted > 0
    assert results.failed == 0


def average_precision_by_definition(labels, scores):
    """Sum over distinct scores, highest first, of the step in recall times the precision."""
    total, previous_recall = 0.0, 0.0
    for threshold in sorted(set(scores), reverse=True):
        paid = [label for label, score in zip(labels, scores, strict=True) if score >= threshold]
        recall = sum(paid) / sum(labels)
        total += (recall - previous_recall) * sum(paid) / len(paid)
        previous_recall = recall
    return total


@given(labelled_scores)
def test_average_precision_is_the_sum_over_steps_of_the_curve(rows):
    labels, scores = columns(rows)
    expected = average_precision_by_definition(labels, scores)
    assert average_precision(labels, scores) == pytest.approx(expected)
    curve = precision_recall_curve(labels, scores)
    steps = curve.recall - np.append(curve.recall[1:], 0.0)
    assert float(steps @ curve.precision) == pytest.approx(expected)


@given(labelled_scores, st.floats(0.1, 10), st.floats(-5, 5))
def test_average_precision_depends_on_the_order_of_scores_only(rows, scale, shift):
    labels, scores = columns(rows)
    moved = np.exp(scale * np.array(scores)) + shift
    assert average_precision(labels, moved) == pytest.approx(average_precision(labels, scores))


def test_a_perfect_score_has_average_precision_one_and_a_constant_one_the_positive_rate():
    assert average_precision(FOUR_LABELS, [0.0, 1.0, 0.0, 1.0]) == 1.0
    assert (
        average_precision(FOUR_LABELS, [0.5] * 4)
        == precision_recall_curve(FOUR_LABELS, [0.5] * 4).positive_rate
    )


@given(labelled_scores)
def test_the_curve_agrees_with_the_operating_point_just_below_each_threshold(rows):
    labels, scores = columns(rows)
    curve = precision_recall_curve(labels, scores)
    for precision, recall, threshold in zip(
        curve.precision, curve.recall, curve.thresholds, strict=True
    ):
        point = operating_point(labels, scores, np.nextafter(threshold, -np.inf))
        assert (point.precision, point.recall) == pytest.approx((precision, recall))


def test_a_score_equal_to_the_threshold_is_not_paid():
    point = operating_point(FOUR_LABELS, FOUR_SCORES, threshold=0.6)
    assert (point.true_positives, point.false_positives) == (1, 0)
    below = operating_point(FOUR_LABELS, FOUR_SCORES, threshold=np.nextafter(0.6, 0.0))
    assert (below.true_positives, below.false_positives) == (1, 1)


def test_rates_at_a_threshold_by_hand():
    point = operating_point([True, True, False, False, False], [0.9, 0.2, 0.8, 0.1, 0.3], 0.25)
    assert point.precision == pytest.approx(1 / 3)
    assert point.recall == pytest.approx(1 / 2)
    assert point.false_positive_rate == pytest.approx(2 / 3)
    assert point.to_dict()["num_negatives"] == 3


def test_paying_nobody_is_precise_and_recalls_nothing():
    point = operating_point(FOUR_LABELS, FOUR_SCORES, threshold=1.0)
    assert (point.precision, point.recall, point.false_positive_rate) == (1.0, 0.0, 0.0)


@pytest.mark.parametrize("measure", [average_precision, precision_recall_curve])
@pytest.mark.parametrize(
    ("labels", "scores", "error", "message"),
    [
        ([0, 1], [0.1, 0.2], TypeError, "bool"),
        ([True, False], [0.1, 0.2, 0.3], ValueError, r"\[2\] and \[3\]"),
        ([[True, False]], [[0.1, 0.2]], ValueError, r"\[1, 2\]"),
        ([True, False], [0.1, float("nan")], ValueError, "1 of 2"),
        ([True, False], [0.1, float("inf")], ValueError, "finite"),
        ([False, False], [0.1, 0.2], ValueError, r"achieved \(True\)"),
        ([True, True], [0.1, 0.2], ValueError, r"not achieved \(False\)"),
    ],
)
def test_bad_input_says_what_came(measure, labels, scores, error, message):
    with pytest.raises(error, match=message):
        measure(labels, scores)
    with pytest.raises(error, match=message):
        operating_point(labels, scores, 0.5)
