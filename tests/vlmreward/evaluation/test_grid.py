import json

import numpy as np
import pytest

from vlmreward import (
    ContrastHead,
    CosineHead,
    FakeEncoder,
    Goal,
    RewardModel,
    SigmoidHead,
    SoftmaxHead,
    ThresholdHead,
)
from vlmreward.evaluation import (
    average_precision,
    bootstrap,
    epic_distance,
    evaluate_grid,
    reliability_curve,
    roc_auc,
)

RED = Goal("a red room", ["a green room", "a blue room"])
VAGUE = Goal("a yellow room", ["a green room", "a blue room"])
WRONG = Goal("a blue room", ["a green room"])


class CountingEncoder(FakeEncoder):
    """Counts the frames that it is asked to encode."""

    def __init__(self):
        super().__init__()
        self.num_calls = 0

    def encode_obs(self, obs):
        self.num_calls += 1
        return super().encode_obs(obs)


def labelled_frames(num_frames, rng, contrast=60):
    """Noise, redder where achieved."""
    labels = rng.random(num_frames) < 0.4
    labels[:2] = True, False
    level = np.clip(110 + contrast * labels + rng.normal(0, 40, num_frames), 0, 255)
    frames = rng.integers(0, 256, size=(num_frames, 4, 4, 3), dtype=np.uint8)
    frames[..., 0] = level[:, None, None].astype(np.uint8)
    return frames, labels


def arguments(num_frames=80, **changes):
    frames, labels = labelled_frames(num_frames, np.random.default_rng(0))
    return {
        "encoders": {"fake": FakeEncoder()},
        "prompt_sets": {"red": RED, "wrong": WRONG},
        "heads": {"cosine": CosineHead(), "softmax": SoftmaxHead(0.1)},
        "obs": frames,
        "labels": labels,
        "generator": np.random.default_rng(1),
        "num_resamples": 100,
    } | changes


def test_every_combination_is_measured_as_by_hand():
    threshold = ThresholdHead(SoftmaxHead(0.1), 0.4)
    heads = {"cosine": CosineHead(), "paid": threshold, "sigmoid": SigmoidHead(5.0, -2.0)}
    given = arguments(heads=heads)
    report = evaluate_grid(**given)
    assert len(report.rows) == 6
    labels, truth = given["labels"], given["labels"].astype(float)
    for row in report.rows:
        model = RewardModel(FakeEncoder(), given["prompt_sets"][row.prompts], heads[row.head])
        seen = model.score(given["obs"])
        scores, rewards = seen.score.double().numpy(), seen.reward.double().numpy()
        assert row.average_precision.value == average_precision(labels, scores)
        assert row.roc_auc.value == roc_auc(labels, scores)
        assert row.epic_distance.value == epic_distance(rewards, truth)
        if row.head == "cosine":
            assert row.calibration_error is None
        else:
            curve = reliability_curve(labels, scores)
            assert row.calibration_error.value == curve.expected_calibration_error
        if row.head == "paid":
            assert row.threshold == 0.4
            assert row.false_positive_rate.value == rewards[~labels].mean()
        else:
            assert row.threshold is row.false_positive_rate is None
    values = [row.average_precision.value for row in report.rows]
    assert values == sorted(values, reverse=True)
    assert report.predicted_best.prompts == "red"
    assert (report.num_frames, report.num_positives) == (80, labels.sum())


def test_intervals_are_those_of_the_plain_bootstrap():
    given = arguments(prompt_sets={"red": RED}, heads={"cosine": CosineHead()})
    row = evaluate_grid(**given).rows[0]
    scores = RewardModel(FakeEncoder(), RED, CosineHead())(given["obs"]).double().numpy()
    for measure, estimate in ((average_precision, row.average_precision), (roc_auc, row.roc_auc)):
        plain = bootstrap(
            measure,
            given["labels"],
            scores,
            strata=given["labels"],
            generator=np.random.default_rng(1),
            num_resamples=100,
        )
        assert estimate.to_dict() == pytest.approx(plain.to_dict())


