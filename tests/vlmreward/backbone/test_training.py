import math
import multiprocessing
import os
import signal
import socket
import time
from collections.abc import Mapping
from dataclasses import dataclass

import pytest
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from hypothesis import given
from hypothesis import settings as examples
from hypothesis import strategies as st
from safetensors.torch import load_model
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import nn
from torch.nn import functional as F

from vlmreward.backbone import training
from vlmreward.backbone.optimisers import OptimiserConfig
from vlmreward.backbone.training import (
    BackboneTrainingConfig,
    retrieval_recall,
    train_backbone,
)


@dataclass(frozen=True)
class Batch:
    inputs: torch.Tensor
    targets: torch.Tensor
    name: str = "a batch"


def batches(step):
    """Of a line that is to be found."""
    generator = torch.Generator().manual_seed(step)
    inputs = torch.randn(8, 3, generator=generator)
    targets = inputs @ torch.tensor([[1.0], [-2.0], [0.5]])
    return Batch(inputs, targets)


class Toy(nn.Module):
    """Two losses, one of which only some batches have; the two heads share their bias."""

    def __init__(self, seed=0, dropout=0.2, width=16):
        super().__init__()
        self.hidden = nn.Linear(3, width)
        self.out = nn.Linear(width, 1)
        self.sign = nn.Linear(width, 1)
        self.sign.bias = self.out.bias
        self.dropout = nn.Dropout(dropout)
        generator = torch.Generator().manual_seed(seed)
        for parameter in self.parameters():
            nn.init.normal_(parameter, std=0.3, generator=generator)
        self.num_passes = 0
        self.product_dtypes = set()

    def forward(self, batch):
        self.num_passes += 1
        inputs, targets = (
            (batch["inputs"], batch["targets"])
            if isinstance(batch, Mapping)
            else (batch.inputs, batch.targets)
        )
        products = self.hidden(inputs)
        self.product_dtypes.add(products.dtype)
        hidden = self.dropout(products.tanh())
        losses = {"square": F.mse_loss(self.out(hidden).float(), targets)}
        if targets[0, 0] < 0:
            signs = (targets > 0).float()
            logits = self.sign(hidden).float()
            losses["sign"] = 0.5 * F.binary_cross_entropy_with_logits(logits, signs)
        return losses


def settings(**changes):
    quick = {
        "num_steps": 8,
        "optimiser": OptimiserConfig(learning_rate=0.05, warmup_steps=2),
        "checkpoint_interval": 3,
        "evaluation_interval": 4,
        "log_interval": 1,
    }
    return BackboneTrainingConfig(**(quick | changes))


def train(folder, config=None, source=batches, *, model=None, evaluate=None, accelerator=None):
    return train_backbone(
        model or Toy(),
        source,
        config or settings(),
        folder,
        evaluate=evaluate,
        accelerator=accelerator,
    )


def assert_equal(first, second):
    for name, tensor in first.state_dict().items():
        assert torch.equal(tensor, second.state_dict()[name]), name


def scalars(folder):
    events = EventAccumulator(str(folder))
    events.Reload()
    return {
        tag: {event.step: event.value for event in events.Scalars(tag)}
        for tag in events.Tags()["scalars"]
    }


class KilledError(Exception):
    pass


def killed_before(step):
    def source(asked):
        if asked == step:
            raise KilledError
        return batches(asked)

    return source


def test_it_learns(tmp_path):
    config = settings(num_steps=80, log_interval=40)
    model = train(tmp_path, config, model=Toy(dropout=0.0))
    assert not model.training
    with torch.no_grad():
        loss = model(batches(999))["square"]
    assert loss.item() < 0.1 * batches(999).targets.square().mean().item()


