import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vlmreward.evaluation import epic_distance

levels = st.lists(st.integers(-50, 50), min_size=3, max_size=30)
pairs = st.lists(
    st.tuples(st.integers(-50, 50), st.integers(-50, 50)), min_size=3, max_size=30
).filter(lambda rows: all(len(set(column)) > 1 for column in zip(*rows, strict=True)))


def columns(rows):
    return (np.array(column, dtype=np.float64) for column in zip(*rows, strict=True))


@given(pairs)
def test_it_is_the_published_formula(rows):
    rewards, true_rewards = columns(rows)
    correlation = np.corrcoef(rewards, true_rewards)[0, 1]
    expected = np.sqrt(max(0.0, 1 - correlation)) / np.sqrt(2)
    assert epic_distance(rewards, true_rewards) == pytest.approx(expected, abs=1e-7)


@given(pairs, st.floats(1e-3, 1e3), st.floats(-1e3, 1e3))
def test_scale_and_shift_of_either_reward_change_nothing(rows, scale, shift):
    rewards, true_rewards = columns(rows)
    distance = epic_distance(rewards, true_rewards)
    assert epic_distance(scale * rewards + shift, true_rewards) == pytest.approx(distance, abs=1e-9)
    assert epic_distance(rewards, scale * true_rewards + shift) == pytest.approx(distance, abs=1e-9)


@given(levels.filter(lambda column: len(set(column)) > 1))
def test_a_reward_is_at_0_from_itself_and_at_1_from_its_opposite(column):
    reward = np.array(column, dtype=np.float64)
    assert epic_distance(reward, reward) == 0.0
    assert epic_distance(-reward, reward) == pytest.approx(1.0, abs=1e-12)


@given(pairs)
def test_it_is_symmetric_and_a_reward_and_its_opposite_share_a_right_angle(rows):
    rewards, true_rewards = columns(rows)
    distance = epic_distance(rewards, true_rewards)
    assert distance == pytest.approx(epic_distance(true_rewards, rewards), abs=1e-12)
    # (1 − ρ)/2 + (1 + ρ)/2 = 1
    assert distance**2 + epic_distance(-rewards, true_rewards) ** 2 == pytest.approx(1.0)


@given(st.data())
def test_the_triangle_inequality_holds(data):
    three = data.draw(
        st.lists(st.tuples(*[st.integers(-9, 9)] * 3), min_size=3, max_size=20).filter(
            lambda rows: all(len(set(column)) > 1 for column in zip(*rows, strict=True))
        )
    )
    first, second, third = columns(three)
    through = epic_distance(first, second) + epic_distance(second, third)
    assert epic_distance(first, third) <= through + 1e-12


def test_by_hand():
    # Ranks 1..4 with two neighbours exchanged: ρ = .8, √.2 / √2.
    assert epic_distance([1, 2, 4, 3], [1, 2, 3, 4]) == pytest.approx(np.sqrt(0.1))


@pytest.mark.parametrize("constant", [0.0, 0.1, 1e9])
def test_a_constant_reward_is_as_far_as_an_unrelated_one(constant):
    assert epic_distance(np.full(7, constant), np.arange(7.0)) == pytest.approx(np.sqrt(0.5))


@pytest.mark.parametrize(
    ("rewards", "true_rewards", "message"),
    [
        ([1.0, 2.0], [1.0, 2.0, 3.0], r"\[2\] and \[3\]"),
        ([[1.0, 2.0]], [[1.0, 2.0]], r"\[1, 2\]"),
        ([1.0, float("nan")], [0.0, 1.0], "^rewards must be finite, got 1 of 2"),
        ([1.0, 2.0], [0.0, float("inf")], "^true_rewards must be finite, got 1 of 2"),
        ([1.0, 2.0], [3.0, 3.0], "true_rewards must differ somewhere, got 2 equal"),
        ([], [], "got 0 equal values"),
    ],
)
def test_bad_input_says_what_came(rewards, true_rewards, message):
    with pytest.raises(ValueError, match=message):
        epic_distance(rewards, true_rewards)
