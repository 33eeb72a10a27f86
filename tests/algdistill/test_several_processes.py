"""Training in two processes is training in one."""

import json
import os
import socket
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest
from accelerate import Accelerator
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

TIMEOUT = 240  # seconds, of a test that waits for other processes: long, for a busy machine

SCRIPT = """
import json
import os
import sys
from pathlib import Path

import numpy as np
import torch

from algdistill.histories import WindowSampler
from algdistill.models import ADTransformer, ADTransformerConfig
from algdistill.sources import TabularQLearning, TabularQLearningConfig
from algdistill.tasks_fake import dark_room_tasks
from algdistill.training import SELECTION_METRIC, Trainer, TrainingConfig

METRICS = [3.0, 5.0, 4.0]

class Run:
    def __init__(self, folder, dropout=0.0, num_evaluations=3, batch_size=8):
        tasks = dark_room_tasks(size=3, episode_length=5)
        source = TabularQLearningConfig(num_episodes=8)
        sampler = WindowSampler(
            TabularQLearning(tasks, source, tasks.task_ids).train(),
            window_length=20, start_fraction=0.2, generator=np.random.default_rng(0),
        )
        generator = torch.Generator().manual_seed(0)
        config = ADTransformerConfig(
            sampler.space, context_length=20, embed_dim=16, num_layers=2, num_heads=2, mlp_dim=32,
            dropout=dropout,
        )
        self.model = ADTransformer(config, generator)
        self.is_precise, self.num_windows = [], []
        self.model.register_forward_hook(self.watch)
        self.num_evaluations = num_evaluations
        self.evaluated = []
        training = TrainingConfig(
            num_updates=6, batch_size=batch_size, learning_rate=1e-2, warmup_updates=2,
            evaluate_every=2, log_every=1,
        )
        self.trainer = Trainer(
            self.model, sampler, training, Path(folder), evaluate=self.evaluate, generator=generator
        )

    def watch(self, model, inputs, outputs):
        self.is_precise.append(not torch.is_autocast_enabled("cpu"))
        self.num_windows.append(len(outputs))

    def evaluate(self, model):
        update = len(self.is_precise) // 2
        if len(self.evaluated) == self.num_evaluations:
            raise KeyboardInterrupt
        self.evaluated.append(update)
        return {SELECTION_METRIC: METRICS[update - 1]}

    def weights(self):
        return {name: value.numpy().copy() for name, value in self.model.state_dict().items()}

if __name__ == "__main__":
    rank = os.environ["RANK"]
    folder = Path(sys.argv[1])
    for name, dropout in (("plain", 0.0), ("dropout", 0.2)):
        run = Run(folder / name, dropout)
        result = run.trainer.train()
        np.savez(folder / f"{name}{rank}.npz", **run.weights())
        outcome = {
            "best": [result.best_metric, result.best_update],
            "evaluated": run.evaluated,
            "num_windows": run.num_windows,
            "is_precise": all(run.is_precise),
        }
        (folder / f"{name}{rank}.json").write_text(json.dumps(outcome))
"""


