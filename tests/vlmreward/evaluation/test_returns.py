import itertools
import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vlmreward.evaluation import (
    episode_returns,
    kendall_correlation,
    return_agreement,
    spearman_correlation,
)

pairs = st.lists(st.tuples(st.integers(0, 6), st.integers(0, 6)), min_size=3, max_size=20).filter(
    lambda rows: all(len(set(column)) > 1 for column in zip(*rows, strict=True))
)


def columns(rows):
    return (np.array(column, dtype=np.float64) for column in zip(*rows, strict=True))


def mean_ranks(values):
    return np.array([(values < v).sum() + ((values == v).sum() + 1) / 2 for v in values])


@given(pairs)
def test_spearman_is_the_correlation_of_mean_ranks(rows):
    returns, true_returns = columns(rows)
    expected = np.corrcoef(mean_ranks(returns), mean_ranks(true_returns))[0, 1]
    assert spearman_correlation(returns, true_returns) == pytest.approx(expected, abs=1e-12)


@given(pairs)
def test_kendall_counts_pairs(rows):
    returns, true_returns = columns(rows)
    signs = [
        (np.sign(returns[i] - returns[j]), np.sign(true_returns[i] - true_returns[j]))
        for i, j in itertools.combinations(range(len(rows)), 2)
    ]
    agreement = sum(first * second for first, second in signs)
    untied = [sum(sign[column] != 0 for sign in signs) for column in (0, 1)]
    expected = agreement / np.sqrt(untied[0] * untied[1])
    assert kendall_correlation(returns, true_returns) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("correlation", [spearman_correlation, kendall_correlation])
@given(pairs)
def test_only_the_order_counts_and_reversing_it_changes_the_sign(correlation, rows):
    returns, true_returns = columns(rows)
    value = correlation(returns, true_returns)
    assert correlation(np.exp(returns) - 3, true_returns) == pytest.approx(value)
    assert correlation(-returns, true_returns) == pytest.approx(-value)
    assert correlation(true_returns, true_returns) == pytest.approx(1.0)


@pytest.mark.parametrize("correlation", [spearman_correlation, kendall_correlation])
def test_equal_returns_rank_nothing(correlation):
    assert correlation([0.5, 0.5, 0.5], [1.0, 2.0, 3.0]) == 0.0
    with pytest.raises(ValueError, match="true_returns must differ somewhere, got 3 equal"):
        correlation([1.0, 2.0, 3.0], [0.5, 0.5, 0.5])
    with pytest.raises(ValueError, match=r"returns and true_returns .* \[1\] and \[2\]"):
        correlation([1.0], [1.0, 2.0])


def test_returns_are_sums_over_episodes():
    rewards, episodes = np.arange(6.0), np.array([3, 1, 3, 1, 8, 3])
    assert episode_returns(rewards, episodes).tolist() == [1 + 3, 0 + 2 + 5, 4]


@pytest.mark.parametrize(
    ("rewards", "episodes", "error", "message"),
    [
        ([1.0], [0.5], TypeError, "integers, got float64"),
        ([1.0, 2.0], [0], ValueError, r"\[2\] and \[1\]"),
        ([], np.array([], int), ValueError, "T at least 1"),
        ([1.0, float("nan")], [0, 0], ValueError, "1 of 2"),
    ],
)
def test_bad_rewards_are_refused(rewards, episodes, error, message):
    with pytest.raises(error, match=message):
        episode_returns(rewards, episodes)


def normal_pair(num_trajectories, correlation, rng):
    true_returns = rng.normal(size=num_trajectories)
    noise = rng.normal(size=num_trajectories) * np.sqrt(1 - correlation**2)
    return correlation * true_returns + noise, true_returns


def test_the_intervals_cover_what_theory_gives_normal_returns():
    rng = np.random.default_rng(0)
    spearman, kendall = 6 / np.pi * np.arcsin(0.3), 2 / np.pi * np.arcsin(0.6)
    covered = np.zeros(2)
    for _ in range(40):
        agreement = return_agreement(
            *normal_pair(80, 0.6, rng), generator=rng, num_resamples=50, confidence=0.8
        )
        covered += (
            agreement.spearman.low <= spearman <= agreement.spearman.high,
            agreement.kendall.low <= kendall <= agreement.kendall.high,
        )
    # Binomial(40, .8): 32 ± 2.5; the bounds are about four deviations away, or three.
    assert (covered >= 22).all()
    assert (covered <= 39).all()


def test_agreement_is_repeatable_json_and_about_these_trajectories():
    pair = normal_pair(40, 0.5, np.random.default_rng(0))
    first, again, other = (
        return_agreement(*pair, generator=np.random.default_rng(seed), num_resamples=50)
        for seed in (0, 0, 1)
    )
    assert first == again != other
    data = json.loads(json.dumps(first.to_dict(), allow_nan=False))
    assert data["spearman"]["value"] == spearman_correlation(*pair)
    assert data["kendall"]["value"] == kendall_correlation(*pair)
    assert data["num_trajectories"] == 40


def test_resamples_without_a_difference_are_drawn_again():
    # One success in six: a third of plain resamples would lose it.
    agreement = return_agreement(
        [0.1, 0.2, 0.3, 0.2, 0.1, 0.9],
        [0, 0, 0, 0, 0, 1],
        generator=np.random.default_rng(0),
        num_resamples=100,
    )
    assert agreement.kendall.low > 0.0


def test_bad_settings_are_refused():
    for changes in ({"num_resamples": 0}, {"confidence": 1.0}):
        with pytest.raises(ValueError, match=next(iter(changes))):
            return_agreement([1, 2], [1, 2], generator=np.random.default_rng(0), **changes)
