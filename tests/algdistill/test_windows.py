from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from algdistill.histories import LearningHistory, WindowSampler
from algdistill.tasks import TaskSpace


def numbered_history(task_id, num_steps, episode_length):
    """Observations name the history and the row; actions and rewards follow from the row."""
    rows = np.arange(num_steps)
    return LearningHistory(
        space=TaskSpace.symbolic((50, 1000), 7),
        task_id=task_id,
        observations=np.stack([np.full(num_steps, task_id), rows], axis=1),
        actions=rows % 7,
        rewards=(rows * 0.5).astype(np.float32),
        env_rewards=np.zeros(num_steps, np.float32),
        terminated=np.zeros(num_steps, bool),
        truncated=rows % episode_length == episode_length - 1,
    )


@settings(max_examples=40, deadline=None)
@given(
    lengths=st.lists(st.integers(12, 60), min_size=1, max_size=6),
    episode_length=st.integers(1, 15),
    window_length=st.integers(1, 12),
    seed=st.integers(0, 1000),
)
def test_windows_stay_in_one_history_start_with_an_episode_and_are_aligned(
    lengths, episode_length, window_length, seed
):
    histories = [
        numbered_history(task, length, episode_length) for task, length in enumerate(lengths)
    ]
    sampler = WindowSampler(
        histories,
        window_length=window_length,
        start_fraction=0.3,
        generator=np.random.default_rng(seed),
    )
    batch = sampler.sample(64)
    task, row = batch.steps.obs.unbind(-1)
    assert (task == task[:, :1]).all()
    assert (row[:, 1:] == row[:, :-1] + 1).all()
    assert (row[:, 0] % episode_length == 0).all()
    assert torch.equal(batch.steps.episode_start, row % episode_length == 0)
    assert torch.equal(batch.actions, row % 7)
    # The previous action and reward are those of the row before, and none before the first row.
    assert torch.equal(batch.steps.prev_action, torch.where(row > 0, (row - 1) % 7, 7))
    assert torch.equal(batch.steps.prev_reward, torch.where(row > 0, (row - 1) * 0.5, 0.0))


def test_share_of_windows_at_the_very_beginning():
    histories = [numbered_history(0, 1000, 10)]
    for fraction, expected in ((0.0, 1 / 97), (0.2, 0.2 + 0.8 / 97), (1.0, 1.0)):
        sampler = WindowSampler(
            histories,
            window_length=40,
            start_fraction=fraction,
            generator=np.random.default_rng(0),
        )
        first = sampler.sample(20_000).steps.obs[:, 0, 1]
        assert (first == 0).float().mean().item() == pytest.approx(expected, abs=0.01)
        assert fraction == 1.0 or len(first.unique()) == 97


def test_long_histories_are_not_preferred():
    histories = [numbered_history(0, 900, 10), numbered_history(1, 50, 10)]
    sampler = WindowSampler(
        histories, window_length=40, start_fraction=0.0, generator=np.random.default_rng(0)
    )
    share = sampler.sample(10_000).steps.obs[:, 0, 0].float().mean().item()
    assert share == pytest.approx(0.5, abs=0.02)


def test_subsampled_windows_join_every_other_episode():
    sampler = WindowSampler(
        [numbered_history(0, 40, 5)],
        window_length=20,
        start_fraction=1.0,
        keep_every=2,
        generator=np.random.default_rng(0),
    )
    batch = sampler.sample(1)
    rows = [*range(5), *range(10, 15), *range(20, 25), *range(30, 35)]
    assert batch.steps.obs[0, :, 1].tolist() == rows
    assert batch.steps.prev_action[0, 5] == 4 % 7


def test_state_continues_the_same_windows(sampler, histories):
    sampler.sample(8)
    state = sampler.state_dict()
    expected = [sampler.sample(8).steps.obs for _ in range(3)]
    other = WindowSampler(
        histories, window_length=40, start_fraction=0.2, generator=np.random.default_rng(99)
    )
    other.load_state_dict(state)
    assert all(torch.equal(other.sample(8).steps.obs, obs) for obs in expected)


def test_what_cannot_be_sampled_is_refused(histories, make_history):
    def sampler(chosen, **settings):
        defaults = {"window_length": 40, "start_fraction": 0.2}
        return WindowSampler(chosen, generator=np.random.default_rng(0), **(defaults | settings))

    with pytest.raises(ValueError, match="no learning histories"):
        sampler([])
    with pytest.raises(ValueError, match="history of 60 kept steps, expected at least"):
        sampler(histories, window_length=61)
    with pytest.raises(ValueError, match="history of 40 kept steps"):
        sampler(histories, window_length=60, keep_every=2)
    with pytest.raises(ValueError, match="start_fraction=2"):
        sampler(histories, start_fraction=2.0)
    with pytest.raises(ValueError, match="several spaces"):
        sampler([*histories, replace(histories[0], space=TaskSpace.symbolic((9, 9), 5))])