def test_updates_are_those_of_a_plain_loop(tmp_path):
    config = settings(max_gradient_norm=0.5)
    model = train(tmp_path, config, model=Toy(dropout=0.0))
    plain = Toy(dropout=0.0)
    decayed = plain.hidden.weight  # the only matrix: the heads have one row
    others = [weights for weights in plain.parameters() if weights is not decayed]
    groups = [{"params": [decayed], "weight_decay": 0.05}, {"params": others, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, betas=(0.9, 0.98), fused=True)
    for step in range(8):
        for group in optimizer.param_groups:
            group["lr"] = config.optimiser.learning_rate_at(step, 8)
        optimizer.zero_grad()
        sum(plain(batches(step)).values()).backward()
        nn.utils.clip_grad_norm_(plain.parameters(), 0.5)
        optimizer.step()
    for expected, found in zip(plain.parameters(), model.parameters(), strict=True):
        torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("step", [1, 3, 4, 7])
def test_killed_and_resumed_is_bitwise_never_killed(tmp_path, step):
    through = train(tmp_path / "a")
    with pytest.raises(KilledError):
        train(tmp_path / "b", source=killed_before(step))
    resumed = train(tmp_path / "b")
    assert_equal(through, resumed)
    assert resumed.num_passes == 8 - step // 3 * 3


def in_another_process(target, *arguments, more=()):
    """Run functions in processes of their own, forked: nothing is imported again."""
    context = multiprocessing.get_context("fork")
    processes = [
        context.Process(target=target, args=(*arguments, *extra)) for extra in more or [()]
    ]
    for process in processes:
        process.start()
    for process in processes:
        process.join(240)
    for process in processes:
        if process.is_alive():
            process.kill()
            process.join()
    return [process.exitcode for process in processes]


def train_and_be_killed(folder, moment):
    def kill(*_):
        os.kill(os.getpid(), signal.SIGKILL)

    if moment == "in a step":
        train(folder, source=lambda step: batches(step) if step < 5 else kill())
    if moment == "while it writes":
        write, left = torch.save, [1]

        def half(state, path):
            if left[0]:
                left[0] -= 1
                write(state, path)
                return
            path.write_bytes(b"half of a checkpoint")
            kill()

        training.torch.save = half
        train(folder)


@pytest.mark.parametrize("moment", ["in a step", "while it writes"])
def test_a_kill_that_cannot_be_caught_is_survived(tmp_path, moment):
    folder = tmp_path / "killed"
    assert in_another_process(train_and_be_killed, folder, moment) == [-signal.SIGKILL]
    time.sleep(1.0)  # TensorBoard reads files in the order of the second they were begun in
    model = train(folder)
    assert model.num_passes == 5
    assert_equal(model, train(tmp_path / "through"))
    losses = scalars(folder)["train/loss"]
    assert losses == scalars(tmp_path / "through")["train/loss"]
    assert list(losses) == list(range(1, 9))


def test_with_lamb_too_a_resumed_run_is_bitwise_the_same(tmp_path):
    pytest.importorskip("pytorch_optimizer")
    lamb = OptimiserConfig("lamb", learning_rate=0.1, warmup_steps=2)
    config = settings(optimiser=lamb)
    through = train(tmp_path / "a", config)
    with pytest.raises(KilledError):
        train(tmp_path / "b", config, killed_before(4))
    assert_equal(through, train(tmp_path / "b", config))


def test_the_check_of_resuming_catches_a_batch_that_depends_on_what_was_drawn_before(tmp_path):
    def forgetful():
        generator = torch.Generator().manual_seed(0)
        return lambda step: Batch(
            inputs := torch.randn(8, 3, generator=generator), inputs[:, :1].clone()
        )

    through = train(tmp_path / "a", source=forgetful())
    source = forgetful()
    with pytest.raises(KilledError):
        train(tmp_path / "b", source=lambda step: killed_before(4)(step) and source(step))
    with pytest.raises(AssertionError):
        assert_equal(through, train(tmp_path / "b", source=forgetful()))


def test_same_seed_same_weights_and_another_seed_others(tmp_path):
    first, second = train(tmp_path / "a"), train(tmp_path / "b")
    assert_equal(first, second)
    other = train(tmp_path / "c", settings(seed=1))
    assert not torch.equal(first.hidden.weight, other.hidden.weight)


def test_random_numbers_of_others_are_neither_used_nor_moved(tmp_path):
    first = train(tmp_path / "a")
    model = Toy()
    torch.manual_seed(123)
    state = torch.get_rng_state()
    second = train(tmp_path / "b", model=model)
    assert torch.equal(torch.get_rng_state(), state)
    assert_equal(first, second)


def test_processes_that_draw_batches_change_nothing(tmp_path):
    here = train(tmp_path / "a")
    with pytest.raises(KilledError):
        train(tmp_path / "b", source=killed_before(4))
    assert_equal(here, train(tmp_path / "b", settings(num_workers=2)))


def test_a_batch_may_be_a_mapping(tmp_path):
    def source(step):
        return {"inputs": batches(step).inputs, "targets": batches(step).targets}

    assert_equal(train(tmp_path / "a", source=source), train(tmp_path / "b"))


def test_batches_are_moved_with_all_that_is_in_them():
    batch = {"seen": batches(0), "length": 3, "more": {"x": torch.ones(2)}}
    moved = training._moved(batch, torch.device("meta"))
    assert moved["seen"].inputs.device.type == moved["more"]["x"].device.type == "meta"
    assert isinstance(moved["seen"], Batch)
    assert (moved["seen"].name, moved["length"]) == ("a batch", 3)


def test_mixed_precision_computes_in_bfloat16_and_keeps_weights_in_float32(tmp_path):
    single = train(tmp_path / "a", settings(precision="fp32"))
    mixed = train(tmp_path / "b", settings(precision="bf16"))
    assert single.product_dtypes == {torch.float32}
    assert mixed.product_dtypes == {torch.bfloat16}
    assert {weights.dtype for weights in mixed.parameters()} == {torch.float32}
    assert not settings().uses_bfloat16(torch.device("cpu"))


def test_everything_is_logged_by_step(tmp_path):
    seen = []

    def evaluate(model):
        seen.append((model.training, model.num_passes))
        return {"recall": 0.25 * len(seen)}

    train(tmp_path, settings(num_steps=9, log_interval=2), evaluate=evaluate)
    found = scalars(tmp_path)
    assert seen == [(False, 4), (False, 8), (False, 9)]
    assert found["eval/recall"] == {4: 0.25, 8: 0.5, 9: 0.75}
    assert list(found["train/loss"]) == [2, 4, 6, 8, 9]
    assert set(found) == {
        "train/loss",
        "train/square",
        "train/sign",
        "train/learning_rate",
        "train/gradient_norm",
        "time/seconds_per_step",
        "time/seconds_waiting_for_batch",
        "eval/recall",
    }
    rate = settings().optimiser.learning_rate_at
    for step, value in found["train/learning_rate"].items():
        assert value == pytest.approx(rate(step - 1, 9))
    for step, value in found["train/loss"].items():
        parts = found["train/square"][step] + found["train/sign"].get(step, 0.0)
        assert value == pytest.approx(parts, rel=1e-5)


def test_an_evaluation_changes_nothing(tmp_path):
    def evaluate(model):
        torch.rand(3)
        return {"loss": model(batches(999))["square"].item()}

    assert_equal(train(tmp_path / "a"), train(tmp_path / "b", evaluate=evaluate))


def test_a_finished_run_trains_no_further(tmp_path):
    done = train(tmp_path)
    written = {path: path.stat().st_mtime_ns for path in tmp_path.iterdir()}
    again = train(tmp_path, source=killed_before(0))
    assert again.num_passes == 0
    assert not again.training
    assert_equal(done, again)
    assert {path: path.stat().st_mtime_ns for path in tmp_path.iterdir()} == written
    (tmp_path / "model.safetensors").unlink()  # as a kill after the last checkpoint leaves it
    train(tmp_path, source=killed_before(0))
    assert (tmp_path / "model.safetensors").exists()


def test_weights_are_left_as_safetensors(tmp_path):
    model = train(tmp_path)
    loaded = Toy(seed=5)
    load_model(loaded, tmp_path / "model.safetensors")
    assert_equal(model, loaded)
    assert loaded.sign.bias is loaded.out.bias


@pytest.mark.parametrize(
    "changes",
    [{"seed": 1}, {"num_steps": 9}, {"optimiser": OptimiserConfig(weight_decay=0.1)}],
)
def test_a_folder_of_other_settings_is_refused(tmp_path, changes):
    train(tmp_path)
    with pytest.raises(ValueError, match="run with other settings"):
        train(tmp_path, settings(**changes))


def test_a_folder_of_another_model_is_refused(tmp_path):
    train(tmp_path)
    with pytest.raises(ValueError, match="run with other settings"):
        train(tmp_path, model=Toy(width=5))


def test_how_often_to_log_and_who_draws_are_not_settings_of_the_run(tmp_path):
    train(tmp_path)
    train(tmp_path, settings(log_interval=3, num_workers=1))


def test_a_loss_that_is_not_finite_stops_before_it_reaches_a_checkpoint(tmp_path):
    def source(step):
        batch = batches(step)
        return Batch(batch.inputs, batch.targets * math.nan) if step == 5 else batch

    with pytest.raises(FloatingPointError, match="step 5"):
        train(tmp_path / "a", source=source)
    state = torch.load(tmp_path / "a" / "checkpoint.pt", weights_only=True)
    assert state["step"] == 3
    assert all(tensor.isfinite().all() for tensor in state["model"].values())
    assert_equal(train(tmp_path / "a"), train(tmp_path / "b"))


def test_frozen_weights_stay(tmp_path):
    model = Toy()
    model.hidden.requires_grad_(False)
    train(tmp_path, model=model)
    assert torch.equal(model.hidden.weight, Toy().hidden.weight)
    assert not torch.equal(model.out.weight, Toy().out.weight)


def test_an_accelerator_may_be_given_but_no_precision_with_it(tmp_path, monkeypatch):
    accelerator = Accelerator(mixed_precision="no")
    expected = train(tmp_path / "a")
    assert_equal(expected, train(tmp_path / "b", accelerator=accelerator))
    monkeypatch.setattr(Accelerator, "mixed_precision", "bf16")
    with pytest.raises(ValueError, match="mixed_precision='bf16', expected 'no'"):
        train(tmp_path / "c", accelerator=accelerator)


def test_processes_that_did_not_meet_are_an_error(tmp_path, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    Accelerator(mixed_precision="no")  # this one alone
    with pytest.raises(RuntimeError, match="got 1 process, expected the 2 that were started"):
        train(tmp_path)


class Two(nn.Module):
    """The mean of the losses of two batches: what two processes train on together."""

    def __init__(self):
        super().__init__()
        self.toy = Toy(dropout=0.0)

    def forward(self, batch):
        losses = [self.toy(batch[side]) for side in ("left", "right")]
        return {"both": sum(sum(of.values()) for of in losses) / 2}


def train_as_one_of_two(folder, port, rank):
    AcceleratorState._reset_state(reset_partial_state=True)
    os.environ |= {
        "OMP_NUM_THREADS": "1",  # accelerate warns where it is not said
        "WORLD_SIZE": "2",
        "RANK": str(rank),
        "LOCAL_RANK": str(rank),
        "LOCAL_WORLD_SIZE": "2",
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
    }
    evaluated = []

    def evaluate(model):
        evaluated.append(model)
        return {"rank": float(rank)}

    with pytest.raises(KilledError):
        train(folder, source=killed_before(10 + rank), model=Toy(dropout=0.0), evaluate=evaluate)
    model = train(folder, model=Toy(dropout=0.0), evaluate=evaluate)
    torch.save([model.state_dict(), len(evaluated)], folder / f"{rank}.pt")
    torch.distributed.destroy_process_group()


def test_two_processes_train_on_the_mean_of_their_batches(tmp_path):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    folder = tmp_path / "two"
    folder.mkdir()
    assert in_another_process(train_as_one_of_two, folder, port, more=[(0,), (1,)]) == [0, 0]
    (first, num_first), (second, num_second) = (
        torch.load(folder / f"{rank}.pt", weights_only=True) for rank in (0, 1)
    )
    assert (num_first, num_second) == (3, 0)  # steps 4, again 4, and 8
    assert scalars(folder)["eval/rank"] == {4: 0.0, 8: 0.0}

    def source(step):
        return {"left": batches(2 * step), "right": batches(2 * step + 1)}

    alone = train(tmp_path / "one", source=source, model=Two()).toy.state_dict()
    for name, weights in alone.items():
        assert torch.equal(first[name], second[name])
        torch.testing.assert_close(first[name], weights)


def loop_recall(queries, keys, is_true, k):
    hits = []
    for query, true in zip(queries, is_true, strict=True):
        if not true.any():
            continue
        # The false keys before the true ones among equals: the worst order there is.
        order = sorted(range(len(keys)), key=lambda j: (-float(query @ keys[j]), bool(true[j])))
        hits.append(any(true[j] for j in order[:k]))
    return sum(hits) / len(hits)


@examples(max_examples=40)
@given(st.integers(0, 999), st.integers(1, 7), st.integers(2, 4))
def test_recall_is_its_definition(seed, k, num_levels):
    generator = torch.Generator().manual_seed(seed)
    queries = torch.randint(num_levels, (5, 2), generator=generator).float()  # with ties
    keys = torch.randint(num_levels, (6, 2), generator=generator).float()
    is_true = torch.rand(5, 6, generator=generator) < 0.3
    is_true[0, 0] = True
    expected = loop_recall(queries, keys, is_true, k)
    assert retrieval_recall(queries, keys, is_true, k) == pytest.approx(expected)


def test_recall_of_one_vector_for_everything_is_zero():
    same = torch.ones(4, 2)
    assert retrieval_recall(same, same, torch.eye(4).bool(), 3) == 0.0
    assert retrieval_recall(same * math.nan, same, torch.eye(4).bool(), 3) == 0.0
    assert retrieval_recall(same, same, torch.eye(4).bool(), 4) == 1.0


def test_recall_of_nothing_is_an_error():
    with pytest.raises(ValueError, match="k=0"):
        retrieval_recall(torch.eye(2), torch.eye(2), torch.eye(2).bool(), 0)
    with pytest.raises(ValueError, match="2 queries without a true key"):
        retrieval_recall(torch.eye(2), torch.eye(2), torch.zeros(2, 2).bool(), 1)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"num_steps": 0}, "num_steps=0, expected at least 1"),
        ({"log_interval": 0}, "log_interval=0"),
        ({"num_workers": -1}, "num_workers=-1"),
        ({"max_gradient_norm": 0.0}, "max_gradient_norm=0.0"),
        ({"precision": "fp16"}, "fp16"),
    ],
)
def test_settings_out_of_range_are_named(changes, message):
    with pytest.raises((ValueError, TypeError), match=message):  # annotations are checked in tests
        settings(**changes)
