import numpy as np
import pytest

from algdistill.evaluation import (
    area_under_curve,
    bootstrap_interval,
    episodes_to_threshold,
    mean_between,
)

RETURNS = np.array([[[0.0, 2.0, 4.0, 8.0], [0.0, 0.0, 2.0, 6.0]]])  # mean: 0 1 3 7


def test_figures_by_hand():
    assert mean_between(2, 3)(RETURNS) == [2.0]
    assert mean_between(4, 4)(RETURNS) == [7.0]
    assert area_under_curve(0.75, 8.75)(RETURNS) == [(2.75 - 0.75) / 8.0]


@pytest.mark.parametrize(
    ("threshold", "smoothing", "expected"),
    [(0.0, 1, 1), (1.0, 1, 2), (1.5, 1, 3), (7.0, 1, 4), (7.1, 1, 5), (2.0, 2, 3), (5.1, 2, 5)],
)
def test_episodes_to_threshold(threshold, smoothing, expected):
    assert episodes_to_threshold(threshold, smoothing=smoothing)(RETURNS) == [expected]


def test_every_figure_can_have_an_interval():
    returns = np.random.default_rng(0).random((3, 5, 10)).cumsum(axis=-1)
    for statistic in (
        mean_between(1, 5),
        area_under_curve(0.0, 10.0),
        episodes_to_threshold(3.0),
    ):
        interval = bootstrap_interval(returns, statistic, seed=0, num_resamples=50)
        assert interval.low <= interval.value <= interval.high


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: mean_between(0, 3), "episodes 0 to 3"),
        (lambda: mean_between(3, 2), "episodes 3 to 2"),
        (lambda: mean_between(1, 5)(RETURNS), "got 4 episodes, expected at least 5"),
        (lambda: area_under_curve(1.0, 1.0), "low < high"),
        (lambda: episodes_to_threshold(1.0, smoothing=0), "smoothing=0"),
    ],
)
def test_bad_figures_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()
