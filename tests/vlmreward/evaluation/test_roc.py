import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vlmreward.evaluation import operating_point, roc_auc, roc_curve

labelled_scores = st.lists(
    # Few distinct scores, so that ties are common.
    st.tuples(st.booleans(), st.integers(0, 6).map(lambda level: level / 8)),
    min_size=2,
    max_size=40,
).filter(lambda rows: 0 < sum(label for label, _ in rows) < len(rows))


def columns(rows):
    labels, scores = zip(*rows, strict=True)
    return np.array(labels), np.array(scores)


@given(labelled_scores)
def test_auc_is_the_share_of_pairs_in_the_right_order(rows):
    labels, scores = columns(rows)
    pairs = scores[labels][:, None] - scores[~labels]
    assert roc_auc(labels, scores) == pytest.approx(((pairs > 0) + 0.5 * (pairs == 0)).mean())


@given(labelled_scores)
def test_auc_mirrors_with_the_labels_and_ignores_monotone_changes(rows):
    labels, scores = columns(rows)
    assert roc_auc(~labels, scores) == pytest.approx(1.0 - roc_auc(labels, scores))
    assert roc_auc(labels, np.exp(3 * scores) - 7) == pytest.approx(roc_auc(labels, scores))


@given(labelled_scores)
def test_the_curve_agrees_with_the_operating_point_just_below_each_threshold(rows):
    labels, scores = columns(rows)
    curve = roc_curve(labels, scores)
    assert curve.thresholds.tolist() == sorted(set(scores))
    for rate, recall, threshold in zip(
        curve.false_positive_rate, curve.recall, curve.thresholds, strict=True
    ):
        point = operating_point(labels, scores, np.nextafter(threshold, -np.inf))
        assert (point.false_positive_rate, point.recall) == pytest.approx((rate, recall))


@given(labelled_scores)
def test_auc_is_the_area_under_the_curve(rows):
    curve = roc_curve(*columns(rows))
    across = np.append(curve.false_positive_rate, 0.0)[::-1]
    up = np.append(curve.recall, 0.0)[::-1]
    assert np.trapezoid(up, across) == pytest.approx(curve.auc)


def test_the_curve_is_json():
    curve = roc_curve([False, True, True], [0.1, 0.1, 0.8])
    data = json.loads(json.dumps(curve.to_dict(), allow_nan=False))
    assert data == {
        "false_positive_rate": [1.0, 0.0],
        "recall": [1.0, 0.5],
        "thresholds": [0.1, 0.8],
        "auc": 0.75,
    }


@pytest.mark.parametrize("measure", [roc_auc, roc_curve])
@pytest.mark.parametrize(
    ("labels", "scores", "error", "message"),
    [
        ([0, 1], [0.1, 0.2], TypeError, "bool"),
        ([True, False], [0.1, 0.2, 0.3], ValueError, r"\[2\] and \[3\]"),
        ([True, False], [0.1, float("inf")], ValueError, "1 of 2"),
        ([True, True], [0.1, 0.2], ValueError, r"not achieved \(False\)"),
    ],
)
def test_bad_input_says_what_came(measure, labels, scores, error, message):
    with pytest.raises(error, match=message):
        measure(labels, scores)
