import json
import os
import signal
import subprocess
import sys

import numpy as np
import pytest
import torch

from algdistill.histories import HistoryStore, StoreWindowSampler, WindowSampler
from algdistill.models import ADTransformer, ADTransformerConfig
from algdistill.training import SELECTION_METRIC, Trainer, TrainingConfig

from .numbered import filmed_history, numbered_history


def store_of(path, histories, block_size=3, num_steps=60):
    store = HistoryStore.create(
        path, histories[0].space, num_steps=num_steps, block_size=block_size
    )
    store.append(histories)
    return store


@pytest.fixture
def store(tmp_path):
    """Twenty histories of 60 steps, in seven blocks."""
    return store_of(tmp_path / "s", [numbered_history(task, 60, 10) for task in range(20)])


def sampler_of(store, seed=0, **settings):
    defaults = {"num_blocks": 3, "window_length": 30, "start_fraction": 0.2}
    return StoreWindowSampler(store, generator=np.random.default_rng(seed), **defaults | settings)


def watch_reads(store, monkeypatch):
    """The blocks read from now on, in order."""
    read, blocks = store.read, []

    def watched(start, stop):
        blocks.append(start // store.block_size)
        return read(start, stop)

    monkeypatch.setattr(store, "read", watched)
    return blocks


def test_windows_stay_in_one_history_whatever_block_is_replaced(store):
    sampler = sampler_of(store, shorter_lengths=(10, 20))
    for _ in range(40):
        batch = sampler.sample(8)
        task, row = batch.steps.obs.unbind(-1)
        assert (task == task[:, :1]).all()
        assert (row[:, 1:] == row[:, :-1] + 1).all()
        assert torch.equal(batch.actions, row % 7)
        assert torch.equal(batch.steps.prev_action, torch.where(row > 0, (row - 1) % 7, 7))
        assert torch.equal(batch.steps.prev_reward, torch.where(row > 0, (row - 1) * 0.5, 0.0))
        assert torch.equal(batch.steps.episode_start, row % 10 == 0)


def test_every_epoch_reads_every_block_once_in_an_order_of_its_own(store, monkeypatch):
    blocks = watch_reads(store, monkeypatch)
    sampler = sampler_of(store)
    assert len(blocks) == 3
    while len(blocks) < 21:
        sampler.sample(5)
    epochs = [blocks[:7], blocks[7:14], blocks[14:21]]
    assert all(sorted(epoch) == list(range(7)) for epoch in epochs)
    assert epochs[0] != epochs[1]


def test_windows_come_from_the_blocks_held_and_the_oldest_is_replaced(store, monkeypatch):
    blocks = watch_reads(store, monkeypatch)
    sampler = sampler_of(store)
    while len(blocks) < 10:
        held = {task // 3 for task in sampler.sample(64).steps.obs[:, 0, 0].tolist()}
        assert held == set(blocks[-3:])


def test_as_many_steps_are_drawn_as_are_read(store, monkeypatch):
    blocks = watch_reads(store, monkeypatch)
    sampler = sampler_of(store)
    assert sampler.num_steps == 1200
    for _ in range(400):  # ten epochs
        sampler.sample(1)
    # Those read first, less the last, which the next call would replace, and the seventy others.
    assert len(blocks) == 3 + 70 - 1


def test_every_history_is_drawn_alike_over_some_epochs(store):
    sampler = sampler_of(store, start_fraction=0.0)
    tasks = torch.cat([sampler.sample(2).steps.obs[:, 0, 0] for _ in range(400)])  # twenty epochs
    shares = torch.bincount(tasks, minlength=20) / len(tasks)
    assert shares.numpy() == pytest.approx(np.full(20, 0.05), abs=0.03)


def test_a_store_that_fits_is_read_once_and_sampled_as_in_memory(tmp_path, monkeypatch):
    histories = [numbered_history(task, 60, 10) for task in range(4)]
    store = store_of(tmp_path / "s", histories, block_size=10)
    blocks = watch_reads(store, monkeypatch)
    settings = {"window_length": 30, "start_fraction": 0.2, "keep_every": 2}
    sampler = sampler_of(store, **settings)
    inside = WindowSampler(histories, **settings, generator=np.random.default_rng(0))
    # One draw was spent on the order of the only block.
    inside.generator.bit_generator.state = sampler.generator.bit_generator.state
    for _ in range(100):
        ours, theirs = sampler.sample(8), inside.sample(8)
        assert torch.equal(ours.steps.obs, theirs.steps.obs)
        assert torch.equal(ours.steps.prev_reward, theirs.steps.prev_reward)
    assert blocks == [0]


def test_frames_stay_uint8_and_continuous_actions_float(tmp_path):
    store = store_of(tmp_path / "s", [filmed_history(task, 60, 10) for task in range(9)])
    sampler = sampler_of(store, num_blocks=2)
    for _ in range(20):
        batch = sampler.sample(8)
        assert batch.steps.obs.dtype == torch.uint8
        assert batch.steps.obs.shape == (8, 30, 4, 4, 3)
        row = batch.steps.obs[..., 3, 3, 2].float()
        task = batch.steps.obs[..., 0, 0, 0]
        assert (task == task[:, :1]).all()
        assert torch.equal(batch.actions, torch.stack([row, -row], dim=-1) / 256)
        previous = torch.stack([row - 1, 1 - row], dim=-1) / 256
        assert torch.equal(batch.steps.prev_action, previous * (row > 0)[..., None])


@pytest.mark.parametrize("num_batches", [0, 1, 7, 50])
def test_state_continues_the_same_windows_within_an_epoch(store, num_batches):
    sampler = sampler_of(store, shorter_lengths=(10,))
    for _ in range(num_batches):
        sampler.sample(4)
    state = json.loads(json.dumps(sampler.state_dict()))
    expected = [sampler.sample(4) for _ in range(60)]
    other = sampler_of(store, seed=99, shorter_lengths=(10,))
    other.load_state_dict(state)
    for batch in expected:
        again = other.sample(4)
        assert torch.equal(again.steps.obs, batch.steps.obs)
        assert torch.equal(again.steps.prev_action, batch.steps.prev_action)
    assert other.state_dict() == sampler.state_dict()


CHILD = """
import json, os, sys
from pathlib import Path
import numpy as np
from algdistill.histories import HistoryStore, StoreWindowSampler

sampler = StoreWindowSampler(
    HistoryStore.open(Path(sys.argv[1])), num_blocks=3, window_length=30, start_fraction=0.2,
    generator=np.random.default_rng(0),
)
for number in range(1_000_000):
    print(json.dumps(sampler.sample(2).steps.obs[:, 0].tolist()), flush=True)
    unfinished = Path(sys.argv[2] + ".partial")
    unfinished.write_text(json.dumps({"batches": number + 1, "sampler": sampler.state_dict()}))
    os.replace(unfinished, sys.argv[2])
"""


def test_a_killed_sampler_continues_the_same_windows(store, tmp_path):
    """Every window drawn before the kill or after it is the one an undisturbed sampler draws."""
    command = [sys.executable, "-c", CHILD, str(tmp_path / "s"), str(tmp_path / "state.json")]
    child = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    drawn = [json.loads(child.stdout.readline()) for _ in range(25)]
    os.kill(child.pid, signal.SIGKILL)
    child.communicate()
    state = json.loads((tmp_path / "state.json").read_text())
    assert state["batches"] >= 24
    undisturbed = sampler_of(store)
    expected = [undisturbed.sample(2).steps.obs[:, 0].tolist() for _ in range(state["batches"])]
    assert drawn[:24] == expected[:24]
    resumed = sampler_of(store, seed=99)
    resumed.load_state_dict(state["sampler"])
    for _ in range(50):
        assert torch.equal(resumed.sample(2).steps.obs, undisturbed.sample(2).steps.obs)


def test_training_from_a_store_killed_within_an_epoch_resumes_bit_for_bit(tmp_path, make_history):
    store = store_of(tmp_path / "s", [make_history(task_id=task) for task in range(20)])
    config = TrainingConfig(num_updates=12, batch_size=4, warmup_updates=3, evaluate_every=4)
    model_config = ADTransformerConfig(
        store.space, context_length=30, embed_dim=16, num_layers=1, num_heads=2, mlp_dim=16
    )

    def train(run_dir, seed, outcomes):
        def evaluate(model):
            outcome = outcomes.pop(0)
            if outcome is None:
                raise KeyboardInterrupt
            return {SELECTION_METRIC: outcome}

        generator = torch.Generator().manual_seed(seed)
        model = ADTransformer(model_config, generator)
        sampler = sampler_of(store, seed=seed, shorter_lengths=(10, 20))
        trainer = Trainer(model, sampler, config, run_dir, evaluate=evaluate, generator=generator)
        trainer.train()
        return model.state_dict()

    expected = train(tmp_path / "a", 0, [1.0, 2.0, 3.0])
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path / "b", 0, [1.0, None])
    resumed = train(tmp_path / "b", 1, [2.0, 3.0])
    assert all(torch.equal(resumed[name], value) for name, value in expected.items())


def test_histories_appended_later_are_left_out(store):
    sampler = sampler_of(store, num_blocks=2)
    store.append([numbered_history(49, 60, 10) for _ in range(10)])
    tasks = torch.cat([sampler.sample(4).steps.obs[:, 0, 0] for _ in range(100)])
    assert tasks.max() == 19


def test_what_cannot_be_sampled_is_refused(store, tmp_path):
    empty = HistoryStore.create(tmp_path / "empty", store.space, num_steps=60)
    with pytest.raises(ValueError, match=r"HistoryStore\(0 histories.*expected histories in it"):
        sampler_of(empty)
    with pytest.raises(ValueError, match="history of 60 kept steps, expected at least"):
        sampler_of(store, window_length=61)
    with pytest.raises(ValueError, match="history of 30 kept steps, expected at least"):
        sampler_of(store, window_length=31, keep_every=2)
    with pytest.raises(ValueError, match="num_blocks=0"):
        sampler_of(store, num_blocks=0)
    state = sampler_of(store).state_dict()
    with pytest.raises(ValueError, match="20 histories with 3 blocks held, expected 20 and 2"):
        sampler_of(store, num_blocks=2).load_state_dict(state)
    store.append([numbered_history(20, 60, 10)])
    with pytest.raises(ValueError, match="20 histories with 3 blocks held, expected 21 and 3"):
        sampler_of(store).load_state_dict(state)
