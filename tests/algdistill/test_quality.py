"""Quality of histories whose right answer is known by hand."""

import json
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image
from rich.console import Console

from algdistill.histories import HistoryStore, LearningHistory
from algdistill.histories.quality import QUANTILES, measure_quality
from algdistill.histories.quality_plot import plot_quality
from algdistill.histories.quality_report import quality_table
from algdistill.histories.quality_sums import Thinned
from algdistill.tasks import TaskSpace

from .numbered import filmed_history

EPISODE = 5


def paying(returns, task_id=0, env_scale=1.0, lengths=None):
    """A history whose episodes earn given returns, all on their last step."""
    lengths = [EPISODE] * len(returns) if lengths is None else lengths
    ends = np.cumsum(lengths) - 1
    steps = int(ends[-1]) + 1
    rewards, truncated = np.zeros(steps, np.float32), np.zeros(steps, bool)
    rewards[ends], truncated[ends] = returns, True
    return LearningHistory(
        TaskSpace.symbolic((4, 3), 2),
        task_id,
        np.zeros((steps, 2), np.uint8),
        np.zeros(steps, np.uint8),
        rewards,
        rewards * np.float32(env_scale),
        np.zeros(steps, bool),
        truncated,
    )


def many(returns, num_tasks=40, per_task=25, **settings):
    """Enough tasks and histories to be warned of neither."""
    return [
        paying(np.asarray(returns) + 0.01 * copy, task, **settings)
        for task in range(num_tasks)
        for copy in range(per_task)
    ]


def warnings_of(histories, context_length=20, **settings):
    quality = measure_quality([histories], context_length=context_length, **settings)
    return [warning.split(":")[0].split(",")[0] for warning in quality.advice.warnings]


def test_curve_and_its_interval():
    histories = [paying([0, 2, 4]), paying([2, 2, 10]), paying([4, 2])]
    quality = measure_quality([histories[:2], histories[2:]], context_length=10)
    assert quality.episode_returns.tolist() == [2, 2, 7]
    # Standard deviations 2 and 0 of three histories, and 3 * sqrt(2) of two.
    widths = 1.96 * np.array([2 / np.sqrt(3), 0.0, 3.0])
    assert quality.episode_returns_low == pytest.approx(np.array([2, 2, 7]) - widths)
    assert quality.episode_returns_high == pytest.approx(np.array([2, 2, 7]) + widths)
    assert (quality.num_histories, quality.num_tasks, quality.num_steps) == (3, 1, 40)


def test_tenths_of_training_and_their_ground_truth():
    quality = measure_quality([[paying(np.arange(20), env_scale=0.5)]], context_length=10)
    assert quality.decile_returns.tolist() == [0.5 + 2 * tenth for tenth in range(10)]
    assert quality.decile_env_returns.tolist() == [0.25 + tenth for tenth in range(10)]
    assert quality.gain == 18.0


def test_with_less_than_ten_episodes_tenths_share_them():
    quality = measure_quality([[paying([1, 5])]], context_length=10)
    assert quality.decile_returns.tolist() == [1] * 5 + [5] * 5


@pytest.mark.parametrize(("num_episodes", "expected"), [(2, 3), (3, 6), (4, 6), (5, 9)])
def test_improvement_within_a_context_is_second_half_less_first(num_episodes, expected):
    """Rising by 3 an episode; the middle one of an odd number belongs to neither half."""
    quality = measure_quality(
        [[paying(3 * np.arange(12))]], context_length=num_episodes * EPISODE + 2
    )
    assert quality.episodes_per_context == pytest.approx(num_episodes, abs=0.2)
    assert quality.improvement == expected
    assert quality.improvement_quantiles.tolist() == [expected] * len(QUANTILES)
    assert quality.share_improving == 1.0


def test_distribution_of_the_improvement():
    """Contexts of two episodes: 0 to 1 to 1 to 4, three contexts that gain 1, 0 and 3."""
    quality = measure_quality([[paying([0, 1, 1, 4])]], context_length=2 * EPISODE)
    assert quality.improvement == pytest.approx(4 / 3)
    assert quality.share_improving == pytest.approx(2 / 3)
    assert quality.improvement_quantiles[[0, 10, 20]].tolist() == [0, 1, 3]


def test_episodes_of_different_lengths_and_an_unfinished_one():
    history = paying([1, 2, 4, 9], lengths=[3, 2, 6, 4])
    history = replace(history, truncated=history.truncated & (np.arange(15) < 14))
    quality = measure_quality([[history]], context_length=6)
    # Whole episodes are 1, 2, 4. Contexts of 6 steps start at 0 (1 and 2) and at 3, 5 (one each).
    assert quality.episode_returns.tolist() == [1, 2, 4]
    assert quality.improvement == 1.0
    assert quality.episodes_per_context == pytest.approx((2 + 1 + 1) / 3)


def test_tasks_are_told_apart():
    histories = [paying([0] * 10 + [last] * 10, task) for task, last in ((7, 4), (7, 8), (3, 0))]
    quality = measure_quality([histories], context_length=20)
    assert quality.num_tasks == 2
    assert quality.task_returns.tolist() == [0, 6]
    assert quality.tasks_without_gain == 1


def test_coverage_of_states_and_pairs():
    first, second = paying([0, 1]), paying([0, 1])
    first = replace(first, observations=np.tile([[0, 0], [3, 2]], (5, 1)))
    second = replace(
        second, observations=np.tile([[0, 0], [1, 2]], (5, 1)), actions=np.tile([0, 1], 5)
    )
    coverage = measure_quality([[first, second]], context_length=10).coverage
    assert coverage.states == 3 / 12
    assert coverage.states_of_one == 2 / 12
    assert coverage.pairs == 3 / 24


