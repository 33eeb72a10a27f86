import math

import numpy as np
import pytest
from scipy import stats

from vlmreward.drift import RateTest, ReturnsTest, significance_of_look


def rate_look(events, trials, *, limit=0.05, significance=0.01):
    test = RateTest(limit, window=max(trials, 1), significance=significance)
    test.add([True] * events + [False] * (trials - events))
    return test.look()


@pytest.mark.parametrize(("events", "trials"), [(0, 1), (1, 1), (4, 30), (12, 30), (30, 30)])
def test_the_p_value_and_the_limit_are_the_exact_binomials(events, trials):
    look = rate_look(events, trials)
    reference = stats.binomtest(events, trials, 0.05, alternative="greater")
    assert look.p_value == pytest.approx(reference.pvalue, rel=1e-9)
    interval = reference.proportion_ci(1 - look.significance, method="exact")
    assert look.lower == pytest.approx(interval.low, rel=1e-6)
    assert look.alarm == (look.lower > look.limit)
    assert look.rate == events / trials


def test_looks_share_the_significance():
    looks = [significance_of_look(0.01, look) for look in range(1, 20_000)]
    assert looks[0] == pytest.approx(0.01 * 6 / math.pi**2)
    assert 0.00999 < sum(looks) < 0.01


def test_a_look_sees_the_window_alone_and_is_spent_only_on_new_trials():
    test = RateTest(0.1, window=4, significance=0.01)
    assert test.look() is None
    test.add([True] * 4)
    test.add([False] * 3)
    first = test.look()
    assert (first.events, first.trials, first.look) == (1, 4, 1)
    assert test.look() is None
    test.add([])
    assert test.look() is None
    test.add([False])
    second = test.look()
    assert (second.events, second.look) == (0, 2)
    assert second.significance < first.significance


def test_a_kept_limit_alarms_no_more_often_than_stated():
    generator = np.random.default_rng(0)
    alarms = 0
    for _ in range(300):
        test = RateTest(0.05, window=200, significance=0.1)
        for trials in generator.random((40, 25)) < 0.05:
            test.add(trials)
            if test.look().alarm:
                alarms += 1
                break
    # Without the correction, looking 40 times would alarm in about half of the runs.
    assert alarms <= 30


def test_a_rate_that_drifts_upwards_alarms():
    generator = np.random.default_rng(0)
    test = RateTest(0.05, window=200, significance=0.01)
    looks = []
    for step in range(40):
        test.add(generator.random(25) < (0.05 if step < 20 else 0.25))
        looks.append(test.look().alarm)
    assert not any(looks[:20])
    assert all(looks[30:])


def returns_look(vlm, env, episodes=20):
    test = ReturnsTest(episodes, 0.01)
    for pair in zip(vlm, env, strict=True):
        test.add(*pair)
    return test.look()


LOW, HIGH = [0.0] * 20, [1.0] * 20


@pytest.mark.parametrize(
    ("vlm", "env", "alarm"),
    [
        (LOW + HIGH, LOW + LOW, True),
        (LOW + HIGH, HIGH + LOW, True),
        (LOW + HIGH, LOW + HIGH, False),
        (LOW + HIGH, [0.0] * 39 + [0.1], False),
        (LOW + LOW, HIGH + LOW, False),
        (HIGH + LOW, LOW + LOW, False),
        ([0.0, 1.0] * 20, LOW + LOW, False),
    ],
    ids=["fooled", "truth falls", "honest", "both up", "flat", "falling", "noise"],
)
def test_the_rule_for_returns(vlm, env, alarm):
    look = returns_look(vlm, env)
    assert look.alarm is alarm
    assert (look.vlm_before, look.vlm_after) == (np.mean(vlm[:20]), np.mean(vlm[20:]))
    assert (look.env_before, look.env_after) == (np.mean(env[:20]), np.mean(env[20:]))


def test_a_slow_rise_is_held_against_half_time():
    test = ReturnsTest(20, 0.01)
    generator = np.random.default_rng(0)
    for episode in range(1000):  # by .02 within any 20 episodes
        test.add(float(generator.random() < episode / 1000), 0.0)
    look = test.look()
    assert look.alarm
    assert (look.vlm_before, look.vlm_after) == (pytest.approx(0.5, abs=0.2), 1.0)


def test_returns_are_compared_once_there_are_enough():
    test = ReturnsTest(10, 0.01)
    for _ in range(19):
        test.add(0.0, 0.0)
    assert test.look() is None
    test.add(0.0, 0.0)
    assert test.look().look == 1
    assert test.look() is None


def test_steady_returns_alarm_no_more_often_than_stated():
    generator = np.random.default_rng(0)
    alarms = 0
    for _ in range(100):
        test = ReturnsTest(20, 0.1)
        for _ in range(15):
            for vlm in generator.random(10) < 0.3:
                test.add(float(vlm), 0.0)
            look = test.look()
            if look is not None and look.alarm:
                alarms += 1
                break
    assert alarms <= 10


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: RateTest(0.0, 10, 0.1), "limit between 0 and 1, got 0.0"),
        (lambda: RateTest(0.1, 0, 0.1), "window of at least 1, got 0"),
        (lambda: RateTest(0.1, 10, 1.0), "significance between 0 and 1, got 1.0"),
        (lambda: ReturnsTest(9, 0.1), "at least 10 episodes to a side, got 9"),
        (lambda: ReturnsTest(10, 0.0), "significance between 0 and 1"),
    ],
)
def test_bad_settings_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_looks_are_plain_data():
    assert rate_look(1, 2).to_dict() == {
        "rate": 0.5,
        "events": 1,
        "trials": 2,
        "limit": 0.05,
        "lower": pytest.approx(1 - math.sqrt(1 - 0.01 * 6 / math.pi**2)),
        "p_value": pytest.approx(1 - 0.95**2),
        "significance": pytest.approx(0.01 * 6 / math.pi**2),
        "look": 1,
        "alarm": False,
    }
    assert returns_look(LOW + LOW, LOW + LOW).to_dict()["alarm"] is False