def test_each_encoder_sees_the_frames_once():
    encoders = {"one": CountingEncoder(), "two": CountingEncoder()}
    report = evaluate_grid(**arguments(encoders=encoders))
    assert len(report.rows) == 8
    assert [encoder.num_calls for encoder in encoders.values()] == [1, 1]


def test_a_head_can_be_made_for_each_encoder():
    heads = {"own": lambda encoder: SoftmaxHead(1 / encoder.logit_scale)}
    encoders = {"hot": FakeEncoder(logit_scale=2.0), "cold": FakeEncoder(logit_scale=50.0)}
    report = evaluate_grid(**arguments(encoders=encoders, heads=heads))
    errors = {(row.encoder, row.prompts): row.calibration_error.value for row in report.rows}
    assert errors["hot", "red"] != errors["cold", "red"]


def test_means_over_goals_and_a_goal_index_per_row():
    frames, labels = labelled_frames(90, np.random.default_rng(0))
    goal_index = np.arange(90) % 2
    report = evaluate_grid(
        **arguments(
            obs=frames,
            labels=labels,
            prompt_sets={"both": [RED, WRONG]},
            heads={"cosine": CosineHead()},
            goal_index=goal_index,
        )
    )
    model = RewardModel(FakeEncoder(), [RED, WRONG], CosineHead())
    scores = model(frames, goal_index).double().numpy()
    parts = [goal_index == goal for goal in (0, 1)]
    expected = np.mean([average_precision(labels[part], scores[part]) for part in parts])
    assert report.rows[0].average_precision.value == pytest.approx(expected)
    assert report.rows[0].average_precision.low < expected
    assert report.positive_rate == pytest.approx(np.mean([labels[part].mean() for part in parts]))


def test_a_clear_lead_is_told_and_a_tie_is_not():
    clear = evaluate_grid(**arguments(num_frames=200, heads={"cosine": CosineHead()}))
    assert clear.distinguishable
    assert clear.lead.low > 0
    assert clear.verdict.startswith("'fake / red / cosine' is predicted to train the better agent:")
    # The same score twice: the lead is exactly 0 on every resample.
    tied = evaluate_grid(
        **arguments(prompt_sets={"red": RED}, heads={"first": CosineHead(), "second": CosineHead()})
    )
    assert tied.lead.to_dict() == {"value": 0.0, "low": 0.0, "high": 0.0}
    assert not tied.distinguishable
    assert "these 80 frames cannot tell" in tied.verdict
    assert [row.head for row in tied.rows] == ["first", "second"]


def test_the_comparison_is_paired():
    given = arguments(
        num_frames=150,
        prompt_sets={"red": RED},
        heads={"plain": CosineHead(), "contrast": ContrastHead()},
        num_resamples=400,
    )
    report = evaluate_grid(**given)
    widths = [row.average_precision.high - row.average_precision.low for row in report.rows]
    # Independent intervals would give the difference about the root of the sum of squares.
    assert report.lead.high - report.lead.low < 0.8 * np.hypot(*widths)


def test_equally_good_rewards_are_seldom_told_apart():
    rng = np.random.default_rng(0)
    told = 0
    for _ in range(60):
        frames, labels = labelled_frames(60, rng)
        noise = rng.integers(0, 256, size=(2, 60))
        frames[..., 1], frames[..., 2] = noise[..., None, None]  # green and blue err alike
        report = evaluate_grid(
            **arguments(
                obs=frames,
                labels=labels,
                prompt_sets={
                    "not green": Goal("a red room", ["a green room"]),
                    "not blue": Goal("a red room", ["a blue room"]),
                },
                heads={"contrast": ContrastHead()},
                generator=rng,
                confidence=0.9,
            )
        )
        told += report.distinguishable
    # Binomial(60, .1): 6 ± 2.3.
    assert told <= 15