def test_frames_and_continuous_actions_have_no_coverage():
    histories = [filmed_history(task, 60, 10) for task in range(3)]
    quality = measure_quality([histories], context_length=20)
    assert quality.coverage is None
    assert json.dumps(quality.to_dict()["coverage"]) == "null"


def test_fast_sources_keep_every_episode_and_nothing_is_wrong():
    """Learning takes 20 episodes, five contexts of four."""
    curve = np.concatenate([np.linspace(0, 10, 20), np.full(20, 10.0)])
    quality = measure_quality([many(curve)], context_length=20)
    assert quality.advice.warnings == ()
    assert quality.advice.keep_every == 1
    assert quality.learning_episodes == pytest.approx(18, abs=2)
    assert "of 4 episodes each; up to 8 are fine" in quality.advice.reason


def test_slow_sources_are_thinned_until_learning_takes_eight_contexts():
    """A straight line makes 90 % of its rise in 90 % of its 400 episodes: 90 contexts of four."""
    histories = many(np.linspace(0, 10, 400), per_task=25)
    slow = measure_quality([histories], context_length=20)
    assert slow.learning_episodes == pytest.approx(345, abs=10)
    assert slow.advice.keep_every == -(-slow.learning_episodes // 32)
    assert any("behaviour cloning" in warning for warning in slow.advice.warnings)
    thinned = measure_quality([histories], context_length=20, keep_every=slow.advice.keep_every)
    assert thinned.advice.keep_every == slow.advice.keep_every
    assert thinned.advice.warnings == ()
    assert thinned.improvement == pytest.approx(slow.improvement * slow.advice.keep_every, rel=0.05)


def test_what_is_known_to_fail_is_said():
    learning = many([0, 0, 4, 8, 8, 8])
    assert warnings_of(learning) == []
    assert warnings_of(many([5, 4, 3, 2])) == ["The sources do not learn"]
    assert warnings_of(many([9.5, 9.6, 9.9, 10])) == ["The sources are skilled from the start"]
    assert warnings_of(learning[:900] + learning[:100]) == ["Only 36 tasks"]
    assert warnings_of(learning[::10]) == ["Only 100 histories"]
    assert warnings_of(learning, context_length=4) == ["A context holds 0 episodes"]
    assert warnings_of(learning, context_length=9) == ["A context holds 1 episodes"]
    flat = [paying([5, 5, 5, 5], task) for task in range(50, 90)]
    assert warnings_of(learning + flat) == [
        "40 of 80 tasks earn no more at the end than at the beginning"
    ]
    short = paying([0, 8])
    assert warnings_of([*learning, short]) == ["1 of 1001 histories are shorter than the context"]


def test_a_store_is_judged_block_by_block_like_histories_in_memory(tmp_path):
    rng = np.random.default_rng(0)
    histories = [paying(rng.normal(size=30), task % 5) for task in range(20)]
    store = HistoryStore.create(tmp_path / "s", histories[0].space, num_steps=150, block_size=3)
    store.append(histories)
    ours = measure_quality(store.blocks(), context_length=20, keep_every=2).to_dict()
    theirs = measure_quality([histories], context_length=20, keep_every=2).to_dict()
    assert json.dumps(ours) == json.dumps(theirs)


def test_thinning_keeps_an_even_sample():
    thinned = Thinned(limit=100)
    values = np.arange(10_000.0)
    for piece in np.array_split(values, 37):
        thinned.add(piece)
    steps = np.diff(thinned.values)
    assert (steps == steps[0]).all()
    assert 50 <= len(thinned.values) <= 100
    assert thinned.values[-1] + steps[0] > values[-1]


def test_report_can_be_read_looked_at_and_stored(tmp_path):
    quality = measure_quality([[paying(np.linspace(0, 10, 20))]], context_length=20)
    console = Console(width=120, record=True)
    console.print(quality_table(quality))
    text = console.export_text()
    assert "+1.05 on average" in text  # two episodes later, 10 / 19 each
    assert "Warning: Only 1 tasks" in text
    plot_quality(quality, tmp_path / "report.png")
    picture = np.asarray(Image.open(tmp_path / "report.png").convert("L"))
    assert picture.shape == (650, 1000)
    assert (picture < 128).mean() > 0.01
    # A single history has no interval.
    assert json.loads(json.dumps(quality.to_dict()))["gain_low"] is None


def test_report_without_two_episodes_in_a_context(tmp_path):
    quality = measure_quality([[paying([0, 1, 2])]], context_length=EPISODE)
    assert np.isnan(quality.improvement)
    console = Console(width=120, record=True)
    console.print(quality_table(quality))
    assert "unknown: a context holds less than two" in console.export_text()
    plot_quality(quality, tmp_path / "report.png")


def test_what_cannot_be_judged_is_refused():
    with pytest.raises(ValueError, match="no learning histories"):
        measure_quality([[]], context_length=20)
    with pytest.raises(ValueError, match="context_length=0"):
        measure_quality([[paying([0, 1])]], context_length=0)
    with pytest.raises(ValueError, match="context_length=11, longer than every history"):
        measure_quality([[paying([0, 1])]], context_length=11)
    with pytest.raises(ValueError, match="with 1 whole episodes, expected at least two"):
        measure_quality([[paying([1])]], context_length=5)
    other = replace(paying([0, 1]), space=TaskSpace.symbolic((4, 3), 3))
    with pytest.raises(ValueError, match="several spaces"):
        measure_quality([[paying([0, 1]), other]], context_length=5)
