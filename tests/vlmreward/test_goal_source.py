import numpy as np
import pytest

from vlmreward import Goal
from vlmreward.goal_source import GoalSource, SampledGoals, ToldGoals, split_goals


def test_sources_follow_the_protocol():
    assert isinstance(SampledGoals([0], np.random.default_rng(0)), GoalSource)
    assert isinstance(ToldGoals([Goal("a red room")], "mission"), GoalSource)


def test_only_candidates_are_drawn_and_each_of_them():
    source = SampledGoals([2, 5, 7], np.random.default_rng(0))
    drawn = source([None] * 300, [{}] * 300)
    counts = {goal: int((drawn == goal).sum()) for goal in (2, 5, 7)}
    assert sum(counts.values()) == 300
    assert min(counts.values()) > 60


def test_the_same_generator_gives_the_same_goals():
    draws = [SampledGoals([0, 1], np.random.default_rng(3))([0] * 9, [{}] * 9) for _ in range(2)]
    assert np.array_equal(*draws)


def test_words_are_looked_up_in_the_info_first():
    source = ToldGoals([Goal(["a red room", "a room in red"]), Goal("a blue room")], "mission")
    obs = [{"mission": "a blue room"}, {"mission": "a blue room"}]
    infos = [{"mission": "a room in red"}, {}]
    assert source(obs, infos).tolist() == [0, 1]


def test_words_that_are_missing_or_unknown_are_refused():
    source = ToldGoals([Goal("a red room")], "mission")
    with pytest.raises(KeyError, match="words under 'mission'"):
        source([None], [{}])
    with pytest.raises(ValueError, match="the nearest is 'a red room'"):
        source([None], [{"mission": "a red rom"}])


def test_a_split_has_every_goal_once():
    train, held_out = split_goals(10, 3, np.random.default_rng(0))
    assert sorted(train + held_out) == list(range(10))
    assert len(held_out) == 3


@pytest.mark.parametrize("num_held_out", [0, 10, 11])
def test_splits_with_an_empty_part_are_refused(num_held_out):
    with pytest.raises(ValueError, match="both parts need a goal"):
        split_goals(10, num_held_out, np.random.default_rng(0))


def test_no_candidates_are_refused():
    with pytest.raises(ValueError, match="goals to draw from"):
        SampledGoals([], np.random.default_rng(0))
