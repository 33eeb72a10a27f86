import numpy as np
import pytest

from vlmreward.evaluation import Estimate, average_precision, bootstrap, roc_auc
from vlmreward.evaluation.bootstrap import resampled_rows


def mean(values):
    return float(np.mean(values))


def test_the_interval_of_a_mean_is_that_of_theory():
    values = np.random.default_rng(0).normal(5.0, 2.0, 400)
    estimate = bootstrap(mean, values, generator=np.random.default_rng(1), num_resamples=4000)
    half_width = 1.96 * values.std() / np.sqrt(400)
    assert estimate.value == values.mean()
    assert estimate.low == pytest.approx(values.mean() - half_width, abs=0.02)
    assert estimate.high == pytest.approx(values.mean() + half_width, abs=0.02)


def test_more_confidence_is_a_wider_interval():
    values = np.arange(50.0)
    narrow, wide = (
        bootstrap(mean, values, generator=np.random.default_rng(0), confidence=confidence)
        for confidence in (0.5, 0.99)
    )
    assert wide.low < narrow.low < narrow.high < wide.high


def test_columns_are_resampled_together():
    values = np.random.default_rng(0).normal(size=30)
    estimate = bootstrap(
        lambda a, b: float(np.abs(a - b).max()), values, values, generator=np.random.default_rng(0)
    )
    assert estimate == Estimate(0.0, 0.0, 0.0)


def test_intervals_come_from_the_generator_alone():
    values = np.random.default_rng(0).normal(size=30)
    first, again, other = (
        bootstrap(mean, values, generator=np.random.default_rng(seed)) for seed in (0, 0, 1)
    )
    assert first == again
    assert first != other


def test_strata_keep_their_sizes():
    labels = np.array([True] * 3 + [False] * 17)
    samples = list(resampled_rows(20, 200, np.random.default_rng(0), strata=labels))
    assert {int(labels[rows].sum()) for rows in samples} == {3}
    assert {rows.size for rows in samples} == {20}
    assert len({tuple(rows) for rows in samples}) == 200


def test_groups_are_drawn_whole():
    groups = np.array([4, 4, 9, 9, 9, 2])
    for rows in resampled_rows(6, 100, np.random.default_rng(0), groups=groups):
        times = np.bincount(rows, minlength=6)
        assert times[0] == times[1]
        assert times[2] == times[3] == times[4]
        assert times[0] + times[2] + times[5] == 3


def test_groups_with_strata_never_lose_a_stratum():
    groups = np.repeat(np.arange(6), 2)
    labels = groups == 0  # one episode of six: without redrawing, a third would lose it
    samples = list(resampled_rows(12, 200, np.random.default_rng(0), strata=labels, groups=groups))
    assert all(labels[rows].any() and not labels[rows].all() for rows in samples)


def test_frames_that_err_together_widen_the_interval():
    rng = np.random.default_rng(0)
    groups = np.repeat(np.arange(20), 30)
    values = rng.normal(size=20)[groups] + rng.normal(0.0, 0.1, groups.size)
    frames, episodes = (
        bootstrap(mean, values, groups=given, generator=np.random.default_rng(0))
        for given in (None, groups)
    )
    # Frames: 1 / √600. Episodes: 1 / √20, 5.5 times as wide.
    assert 4 < (episodes.high - episodes.low) / (frames.high - frames.low) < 7


@pytest.mark.parametrize("statistic", [average_precision, roc_auc])
def test_it_serves_the_measures_of_the_package(statistic):
    rng = np.random.default_rng(0)
    labels = rng.random(100) < 0.3
    scores = labels + rng.normal(0.0, 0.8, 100)
    estimate = bootstrap(statistic, labels, scores, strata=labels, generator=rng, num_resamples=100)
    assert estimate.low < estimate.value < estimate.high
    assert estimate.value == statistic(labels, scores)


@pytest.mark.parametrize(
    ("columns", "changes", "message"),
    [
        ((), {}, "pass at least one"),
        ((np.array(3.0),), {}, "with rows"),
        (([1.0, 2.0], [1.0]), {}, r"\[2, 1\]"),
        (([],), {}, "empty"),
        (([1.0, 2.0],), {"num_resamples": 0}, "at least 1, got 0"),
        (([1.0, 2.0],), {"confidence": 0.0}, "between 0 and 1, got 0.0"),
        (([1.0, 2.0],), {"strata": [True]}, r"strata must .* \[2\], got \[1\]"),
        (([1.0, 2.0],), {"groups": [[0, 1]]}, r"groups must .* \[2\], got \[1, 2\]"),
        (([1.0, 2.0],), {"groups": [5, 5]}, "at least 2 groups"),
    ],
)
def test_bad_input_says_what_came(columns, changes, message):
    def total(*arrays):
        return float(sum(array.sum() for array in arrays))

    with pytest.raises(ValueError, match=message):
        bootstrap(total, *columns, generator=np.random.default_rng(0), **changes)


def test_groups_too_few_for_their_strata_are_refused():
    rows = np.arange(12)
    # A draw of 12 episodes holds all 12 with probability 12! / 12^12 = 5e-5.
    with pytest.raises(ValueError, match="draws of 12 groups held all of the 12 strata"):
        bootstrap(mean, rows, strata=rows, groups=rows, generator=np.random.default_rng(0))


def test_an_estimate_reads_well_and_is_json():
    estimate = Estimate(0.5, 0.25, 0.75)
    assert str(estimate) == "0.500 [0.250, 0.750]"
    assert estimate.to_dict() == {"value": 0.5, "low": 0.25, "high": 0.75}
