import json

import numpy as np
import pytest

from vlmreward import CosineHead, FakeEncoder, Goal, RewardModel, RewardTiming, ThresholdHead
from vlmreward.monitor import RewardMonitor, SecondOpinion

ROOMS = [Goal("a red room"), Goal("a blue room")]


def feed(monitor, **columns):
    """One environment, a step per entry; `ended` is False and `reward` 0 if not given."""
    num_steps = len(next(iter(columns.values())))
    columns = {"reward": [0.0] * num_steps, "ended": [False] * num_steps} | columns
    for row in zip(*columns.values(), strict=True):
        step = dict(zip(columns, row, strict=True))
        monitor.update(
            **{
                key: [value] if key == "achieved" else np.array([value])
                for key, value in step.items()
            }
        )


def counted(look):
    return (look.events, look.trials)


def test_only_frames_without_the_goal_can_be_false_positives():
    monitor = RewardMonitor(1, calibrated_rate=0.1, look_every=6)
    feed(
        monitor,
        reward=[0.0, 1.0, 0.0, 1.0, 0.0, 1.0],
        achieved=[False, False, True, True, None, None],
    )
    assert counted(monitor.report().false_positives) == (1, 2)


def test_falsely_paid_frames_in_a_row_count_once():
    monitor = RewardMonitor(1, calibrated_rate=0.1, look_every=8)
    reward = [1.0, 1.0, 1.0, 0.0, 1.0, 1.0, 1.0, 1.0]
    ended = [False, False, False, False, False, True, False, False]  # an end breaks the row
    feed(monitor, reward=reward, ended=ended, achieved=[False] * 8)
    assert counted(monitor.report().false_positives) == (3, 4)


def test_frames_that_were_not_scored_neither_count_nor_break_a_row():
    monitor = RewardMonitor(1, calibrated_rate=0.1, look_every=4)
    feed(
        monitor,
        reward=[1.0, 0.0, 1.0, 0.0],
        scored=[True, False, True, True],
        achieved=[False] * 4,
    )
    assert counted(monitor.report().false_positives) == (1, 2)


def test_each_environment_has_its_own_row():
    monitor = RewardMonitor(2, calibrated_rate=0.1, look_every=4)
    for reward in ([1.0, 0.0], [1.0, 1.0]):
        monitor.update(np.array(reward), np.zeros(2, dtype=bool), achieved=[False, False])
    assert counted(monitor.report().false_positives) == (2, 3)


def test_disagreement_is_among_paid_frames_that_were_asked_about():
    monitor = RewardMonitor(1, max_disagreement=0.5, look_every=8)
    feed(
        monitor,
        reward=[0.0, 1.0, 0.0, 1.0, 1.0, 1.0, 0.0, 1.0],
        second_reward=[np.nan, 0.0, np.nan, np.nan, 1.0, 0.0, np.nan, 1.0],
    )
    # Of the second row of paid frames, the first that was asked about.
    assert counted(monitor.report().disagreement) == (1, 3)


def test_returns_are_summed_over_episodes():
    monitor = RewardMonitor(1, episodes=10, look_every=60)
    rewards = [0.5, 1.0, 0.0] * 10 + [1.0, 1.0, 1.0] * 10
    ended = [False, False, True] * 20
    feed(monitor, reward=rewards, ended=ended, env_reward=[0.0, 0.0, 2.0] * 20)
    look = monitor.report().returns
    assert (look.vlm_before, look.vlm_after) == (1.5, 3.0)
    assert (look.env_before, look.env_after) == (2.0, 2.0)
    assert look.alarm
    assert monitor.report().first_alarm == {"returns": 60}


def run(monitor, policy_share, *, fools, seed=0, num_updates=1200):
    """A greedy learner, scripted: it takes the trick more and more often, as it is paid.

    Episodes have five steps. Their last frame shows the goal with probability `1 - share` halved,
    and else, where the trick fools the reward model, is paid for nothing.
    """
    generator = np.random.default_rng(seed)
    for update in range(num_updates):
        is_last = np.full(monitor.num_envs, update % 5 == 4)
        share = policy_share * update / num_updates
        tricks = is_last & (generator.random(monitor.num_envs) < share)
        grows = 0.2 if fools else 0.2 + share / 2
        achieved = is_last & ~tricks & (generator.random(monitor.num_envs) < grows)
        noise = generator.random(monitor.num_envs) < 0.01
        paid = achieved | noise | (tricks & fools)
        monitor.update(
            paid.astype(np.float32),
            is_last,
            achieved=achieved.tolist(),
            env_reward=achieved.astype(float),
        )


