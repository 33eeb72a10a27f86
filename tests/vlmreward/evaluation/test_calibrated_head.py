import json

import numpy as np
import pytest
import torch

from vlmreward import FakeEncoder, Goal, RewardModel
from vlmreward.evaluation import (
    calibrate_for_false_positive_rate,
    calibrate_for_precision,
    calibrate_on_unlabelled,
    fit_temperature,
    similarities_of,
    threshold_for_false_positive_rate,
    threshold_for_precision,
)
from vlmreward.heads import Similarities, SoftmaxHead, ThresholdHead, head_from_config


def labelled(num_frames, rng, share=0.3):
    """Cosines of frames and labels that overlap."""
    labels = rng.random(num_frames) < share
    goal = torch.tensor(0.2 + 0.08 * labels + rng.normal(0.0, 0.04, num_frames))
    negatives = torch.tensor(rng.normal(0.24, 0.02, (num_frames, 2)))
    return Similarities.of(goal, negatives=negatives), labels


def scores_of(similarities, temperature):
    return SoftmaxHead(temperature).score(similarities).numpy()


def test_a_given_temperature_leaves_all_frames_to_the_threshold():
    seen, labels = labelled(500, np.random.default_rng(0))
    scores = scores_of(seen, 0.02)
    by_rate = calibrate_for_false_positive_rate(seen, labels, 0.05, temperature=0.02)
    threshold = threshold_for_false_positive_rate(scores[~labels], 0.05)
    assert by_rate.head == ThresholdHead(SoftmaxHead(0.02), threshold)
    assert (by_rate.num_threshold_frames, by_rate.num_temperature_frames) == ((~labels).sum(), 0)
    by_precision = calibrate_for_precision(seen, labels, 0.7, temperature=0.02, confidence=0.9)
    found = threshold_for_precision(labels, scores, 0.7, confidence=0.9)
    assert by_precision.head == ThresholdHead(SoftmaxHead(0.02), found.threshold)
    assert (by_precision.num_threshold_frames, by_precision.confidence) == (500, 0.9)