@pytest.fixture(scope="module")
def script():
    namespace = {"__name__": "script"}
    exec(SCRIPT, namespace)
    return SimpleNamespace(**namespace)


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    """The folder that two processes trained in."""
    folder = tmp_path_factory.mktemp("pair")
    (folder / "script.py").write_text(SCRIPT)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    # What torchrun sets, and a precision that a launcher may ask for.
    shared = {
        "WORLD_SIZE": "2",
        "LOCAL_WORLD_SIZE": "2",
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
        "OMP_NUM_THREADS": "1",
        "CUDA_VISIBLE_DEVICES": "",
        "ACCELERATE_MIXED_PRECISION": "bf16",
    }
    processes = [
        subprocess.Popen(
            [sys.executable, folder / "script.py", folder],
            env=os.environ | shared | {"RANK": str(rank), "LOCAL_RANK": str(rank)},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for rank in range(2)
    ]
    try:
        said = [process.communicate(timeout=TIMEOUT)[0] for process in processes]
    finally:
        for process in processes:
            process.kill()
    assert [process.returncode for process in processes] == [0, 0], said
    return folder


def weights(folder, name):
    return dict(np.load(folder / f"{name}.npz"))


def outcome(folder, name):
    return json.loads((folder / f"{name}.json").read_text())


def test_two_processes_train_the_weights_of_one(pair, script, tmp_path):
    run = script.Run(tmp_path)
    before = run.weights()
    run.trainer.train()
    for rank in range(2):
        for name, value in weights(pair, f"plain{rank}").items():
            np.testing.assert_allclose(value, run.weights()[name], atol=2e-5, rtol=0)
    assert np.abs(run.weights()["positions"] - before["positions"]).max() > 0.01
    logged = [EventAccumulator(str(folder)).Reload() for folder in (tmp_path, pair / "plain")]
    for metric in ("train/loss", "train/accuracy", "train/gradient_norm"):
        one, two = ([event.value for event in events.Scalars(metric)] for events in logged)
        assert len(two) == 6
        assert one == pytest.approx(two, rel=1e-3)


@pytest.mark.parametrize("name", ["plain", "dropout"])
def test_processes_share_the_batch_and_agree(pair, name):
    first, second = (outcome(pair, f"{name}{rank}") for rank in range(2))
    assert first["num_windows"] == second["num_windows"] == [4] * 6
    assert first["best"] == second["best"] == [5.0, 4]
    one, other = (weights(pair, f"{name}{rank}") for rank in range(2))
    assert all(np.array_equal(one[key], other[key]) for key in one)


def test_only_the_first_process_evaluates_and_writes(pair):
    assert outcome(pair, "plain0")["evaluated"] == [1, 2, 3]
    assert outcome(pair, "plain1")["evaluated"] == []
    files = sorted(path.name for path in (pair / "plain").iterdir())
    assert files[:2] == ["best.safetensors", "checkpoint.pt"]
    assert len(files) == 3
    assert files[2].startswith("events.out.tfevents")


def test_processors_do_not_compute_in_bfloat16_unless_asked(pair):
    assert outcome(pair, "plain0")["is_precise"]


def test_training_with_dropout_resumes_bit_for_bit(script, tmp_path):
    through = script.Run(tmp_path / "a", dropout=0.2)
    through.trainer.train()
    killed = script.Run(tmp_path / "b", dropout=0.2, num_evaluations=1)
    with pytest.raises(KeyboardInterrupt):
        killed.trainer.train()
    resumed = script.Run(tmp_path / "b", dropout=0.2)
    resumed.trainer.train()
    expected = through.weights()
    for name, value in resumed.weights().items():
        assert np.array_equal(value, expected[name]), name


def test_what_two_processes_left_one_goes_on_with(pair, script):
    resumed = script.Run(pair / "plain")
    assert resumed.trainer.train().best_update == 4
    for name, value in weights(pair, "plain0").items():
        assert np.array_equal(resumed.weights()[name], value)


def test_batch_that_cannot_be_shared_is_refused(script, tmp_path, monkeypatch):
    monkeypatch.setattr(Accelerator, "num_processes", 3)
    monkeypatch.setattr(
        "algdistill.training.trainer.meet", lambda **_: Accelerator(mixed_precision="no")
    )
    with pytest.raises(ValueError, match="got batch_size=8, expected a multiple of the 3"):
        script.Run(tmp_path)


def test_processes_that_have_not_met_do_not_train_side_by_side(script, tmp_path, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setattr(
        "algdistill.training.processes.Accelerator", lambda **_: SimpleNamespace(num_processes=1)
    )
    with pytest.raises(RuntimeError, match=r"got 1 process, expected the 2 .* needs cpu=True"):
        script.Run(tmp_path)
