from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from algdistill.histories import WindowSampler
from algdistill.tasks import TaskSpace

from .numbered import filmed_history, numbered_history


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


@settings(max_examples=20, deadline=None)
@given(
    lengths=st.lists(st.integers(40, 60), min_size=1, max_size=4),
    shorter=st.sets(st.integers(1, 39), max_size=5),
    episode_length=st.integers(1, 15),
    seed=st.integers(0, 1000),
)
def test_batches_of_mixed_lengths_are_as_right_as_whole_ones(
    lengths, shorter, episode_length, seed
):
    sampler = WindowSampler(
        [numbered_history(task, length, episode_length) for task, length in enumerate(lengths)],
        window_length=40,
        shorter_lengths=sorted(shorter),
        start_fraction=0.3,
        generator=np.random.default_rng(seed),
    )
    for _ in range(8):
        batch = sampler.sample(32)
        assert batch.steps.num_steps in shorter | {40}
        task, row = batch.steps.obs.unbind(-1)
        assert (task == task[:, :1]).all()
        assert (row[:, 1:] == row[:, :-1] + 1).all()
        assert (row[:, 0] % episode_length == 0).all()
        assert torch.equal(batch.actions, row % 7)


def test_each_length_is_as_likely_and_short_windows_reach_the_end_of_a_history():
    sampler = WindowSampler(
        [numbered_history(0, 100, 10)],
        window_length=40,
        shorter_lengths=range(10, 40, 10),
        start_fraction=0.0,
        generator=np.random.default_rng(0),
    )
    batches = [sampler.sample(16) for _ in range(2000)]
    counts = np.bincount([batch.steps.num_steps for batch in batches])
    assert counts[[10, 20, 30, 40]] / 2000 == pytest.approx(np.full(4, 0.25), abs=0.04)
    latest = {}
    for batch in batches:
        length = batch.steps.num_steps
        latest[length] = max(latest.get(length, 0), batch.steps.obs[:, -1, 1].max().item())
    assert latest == {10: 99, 20: 99, 30: 99, 40: 99}


def test_without_shorter_lengths_nothing_is_drawn_for_the_length(histories):
    """So that windows of one length stay what they were."""
    settings = {"window_length": 40, "start_fraction": 0.2}
    sampler = WindowSampler(histories, **settings, generator=np.random.default_rng(5))
    sampler.sample(64)
    plain = np.random.default_rng(5)
    plain.random((3, 64))
    assert sampler.generator.bit_generator.state == plain.bit_generator.state


def test_frames_stay_uint8_and_continuous_actions_float():
    sampler = WindowSampler(
        [filmed_history(task, 60, 10) for task in range(3)],
        window_length=40,
        start_fraction=0.3,
        generator=np.random.default_rng(0),
    )
    batch = sampler.sample(32)
    assert batch.steps.obs.dtype == torch.uint8
    assert batch.steps.obs.shape == (32, 40, 4, 4, 3)
    row = batch.steps.obs[..., 3, 3, 2].float()
    assert (row[:, 1:] == row[:, :-1] + 1).all()
    assert (row[:, 0] == 0).any()
    assert torch.equal(batch.actions, torch.stack([row, -row], dim=-1) / 256)
    previous = torch.stack([row - 1, 1 - row], dim=-1) / 256
    assert torch.equal(batch.steps.prev_action, previous * (row > 0)[..., None])


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
    for shorter in ((0,), (40,), (20, 41)):
        with pytest.raises(ValueError, match=r"shorter_lengths=.*window_length=40"):
            sampler(histories, shorter_lengths=shorter)
    with pytest.raises(ValueError, match="window_length=0"):
        sampler(histories, window_length=0)
    with pytest.raises(ValueError, match="several spaces"):
        sampler([*histories, replace(histories[0], space=TaskSpace.symbolic((9, 9), 5))])


@pytest.mark.parametrize("keep_every", [1, 2])
def test_targets_are_predicted_from_what_was_done(keep_every):
    histories = [numbered_history(task, 60, 10) for task in range(3)]
    targets = [replace(history, actions=6 - history.actions) for history in histories]
    batch = WindowSampler(
        histories,
        window_length=20,
        start_fraction=0.5,
        generator=np.random.default_rng(0),
        keep_every=keep_every,
        targets=targets,
    ).sample(64)
    row = batch.steps.obs[..., 1]
    assert torch.equal(batch.actions, 6 - row % 7)
    assert torch.equal(batch.steps.prev_action[:, 1:], row[:, :-1] % 7)


def test_targets_of_other_histories_are_refused():
    histories = [numbered_history(task, 60, 10) for task in range(2)]

    def sampler(targets):
        return WindowSampler(
            histories,
            window_length=20,
            start_fraction=0.5,
            generator=np.random.default_rng(0),
            targets=targets,
        )

    with pytest.raises(ValueError, match="got 1 targets for 2 histories, expected one each"):
        sampler(histories[:1])
    with pytest.raises(ValueError, match=r"as the target of history 0, .* in all but its actions"):
        sampler(histories[::-1])
