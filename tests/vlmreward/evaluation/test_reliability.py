import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.calibration import calibration_curve

from vlmreward.evaluation import expected_calibration_error, reliability_curve

rows_of = st.lists(st.tuples(st.booleans(), st.floats(0.0, 1.0)), min_size=2, max_size=60).filter(
    lambda rows: 0 < sum(label for label, _ in rows) < len(rows)
)


def columns(rows):
    labels, probabilities = zip(*rows, strict=True)
    return np.array(labels), np.array(probabilities)


@given(rows_of, st.integers(1, 12))
def test_bins_of_equal_width_are_those_of_scikit_learn(rows, num_bins):
    labels, probabilities = columns(rows)
    curve = reliability_curve(labels, probabilities, num_bins=num_bins)
    frequency, probability = calibration_curve(labels, probabilities, n_bins=num_bins)
    assert curve.frequency == pytest.approx(frequency)
    assert curve.probability == pytest.approx(probability)
    assert curve.count.sum() == labels.size


def test_bins_of_equal_mass_hold_equally_many_and_keep_ties_together():
    rng = np.random.default_rng(0)
    probabilities = rng.random(1000) ** 6  # most of them near 0
    labels = rng.random(1000) < probabilities
    curve = reliability_curve(labels, probabilities, num_bins=5, binning="equal_mass")
    assert curve.count.tolist() == [200] * 5
    wide = reliability_curve(labels, probabilities, num_bins=5)
    assert wide.count[0] > 600
    tied = reliability_curve(
        [True, False, False, True], [0.2, 0.2, 0.2, 0.9], num_bins=4, binning="equal_mass"
    )
    assert tied.count.tolist() == [3, 1]


def test_bins_are_closed_on_the_right():
    labels = [True, False, True]
    curve = reliability_curve(labels, [0.0, 0.5, 1.0], num_bins=2)
    assert curve.count.tolist() == [2, 1]


def test_the_error_by_hand():
    labels = [True, False, False, False, True, True]
    probabilities = [0.1, 0.1, 0.2, 0.2, 0.9, 0.7]
    # Bins (0, .5] and (.5, 1]: |1/4 − .15| · 4/6 + |1 − .8| · 2/6
    curve = reliability_curve(labels, probabilities, num_bins=2)
    assert curve.expected_calibration_error == pytest.approx(0.1 * 4 / 6 + 0.2 * 2 / 6)
    assert json.loads(json.dumps(curve.to_dict()))["count"] == [4, 2]


@pytest.mark.parametrize("binning", ["equal_width", "equal_mass"])
def test_calibrated_probabilities_have_no_error_in_the_limit(binning):
    rng = np.random.default_rng(0)
    errors = []
    for num_frames in (300, 30_000, 3_000_000):
        probabilities = rng.beta(0.5, 1.5, num_frames)
        labels = rng.random(num_frames) < probabilities
        curve = reliability_curve(labels, probabilities, binning=binning)
        errors.append(curve.expected_calibration_error)
    # Chance alone: about √(K / N) / 3 for K = 10 bins.
    assert errors[0] < 0.1
    assert errors[1] < 0.01
    assert errors[2] < 0.001


@pytest.mark.parametrize("binning", ["equal_width", "equal_mass"])
def test_overconfident_probabilities_have_the_error_of_theory(binning):
    rng = np.random.default_rng(0)
    probabilities = rng.random(400_000)
    labels = rng.random(400_000) < 0.25 + probabilities / 2
    curve = reliability_curve(labels, probabilities, binning=binning)
    assert curve.expected_calibration_error == pytest.approx(0.125, abs=0.005)


def test_the_mirrored_interval_covers_the_true_error_where_the_percentiles_do_not():
    rng = np.random.default_rng(0)
    num_above, mirrored, percentile = 0, 0, 0
    for _ in range(100):
        probabilities = rng.random(150)
        labels = rng.random(150) < 0.1 + 0.8 * probabilities
        error = expected_calibration_error(
            labels, probabilities, generator=rng, num_bins=5, num_resamples=60, confidence=0.9
        )
        # With 5 bins: gaps .08, .04, 0, .04, .08 → their mean, .048.
        num_above += error.value > 0.048
        mirrored += error.low <= 0.048 <= error.high
        percentile += 2 * error.value - error.high <= 0.048 <= 2 * error.value - error.low
    assert num_above > 70  # the value itself is biased upwards
    # About 78 and 36 ± 5: the mirrored one is closer to the 90 that it says, and not there.
    assert 62 <= mirrored <= 95
    assert percentile <= 52


def test_the_interval_stays_within_the_range_and_comes_from_the_generator():
    rng = np.random.default_rng(0)
    probabilities = rng.random(60)
    labels = rng.random(60) < probabilities
    first, again, other = (
        expected_calibration_error(labels, probabilities, generator=np.random.default_rng(seed))
        for seed in (0, 0, 1)
    )
    assert 0.0 <= first.low <= first.high <= 1.0
    assert first == again != other
    curve = reliability_curve(labels, probabilities)
    assert first.value == curve.expected_calibration_error


def test_whole_episodes_are_resampled():
    rng = np.random.default_rng(0)
    episodes = np.repeat(np.arange(10), 40)
    probabilities = np.full(400, 0.5)
    labels = (rng.random(10) < 0.5)[episodes]  # an episode is achieved throughout or not at all
    frames, whole = (
        expected_calibration_error(
            labels, probabilities, groups=groups, generator=np.random.default_rng(0)
        )
        for groups in (None, episodes)
    )
    assert whole.high - whole.low > 2 * (frames.high - frames.low)


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"labels": [0, 1]}, TypeError, "bool"),
        ({"probabilities": [0.1]}, ValueError, r"\[2\] and \[1\]"),
        ({"probabilities": [0.1, 1.5]}, ValueError, r"in \[0, 1\], got 1.5: .*cosines"),
        ({"probabilities": [-0.25, 0.5]}, ValueError, "got -0.25"),
        ({"num_bins": 0}, ValueError, "num_bins must be at least 1, got 0"),
        ({"num_resamples": 0}, ValueError, "num_resamples must be at least 1"),
        ({"confidence": 2.0}, ValueError, "between 0 and 1"),
    ],
)
def test_bad_input_says_what_came(changes, error, message):
    arguments = {
        "labels": [True, False],
        "probabilities": [0.9, 0.1],
        "generator": np.random.default_rng(0),
    }
    expected_calibration_error(**arguments)
    with pytest.raises(error, match=message):
        expected_calibration_error(**(arguments | changes))
