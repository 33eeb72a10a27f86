from dataclasses import replace

import jaxtyping
import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from algdistill.histories import HistoryRecorder
from algdistill.tasks import StepResult, TaskSpace


def test_repr_shows_shapes(make_history):
    assert repr(make_history(task_id=3)) == (
        "LearningHistory(task_id=3, 60 steps, 3 episodes, observations: uint8[60, 2], "
        "actions: uint8[60], rewards: float32[60])"
    )


def test_returns_are_sums_over_episodes(make_history):
    history = make_history(num_steps=50)
    assert history.episode_starts.tolist() == [0, 20, 40]
    for returns, rewards in (
        (history.episode_returns, history.rewards),
        (history.env_episode_returns, history.env_rewards),
    ):
        expected = [rewards[:20].sum(), rewards[20:40].sum(), rewards[40:].sum()]
        assert returns.tolist() == expected


def test_an_end_on_the_last_row_starts_no_empty_episode(make_history):
    assert make_history(num_steps=40).episode_starts.tolist() == [0, 20]


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(ends=st.lists(st.booleans(), min_size=1, max_size=40), interval=st.integers(1, 5))
def test_subsampling_keeps_whole_episodes(make_history, ends, interval):
    history = make_history(num_steps=len(ends))
    history = replace(history, truncated=np.array(ends), terminated=np.zeros(len(ends), bool))
    starts = history.episode_starts
    pieces = np.split(np.arange(len(ends)), starts[1:])
    expected = np.concatenate(pieces[::interval])
    kept = history.keep_every(interval)
    assert np.array_equal(kept.observations, history.observations[expected])
    assert np.array_equal(kept.rewards, history.rewards[expected])
    assert len(kept.episode_starts) == len(pieces[::interval])
    assert kept.metadata["kept_every"] == interval


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("actions", np.full(60, 3, np.uint8), "got actions from 3 to 3"),
        ("observations", np.zeros((60, 3), np.uint8), r"expected \(60, 2\)"),
        ("observations", np.full((60, 2), -1), "got observations from -1"),
        ("observations", np.full((60, 2), 5), "observations"),
        ("rewards", np.full(60, np.nan, np.float32), "NaN"),
        ("env_rewards", np.full(60, np.inf, np.float32), "infinity"),
    ],
)
def test_bad_fields_are_refused(make_history, field, value, message):
    with pytest.raises(ValueError, match=message):
        replace(make_history(), **{field: value})


def test_lengths_must_agree_where_shapes_are_not_checked_at_run_time(make_history):
    jaxtyping.config.update("jaxtyping_disable", True)
    try:
        with pytest.raises(ValueError, match=r"got actions of shape \(59,\), expected \(60,\)"):
            replace(make_history(), actions=np.zeros(59, np.uint8))
    finally:
        jaxtyping.config.update("jaxtyping_disable", False)


def test_empty_history_is_refused(make_history):
    whole = make_history()
    fields = ("observations", "actions", "rewards", "env_rewards", "terminated", "truncated")
    with pytest.raises(ValueError, match="no steps"):
        replace(whole, **{name: getattr(whole, name)[:0] for name in fields})


def step_result(obs, reward, *, truncated):
    """Two learners in a task of one observation component."""
    ends = torch.tensor([truncated, truncated])
    return StepResult(
        obs=obs,
        next_obs=obs,
        reward=reward,
        env_reward=reward + 1,
        terminated=torch.zeros(2, dtype=torch.bool),
        truncated=ends,
    )


def test_recorder_keeps_each_learner_apart_and_rows_aligned():
    recorder = HistoryRecorder(TaskSpace.symbolic((300,), 4), torch.tensor([5, 9]), 3, {"seed": 1})
    obs = torch.tensor([[0], [299]])
    for step in range(3):
        next_obs = torch.tensor([[step + 10], [step + 20]])
        actions = torch.tensor([step, 3 - step])
        reward = torch.tensor([float(step), 0.5])
        recorder.record(obs, actions, step_result(next_obs, reward, truncated=step == 1))
        obs = next_obs
    first, second = recorder.histories()
    assert (first.task_id, second.task_id) == (5, 9)
    assert first.observations[:, 0].tolist() == [0, 10, 11]
    assert second.observations[:, 0].tolist() == [299, 20, 21]
    assert second.actions.tolist() == [3, 2, 1]
    assert first.rewards.tolist() == [0.0, 1.0, 2.0]
    assert second.env_rewards.tolist() == [1.5, 1.5, 1.5]
    assert first.truncated.tolist() == [False, True, False]
    assert first.metadata == {"seed": 1}
    assert first.observations.dtype == np.uint16
    assert first.actions.dtype == np.uint8


def test_recorder_refuses_more_steps_than_announced_and_nothing_at_all():
    recorder = HistoryRecorder(TaskSpace.symbolic((3,), 2), torch.tensor([0, 1]), 1, {})
    with pytest.raises(RuntimeError, match="nothing was recorded"):
        recorder.histories()
    obs = torch.zeros(2, 1, dtype=torch.long)
    result = step_result(obs, torch.zeros(2), truncated=False)
    recorder.record(obs, torch.zeros(2, dtype=torch.long), result)
    with pytest.raises(RuntimeError, match="got step 2, expected 1"):
        recorder.record(obs, torch.zeros(2, dtype=torch.long), result)