def test_the_frames_that_fit_the_temperature_do_not_choose_the_threshold():
    seen, labels = labelled(400, np.random.default_rng(0))
    calibrated = calibrate_for_false_positive_rate(
        seen, labels, 0.05, generator=np.random.default_rng(3)
    )
    # The same split by hand: half of each label, achieved first.
    rng = np.random.default_rng(3)
    halves = [rng.permutation(np.flatnonzero(kind)) for kind in (labels, ~labels)]
    fits = np.sort(np.concatenate([half[: half.size // 2] for half in halves]))
    rest = np.setdiff1d(np.arange(400), fits)
    part = Similarities.of(seen.goal[fits], negatives=seen.negatives[fits])
    temperature = fit_temperature(part, labels[fits])
    negatives = rest[~labels[rest]]
    threshold = threshold_for_false_positive_rate(scores_of(seen, temperature)[negatives], 0.05)
    assert calibrated.head == ThresholdHead(SoftmaxHead(temperature), threshold)
    assert calibrated.num_temperature_frames == fits.size
    assert calibrated.num_threshold_frames == negatives.size
    again, other = (
        calibrate_for_false_positive_rate(seen, labels, 0.05, generator=np.random.default_rng(seed))
        for seed in (3, 4)
    )
    assert again == calibrated != other


def test_the_promised_rate_holds_with_a_fitted_temperature():
    rng = np.random.default_rng(0)
    rates = []
    for _ in range(60):
        seen, labels = labelled(200, rng)
        head = calibrate_for_false_positive_rate(seen, labels, 0.1, generator=rng).head
        new, _ = labelled(500, rng, share=0.0)
        rates.append(float(head.reward(head.score(new)).mean()))
    # About 70 negatives choose each threshold: sd √(.1 · .9 / 70) = .036 each, .0047 of the mean.
    assert 0.06 < np.mean(rates) <= 0.1 + 4 * 0.0047


@pytest.mark.parametrize("share", [0.0, 0.05, 0.5])
def test_contaminated_frames_keep_the_promised_rate_and_cost_recall(share):
    rng = np.random.default_rng(0)
    rates, recalls = [], []
    for _ in range(100):
        seen, _ = labelled(200, rng, share)
        head = calibrate_on_unlabelled(seen, 0.1, temperature=0.02).head
        for kind, results in ((0.0, rates), (1.0, recalls)):
            new, _ = labelled(300, rng, kind)
            results.append(float(head.reward(head.score(new)).mean()))
    # Each threshold: sd √(.1 · .9 / 200) = .021; of the mean of 100, with 300 new each, .0028.
    assert np.mean(rates) <= 0.1 + 4 * 0.0028
    if share == 0.0:
        assert np.mean(rates) >= 0.085
        assert np.mean(recalls) > 0.5
    if share == 0.5:
        assert np.mean(rates) < 0.02
        assert np.mean(recalls) < 0.35


def test_a_higher_score_in_place_of_a_negative_never_lowers_the_threshold_a_lower_one_can():
    rng = np.random.default_rng(0)
    goal = rng.normal(0.2, 0.04, 99)
    negatives = torch.full((99, 1), 0.25, dtype=torch.float64)

    def threshold(cosines):
        seen = Similarities.of(torch.tensor(cosines), negatives=negatives)
        return calibrate_on_unlabelled(seen, 0.05, temperature=0.05).head.threshold

    base = threshold(goal)
    for index in range(99):
        assert threshold(np.where(np.arange(99) == index, goal + 0.1, goal)) >= base
    assert threshold(np.where(np.arange(99) < 50, goal + 0.3, goal)) > base
    assert threshold(np.where(np.arange(99) < 50, goal - 0.3, goal)) < base


def test_a_reward_worse_than_chance_breaks_the_promise_up_to_the_stated_bound():
    rng = np.random.default_rng(0)
    rates = []
    for _ in range(100):
        # Half of the frames are achieved, and score far below all others.
        goal = np.where(rng.random(199) < 0.5, -0.5, rng.normal(0.2, 0.04, 199))
        seen = Similarities.of(torch.tensor(goal), negatives=torch.full((199, 1), 0.25))
        head = calibrate_on_unlabelled(seen, 0.1, temperature=0.05).head
        new = torch.tensor(rng.normal(0.2, 0.04, 300))
        score = head.score(Similarities.of(new, negatives=torch.full((300, 1), 0.25)))
        rates.append(float(head.reward(score).mean()))
    assert np.mean(rates) == pytest.approx(0.1 / (1 - 0.5), abs=0.02)


def test_the_record_is_json_and_gives_the_head_back():
    seen, labels = labelled(400, np.random.default_rng(0))
    calibrated = [
        calibrate_for_false_positive_rate(seen, labels, 0.05, generator=np.random.default_rng(0)),
        calibrate_for_precision(seen, labels, 0.7, temperature=0.02),
        calibrate_on_unlabelled(seen, 0.05, temperature=0.02),
    ]
    for one in calibrated:
        data = json.loads(json.dumps(one.to_dict(), allow_nan=False))
        assert head_from_config(data.pop("head")) == one.head
        assert data["promised"] == one.promised
        assert data["num_threshold_frames"] == one.num_threshold_frames
        assert data["guarantee"]
    assert [one.promised for one in calibrated] == [
        "false_positive_rate",
        "precision",
        "false_positive_rate",
    ]


def test_the_calibrated_head_pays_in_a_reward_model():
    encoder, goal = FakeEncoder(), Goal("a red room", ["a green room", "a blue room"])
    rng = np.random.default_rng(0)
    frames = rng.integers(0, 256, (300, 4, 4, 3), dtype=np.uint8)
    frames[..., 0] //= 2
    seen = similarities_of(encoder, goal, frames)
    head = calibrate_on_unlabelled(seen, 0.1, temperature=0.1).head
    reward = RewardModel(encoder, goal, head)(frames)
    # 30 of 301 may exceed the threshold: 30 - 1 = 29 of the frames that chose it, at most.
    assert reward.sum() == 29
    red = np.zeros((1, 4, 4, 3), np.uint8)
    red[..., 0] = 255
    assert RewardModel(encoder, goal, head)(red).tolist() == [1.0]


def test_similarities_are_cosines_with_each_row_s_own_goal():
    goals = [Goal("a red room", ["a green room", "a yellow room"]), Goal("blue", ["a red room"])]
    frames = np.zeros((2, 4, 4, 3), np.uint8)
    frames[..., 0] = 255  # both red
    seen = similarities_of(FakeEncoder(), goals, {"pixels": frames}, [0, 1])
    assert seen.goal.tolist() == pytest.approx([1.0, 0.0])
    assert seen.negatives[0].tolist() == pytest.approx([0.0, 0.5**0.5])
    assert seen.negatives[1, 0].item() == pytest.approx(1.0)
    assert seen.is_negative.tolist() == [[True, True], [True, False]]


def test_similarities_refuse_a_goal_without_negatives_and_a_wrong_index():
    frames = np.zeros((2, 4, 4, 3), np.uint8)
    with pytest.raises(ValueError, match="has no negatives"):
        similarities_of(FakeEncoder(), Goal("a red room"), frames)
    with pytest.raises(IndexError, match="from 0 to 0, got 1"):
        similarities_of(FakeEncoder(), Goal("a red room", ["a blue room"]), frames, 1)


@pytest.mark.parametrize("calibrate", [calibrate_for_false_positive_rate, calibrate_for_precision])
def test_bad_input_says_what_came(calibrate):
    seen, labels = labelled(200, np.random.default_rng(0))
    with pytest.raises(ValueError, match="neither a temperature nor a generator"):
        calibrate(seen, labels, 0.5)
    with pytest.raises(TypeError, match="bool"):
        calibrate(seen, labels.astype(int), 0.5, temperature=0.1)
    with pytest.raises(ValueError, match=r"\[3\] and \[200\]"):
        calibrate(seen, labels[:3], 0.5, temperature=0.1)
    with pytest.raises(ValueError, match="positive temperature"):
        calibrate(seen, labels, 0.5, temperature=0.0)
    with pytest.raises(ValueError, match="at least 2 frames of each label to split, got 1"):
        calibrate(seen, np.arange(200) == 7, 0.5, generator=np.random.default_rng(0))


def test_too_few_unlabelled_frames_are_refused():
    seen, _ = labelled(18, np.random.default_rng(0))
    with pytest.raises(ValueError, match="at least 19 negative scores, got 18"):
        calibrate_on_unlabelled(seen, 0.05, temperature=0.1)
