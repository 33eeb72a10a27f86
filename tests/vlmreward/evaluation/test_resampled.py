"""Each measure of many resamples, against its twin on the rows of each resample."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vlmreward.evaluation import average_precision, epic_distance, operating_point, roc_auc
from vlmreward.evaluation import resampled as module
from vlmreward.evaluation.bootstrap import resampled_rows
from vlmreward.evaluation.reliability import bin_of_each
from vlmreward.evaluation.resampled import (
    calibration_errors,
    counts_of_rows,
    epic_distances,
    false_positive_rates,
    ranking_measures,
)

frames = st.lists(
    st.tuples(st.booleans(), st.integers(0, 8).map(lambda level: level / 8)),
    min_size=4,
    max_size=30,
).filter(lambda rows: 0 < sum(label for label, _ in rows) < len(rows))


def prepare(rows):
    labels, scores = (np.array(column) for column in zip(*rows, strict=True))
    samples = list(resampled_rows(labels.size, 12, np.random.default_rng(0), strata=labels))
    return labels, scores.astype(np.float64), samples, counts_of_rows(samples, labels.size)


@settings(max_examples=40)
@given(frames)
def test_average_precision_and_roc_auc(rows):
    labels, scores, samples, counts = prepare(rows)
    precisions, areas = ranking_measures(labels, scores, counts)
    assert precisions == pytest.approx([average_precision(labels[s], scores[s]) for s in samples])
    assert areas == pytest.approx([roc_auc(labels[s], scores[s]) for s in samples])


@given(frames, st.sampled_from([1.0, 1e-6, 1e6]), st.sampled_from([0.0, 100.0]))
def test_epic_distance(rows, scale, shift):
    labels, scores, samples, counts = prepare(rows)
    rewards, true_rewards = scale * (scores + shift), labels.astype(np.float64)
    distances = epic_distances(rewards, true_rewards, counts)
    expected = [epic_distance(rewards[s], true_rewards[s]) for s in samples]
    assert distances == pytest.approx(expected, abs=1e-5)


@given(frames)
def test_false_positive_rate_and_calibration_error(rows):
    labels, scores, samples, counts = prepare(rows)
    rates = false_positive_rates(labels, scores > 0.5, counts)
    expected = [operating_point(labels[s], scores[s], 0.5).false_positive_rate for s in samples]
    assert rates == pytest.approx(expected)
    bins = bin_of_each(scores, 5, "equal_width")
    errors = calibration_errors(labels, scores, bins, counts)
    for sample, error in zip(samples, errors, strict=True):
        gaps = [abs((labels[sample] - scores[sample])[bins[sample] == b].sum()) for b in range(5)]
        assert error == pytest.approx(sum(gaps) / labels.size)


def test_pieces_do_not_change_the_result(monkeypatch):
    rng = np.random.default_rng(0)
    rows = list(zip(rng.random(40) < 0.4, rng.random(40).round(1), strict=True))
    labels, scores, _, counts = prepare(rows)
    whole = ranking_measures(labels, scores, counts)
    monkeypatch.setattr(module, "_PIECE", 100)
    assert np.array_equal(ranking_measures(labels, scores, counts), whole)


def test_counts():
    assert counts_of_rows([np.array([0, 2, 2]), np.array([1, 1, 1])], 3).tolist() == [
        [1, 0, 2],
        [0, 3, 0],
    ]