def settings(**others):
    return {"calibrated_rate": 0.02, "episodes": 80, "look_every": 200} | others


def test_a_learner_that_takes_to_a_trick_alarms_both_checks():
    monitor = RewardMonitor(4, **settings())
    run(monitor, 0.8, fools=True)
    assert set(monitor.report().first_alarm) == {"false_positives", "returns"}


@pytest.mark.parametrize("seed", range(5))
def test_an_honest_learner_does_not(seed):
    monitor = RewardMonitor(4, **settings())
    run(monitor, 0.5, fools=False, seed=seed)
    report = monitor.report()
    assert report.first_alarm == {}
    assert 0 < report.false_positives.rate < 0.02
    assert report.returns.look > 5


def test_alarms_are_of_the_last_look_and_the_first_is_remembered():
    monitor = RewardMonitor(1, calibrated_rate=0.1, window=10, look_every=10)
    feed(monitor, reward=[1.0, 0.0] * 10, achieved=[False] * 20)
    feed(monitor, achieved=[False] * 20)
    report = monitor.report()
    assert report.alarms == ()
    assert report.first_alarm == {"false_positives": 10}
    assert report.false_positives.look == 4


def test_a_report_before_the_first_look_is_empty():
    report = RewardMonitor(1, calibrated_rate=0.1, max_disagreement=0.1).report()
    assert report.to_dict() == {
        "num_steps": 0,
        "alarms": [],
        "first_alarm": {},
        "false_positives": None,
        "returns": None,
        "disagreement": None,
    }


def test_a_report_is_plain_data():
    monitor = RewardMonitor(1, calibrated_rate=0.1, look_every=4)
    feed(monitor, reward=[1.0, 0.0] * 2, achieved=[False] * 4)
    described = monitor.report().to_dict()
    assert json.loads(json.dumps(described)) == described
    assert described["false_positives"]["rate"] == 0.5


def test_bad_settings_and_shapes_are_refused():
    with pytest.raises(ValueError, match="num_envs and look_every of at least 1"):
        RewardMonitor(0)
    with pytest.raises(ValueError, match="limit between 0 and 1"):
        RewardMonitor(1, calibrated_rate=0.0)
    with pytest.raises(ValueError, match="each of 2 environments, got 1"):
        RewardMonitor(2).update(np.zeros(2), np.zeros(2, dtype=bool), achieved=[True])


@pytest.fixture
def second():
    return RewardModel(FakeEncoder(), ROOMS, ThresholdHead(CosineHead(), threshold=0.9))


def test_a_second_opinion_scores_a_sample_of_the_paid_frames_for_their_goals(second):
    calls = []

    class Counting(RewardModel):
        def score(self, obs, goal_index=0):
            calls.append(len(obs["pixels"]))
            return super().score(obs, goal_index)

    second = Counting(second.encoder, ROOMS, second.head)
    opinion = SecondOpinion(second, share=0.25, generator=np.random.default_rng(0))
    frames = np.zeros((400, 4, 4, 3), np.uint8)
    frames[..., 0] = 255  # red
    paid = np.arange(400) % 2 == 0
    goals = np.arange(400) // 200
    asked = opinion({"pixels": frames}, paid, goals)
    assert np.isnan(asked[~paid]).all()
    drawn = ~np.isnan(asked)
    assert 30 < drawn.sum() < 70  # 50 of 200 are expected
    assert calls == [drawn.sum()]
    np.testing.assert_array_equal(asked[drawn], goals[drawn] == 0)
    again = SecondOpinion(second, share=0.25, generator=np.random.default_rng(0))
    np.testing.assert_array_equal(again({"pixels": frames}, paid, goals), asked)


def test_a_second_opinion_costs_nothing_where_nothing_is_paid(second):
    opinion = SecondOpinion(second, share=1.0, generator=np.random.default_rng(0))
    assert np.isnan(opinion({}, np.zeros(3, dtype=bool), np.zeros(3, dtype=int))).all()


def test_second_opinions_that_say_neither_yes_nor_no_are_refused(second):
    generator = np.random.default_rng(0)
    with pytest.raises(ValueError, match="share above 0"):
        SecondOpinion(second, share=0.0, generator=generator)
    dense = RewardModel(FakeEncoder(), ROOMS, CosineHead())
    with pytest.raises(ValueError, match="ThresholdHead around CosineHead"):
        SecondOpinion(dense, share=1.0, generator=generator)
    shaped = RewardModel(FakeEncoder(), ROOMS, second.head, RewardTiming(discount=0.9))
    with pytest.raises(ValueError, match="discount"):
        SecondOpinion(shaped, share=1.0, generator=generator)
