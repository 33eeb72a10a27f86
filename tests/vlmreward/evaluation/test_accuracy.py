import json

import numpy as np
import pytest

from vlmreward.evaluation import average_precision, evaluate_reward


def scored_frames(num_goals, frames_per_goal, noise, generator):
    """Scores that separate the classes by 1, each goal with its own error."""
    labels = np.tile(np.arange(frames_per_goal) % 4 == 0, num_goals)
    goal_index = np.repeat(np.arange(num_goals), frames_per_goal)
    goal_error = generator.normal(0.0, noise, num_goals)[goal_index]
    scores = labels * (1.0 + goal_error) + generator.normal(0.0, 0.6, labels.size)
    return labels, scores, goal_index


def test_mean_over_goals_and_pooled_rates_by_hand():
    labels = np.array([True, False, False, True, False])
    scores = np.array([0.9, 0.2, 0.6, 0.1, 0.8])
    accuracy = evaluate_reward(
        labels,
        scores,
        [7, 7, 7, 3, 3],
        threshold=0.5,
        generator=np.random.default_rng(0),
    )
    assert [goal.goal_index for goal in accuracy.per_goal] == [3, 7]
    assert [goal.average_precision for goal in accuracy.per_goal] == [0.5, 1.0]
    assert accuracy.average_precision.value == 0.75
    assert accuracy.false_positive_rate.value == pytest.approx(2 / 3)
    assert accuracy.precision.value == pytest.approx(1 / 3)
    assert accuracy.recall.value == pytest.approx(1 / 2)
    assert accuracy.positive_rate == pytest.approx((1 / 3 + 1 / 2) / 2)


def test_intervals_come_from_the_generator_alone():
    frames = scored_frames(6, 40, 0.3, np.random.default_rng(0))

    def interval(seed):
        accuracy = evaluate_reward(*frames, threshold=0.5, generator=np.random.default_rng(seed))
        return accuracy.average_precision

    np.random.seed(1)  # noqa: NPY002 - the global generator must not matter
    first = interval(0)
    np.random.seed(2)  # noqa: NPY002
    assert interval(0) == first
    assert interval(1) != first


def test_the_interval_covers_the_true_mean_about_as_often_as_it_says():
    generator = np.random.default_rng(0)
    big = scored_frames(1200, 40, 0.5, generator)
    labels, scores, goal_index = (array.reshape(1200, 40) for array in big)
    truth = np.mean([average_precision(*goal) for goal in zip(labels, scores, strict=True)])
    num_covered = 0
    for trial in range(40):
        goals = slice(30 * trial, 30 * (trial + 1))
        estimate = evaluate_reward(
            labels[goals].ravel(),
            scores[goals].ravel(),
            goal_index[goals].ravel(),
            threshold=0.5,
            generator=generator,
            num_resamples=200,
            confidence=0.8,
        ).average_precision
        num_covered += estimate.low <= truth <= estimate.high
    # Binomial(40, .8): 32 ± 2.5; the bounds are about four deviations away.
    assert 22 <= num_covered <= 39


def test_one_goal_resamples_its_frames():
    labels, scores, goal_index = scored_frames(1, 80, 0.0, np.random.default_rng(0))
    accuracy = evaluate_reward(
        labels,
        scores,
        goal_index,
        threshold=0.5,
        generator=np.random.default_rng(0),
        num_resamples=200,
    )
    estimate = accuracy.average_precision
    assert estimate.low < estimate.value < estimate.high
    # No resample lost a class, so the pooled counts stay those of the data.
    assert accuracy.per_goal[0].at_threshold.num_positives == 20


def test_the_result_is_json():
    frames = scored_frames(2, 8, 0.3, np.random.default_rng(0))
    accuracy = evaluate_reward(*frames, threshold=0.5, generator=np.random.default_rng(0))
    data = json.loads(json.dumps(accuracy.to_dict(), allow_nan=False))
    assert data["average_precision"]["value"] == accuracy.average_precision.value
    assert len(data["per_goal"]) == 2


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"goal_index": [0, 1]}, ValueError, r"\[2\]"),
        ({"goal_index": [0.0, 0.0, 1.0, 1.0]}, TypeError, "float64"),
        ({"goal_index": [0, 0, 0, 5]}, ValueError, "goal 5: none of the 1 labels"),
        ({"labels": [0, 1, 0, 1]}, TypeError, "bool"),
        ({"labels": [], "scores": [], "goal_index": np.array([], int)}, ValueError, "empty"),
        ({"num_resamples": 0}, ValueError, "at least 1"),
        ({"confidence": 1.0}, ValueError, "between 0 and 1"),
    ],
)
def test_bad_input_says_what_came(changes, error, message):
    arguments = {
        "labels": [True, False, True, False],
        "scores": [0.9, 0.1, 0.8, 0.2],
        "goal_index": [0, 0, 1, 1],
        "threshold": 0.5,
        "generator": np.random.default_rng(0),
    }
    evaluate_reward(**arguments)
    with pytest.raises(error, match=message):
        evaluate_reward(**(arguments | changes))