def test_whole_episodes_widen_the_intervals():
    rng = np.random.default_rng(0)
    episodes = np.repeat(np.arange(16), 12)
    labels = episodes % 2 == 0  # achieved throughout an episode or not at all
    frames = rng.integers(0, 256, size=(192, 4, 4, 3), dtype=np.uint8)
    light = np.clip(110 + 30 * labels + rng.normal(0, 40, 16)[episodes], 0, 255)
    frames[..., 0] = light[:, None, None].astype(np.uint8)  # what frames of an episode share
    given = {"obs": frames, "labels": labels, "prompt_sets": {"red": RED}, "num_resamples": 300}
    heads = {"cosine": CosineHead()}
    single = evaluate_grid(**arguments(**given, heads=heads)).rows[0].roc_auc
    whole = evaluate_grid(**arguments(**given, heads=heads, episode_index=episodes)).rows[0].roc_auc
    assert single.value == whole.value
    # If frames of an episode were all the same, it would be √12 = 3.5 times.
    assert 2 < (whole.high - whole.low) / (single.high - single.low) < 5


def test_one_row_is_not_compared():
    report = evaluate_grid(**arguments(prompt_sets={"red": RED}, heads={"cosine": CosineHead()}))
    assert report.lead is None
    assert not report.distinguishable
    assert "was not compared" in report.verdict


def test_the_report_is_json_and_repeatable():
    heads = {"cosine": CosineHead(), "paid": ThresholdHead(SoftmaxHead(0.1), 0.4)}
    first, again = (evaluate_grid(**arguments(heads=heads)) for _ in range(2))
    assert first == again
    data = json.loads(json.dumps(first.to_dict(), allow_nan=False))
    assert data["predicted_best"] == first.rows[0].name
    assert data["rows"][0]["average_precision"] == first.rows[0].average_precision.to_dict()
    assert {row["threshold"] for row in data["rows"]} == {None, 0.4}


def test_a_constant_reward_is_measured_and_comes_last():
    heads = {"cosine": CosineHead(), "never": ThresholdHead(CosineHead(), 2.0)}
    report = evaluate_grid(**arguments(prompt_sets={"red": RED}, heads=heads))
    never = next(row for row in report.rows if row.head == "never")
    assert never.epic_distance.to_dict() == pytest.approx(
        {"value": 0.5**0.5, "low": 0.5**0.5, "high": 0.5**0.5}
    )
    assert never.false_positive_rate.to_dict() == {"value": 0.0, "low": 0.0, "high": 0.0}


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"encoders": {}}, ValueError, "at least one entry in encoders"),
        ({"prompt_sets": {}}, ValueError, "at least one entry in prompt_sets"),
        ({"heads": {}}, ValueError, "at least one entry in heads"),
        ({"prompt_sets": {"a": RED, "b": [RED, WRONG]}}, ValueError, "{'a': 1, 'b': 2}"),
        ({"prompt_sets": {"a": Goal("a red room")}}, ValueError, "has no negatives"),
        ({"labels": np.zeros(80, int)}, TypeError, "bool"),
        ({"labels": np.zeros((80, 1), bool)}, ValueError, r"\[80, 1\]"),
        ({"labels": np.zeros(80, bool)}, ValueError, "goal 0: none of the 80 labels"),
        ({"labels": np.arange(79) > 3}, ValueError, "expected 79 rows .* {'pixels': 80}"),
        ({"goal_index": 1}, IndexError, "from 0 to 0, got 1"),
        ({"goal_index": np.zeros(80)}, TypeError, "whole numbers"),
        ({"episode_index": np.zeros(80, int)}, ValueError, "at least 2 groups"),
        ({"num_resamples": 0}, ValueError, "num_resamples"),
        ({"confidence": 1.5}, ValueError, "confidence"),
    ],
)
def test_bad_input_says_what_came(changes, error, message):
    encoder = CountingEncoder()
    with pytest.raises(error, match=message):
        evaluate_grid(**(arguments(encoders={"fake": encoder}) | changes))
    assert encoder.num_calls == 0  # nothing was spent on it
