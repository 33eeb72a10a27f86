"""Training with progress, TensorBoard, checkpoints that survive a kill, and exact resume.

In one process or in several, by accelerate: each trains on batches of its own, gradients are their
mean, and the first one evaluates and writes.

Axis letters: ``Q`` queries, ``N`` keys, ``D`` width.
"""

from __future__ import annotations

import dataclasses
import json
import math
import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeVar, get_args

import numpy as np
import torch
from accelerate import Accelerator, DistributedDataParallelKwargs
from jaxtyping import Bool, Float
from rich.console import Console
from rich.progress import Progress, TextColumn
from safetensors.torch import save_model
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset
from torch.utils.tensorboard import SummaryWriter

from vlmreward.backbone.optimisers import OptimiserConfig, make_optimiser

Batches = Callable[[int], Any]
"""The batch of a step: a function of the step alone, so that a resumed run sees the same ones."""

Evaluate = Callable[[nn.Module], Mapping[str, float]]
"""Measures a model that is in evaluation mode; its metrics are logged under ``eval/``."""

Precision = Literal["fp32", "bf16"]
Model = TypeVar("Model", bound=nn.Module)

_CHECKPOINT = "checkpoint.pt"
_WEIGHTS = "model.safetensors"
_NOT_SETTINGS = ("num_workers", "log_interval")  # change nothing of what is trained


@dataclass(frozen=True)
class BackboneTrainingConfig:
    """How to train; what is trained, and on what, are arguments of `train_backbone`.

    Attributes:
        num_steps: Gradient steps.
        optimiser: How to follow the gradient.
        max_gradient_norm: Gradients are scaled down to this norm.
        precision: What products of matrices are computed in: ``"fp32"``, ``"bf16"``, or by default
            bfloat16 on GPUs that have it and float32 elsewhere. Weights and optimiser are float32.
        seed: Of what the model draws from torch's own generator while it trains, as `nn.Dropout`
            does. Weights and batches have generators of their own.
        num_workers: Processes that draw batches ahead; with 0, they are drawn in this one. The
            batches are the same.
        checkpoint_interval: Steps between checkpoints; what a kill can lose.
        evaluation_interval: Steps between evaluations.
        log_interval: Steps between logged training metrics.

    Raises:
        ValueError: If a value is out of its range.
    """

    num_steps: int = 4000
    optimiser: OptimiserConfig = field(default_factory=OptimiserConfig)
    max_gradient_norm: float = 1.0
    precision: Precision | None = None
    seed: int = 0
    num_workers: int = 0
    checkpoint_interval: int = 200
    evaluation_interval: int = 500
    log_interval: int = 10

    def __post_init__(self) -> None:
        for name in ("num_steps", "checkpoint_interval", "evaluation_interval", "log_interval"):
            if getattr(self, name) < 1:
                raise ValueError(f"got {name}={getattr(self, name)}, expected at least 1")
        for name in ("seed", "num_workers"):
            if getattr(self, name) < 0:
                raise ValueError(f"got {name}={getattr(self, name)}, expected 0 or more")
        if not self.max_gradient_norm > 0:
            raise ValueError(
                f"got max_gradient_norm={self.max_gradient_norm}, expected a positive number"
            )
        if self.precision not in (None, *get_args(Precision)):
            raise ValueError(
                f"got precision={self.precision!r}, expected one of {get_args(Precision)} or None"
            )

    def uses_bfloat16(self, device: torch.device) -> bool:
        """Whether products of matrices are computed in bfloat16 there."""
        if self.precision is not None:
            return self.precision == "bf16"
        return device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)


def train_backbone(
    model: Model,
    batches: Batches,
    config: BackboneTrainingConfig,
    run_dir: Path,
    *,
    evaluate: Evaluate | None,
    accelerator: Accelerator | None = None,
) -> Model:
    """Train a model in place; a run that was killed goes on from its last checkpoint.

    A resumed run equals one that was never stopped: bit for bit on a CPU with the same number of
    threads; GPU kernels may differ.

    Of P processes that a launcher started, each makes the same model. Process p trains on batches
    ``P * step + p``, so P processes see P times as many rows a step, and contrast only rows of one
    batch with each other.

    Args:
        model: Takes a batch and returns named losses, a scalar each, which are added up. It is
            trained where it is, or where the accelerator puts it.
        batches: The batch of each step: a dataclass or a mapping of tensors, on the CPU. It must be
            picklable where worker processes draw them and are not forked.
        config: How to train.
        run_dir: Folder of the run: a checkpoint to resume from, TensorBoard events (``train/``,
            ``eval/``, ``time/``), and at the end ``model.safetensors``, which
            `safetensors.torch.load_model` reads.
        evaluate: Called now and then and at the end.
        accelerator: Brings several processes together; by default those that a launcher started.

    Returns:
        The model, in evaluation mode.

    Raises:
        FloatingPointError: If a loss or a gradient is not finite; the last checkpoint is from
            before.
        RuntimeError: If other processes were started as well, but have not met this one.
        ValueError: If the run folder holds a run with other settings, or the accelerator has a
            precision of its own.
    """
    run_dir.mkdir(parents=True, exist_ok=True)
    run = _Run(model, config, accelerator or _meet(model))
    run.resume(run_dir / _CHECKPOINT)
    if run.step == config.num_steps and (run_dir / _WEIGHTS).exists():
        return model.eval()  # several processes may read one finished run
    is_main = run.accelerator.is_main_process
    columns = (*Progress.get_default_columns(), TextColumn("{task.fields[status]}"))
    progress = Progress(*columns, console=Console(stderr=True), disable=not is_main)
    with _writer(run_dir, run) as writer, progress:
        bar = progress.add_task("train", total=config.num_steps, completed=run.step, status="")
        began = time.perf_counter()
        for batch in _batches_ahead(batches, run):
            drawn = time.perf_counter()
            metrics = run.train_step(batch)
            metrics["time/seconds_waiting_for_batch"] = drawn - began
            metrics["time/seconds_per_step"] = time.perf_counter() - began
            progress.update(bar, completed=run.step, status=f"loss {metrics['train/loss']:.3f}")
            is_last = run.step == config.num_steps
            if not is_last and run.step % config.log_interval:
                metrics = {}
            if is_last or run.step % config.evaluation_interval == 0:
                metrics |= run.measure(evaluate)
            if writer is not None:
                for name, value in metrics.items():
                    writer.add_scalar(name, value, run.step)
                if is_last or run.step % config.checkpoint_interval == 0:
                    writer.flush()  # what a kill after the checkpoint must not lose
                    run.save(run_dir / _CHECKPOINT)
            began = time.perf_counter()
    if is_main:
        _replace(run_dir / _WEIGHTS, lambda path: save_model(model, str(path)))
    run.accelerator.wait_for_everyone()
    return model.eval()


class _Run:
    """Model, optimiser and step count: what a checkpoint holds."""

    def __init__(
        self, model: nn.Module, config: BackboneTrainingConfig, accelerator: Accelerator
    ) -> None:
        if accelerator.mixed_precision != "no":
            raise ValueError(
                f"got an accelerator of mixed_precision={accelerator.mixed_precision!r}, expected "
                "'no': BackboneTrainingConfig says how precisely"
            )
        self.model = model
        self.config = config
        self.accelerator = accelerator
        self.step = 0
        self._parallel: nn.Module = accelerator.prepare_model(model)
        self._optimiser = make_optimiser(model.named_parameters(), config.optimiser)
        self._trained = [weights for weights in model.parameters() if weights.requires_grad]
        self._device = self._trained[0].device

    def train_step(self, batch: Any) -> dict[str, float]:
        """One optimiser step; returns the metrics of this process."""
        config = self.config
        learning_rate = config.optimiser.learning_rate_at(self.step, config.num_steps)
        for group in self._optimiser.param_groups:
            group["lr"] = learning_rate
        self.model.train()
        self._optimiser.zero_grad(set_to_none=True)
        use_bfloat16 = config.uses_bfloat16(self._device)
        with self._own_random_numbers():
            with torch.autocast(self._device.type, torch.bfloat16, enabled=use_bfloat16):
                losses: Mapping[str, Tensor] = self._parallel(_moved(batch, self._device))
            total = torch.stack([loss.float() for loss in losses.values()]).sum()
            self.accelerator.backward(total)
        norm = self.accelerator.clip_grad_norm_(self._trained, config.max_gradient_norm)
        metrics = {f"train/{name}": loss.item() for name, loss in losses.items()}
        metrics |= {"train/loss": total.item(), "train/gradient_norm": float(norm)}
        if not all(math.isfinite(value) for value in metrics.values()):
            raise FloatingPointError(
                f"got {metrics} in step {self.step}, expected finite numbers: look at its batch, "
                "or lower the learning rate"
            )
        self._optimiser.step()
        self.step += 1
        return metrics | {"train/learning_rate": learning_rate}

    @contextmanager
    def _own_random_numbers(self) -> Iterator[None]:
        """Make torch's own generators a function of the step, and put them back afterwards."""
        key = (self.config.seed, self.step, self.accelerator.process_index)
        devices = [self._device] if self._device.type == "cuda" else []
        with torch.random.fork_rng(devices):
            torch.manual_seed(int(np.random.SeedSequence(key).generate_state(1, np.uint64)[0]))
            yield

    def measure(self, evaluate: Evaluate | None) -> dict[str, float]:
        """Evaluate in the first process, while the others wait."""
        found: Mapping[str, float] = {}
        if evaluate is not None and self.accelerator.is_main_process:
            found = evaluate(self.model.eval())
        self.accelerator.wait_for_everyone()
        return {f"eval/{name}": value for name, value in found.items()}

    def _identity(self) -> str:
        """What must be the same for a checkpoint to be continued."""
        settings = asdict(self.config)
        for name in _NOT_SETTINGS:
            del settings[name]
        settings["num_processes"] = self.accelerator.num_processes
        settings["weights"] = {
            name: list(tensor.shape) for name, tensor in self.model.state_dict().items()
        }
        return json.dumps(settings, sort_keys=True)

    def save(self, path: Path) -> None:
        """Write everything needed to continue; a kill leaves the old file or the new one."""
        state = {
            "identity": self._identity(),
            "step": self.step,
            "model": self.model.state_dict(),
            "optimiser": self._optimiser.state_dict(),
        }
        _replace(path, lambda unfinished: torch.save(state, unfinished))

    def resume(self, path: Path) -> None:
        """Continue from the last checkpoint, if there is one."""
        if not path.exists():
            return
        state = torch.load(path, map_location=self._device, weights_only=True)
        if state["identity"] != self._identity():
            raise ValueError(
                f"{path} is of a run with other settings:\n{state['identity']}\nexpected\n"
                f"{self._identity()}\nuse another run folder, or delete this one"
            )
        self.model.load_state_dict(state["model"])
        self._optimiser.load_state_dict(state["optimiser"])
        self.step = state["step"]


class _Steps(Dataset[Any]):
    """The batch of every step, for workers to draw."""

    def __init__(self, batches: Batches) -> None:
        self._batches = batches

    def __getitem__(self, step: int) -> Any:
        return self._batches(step)


def _batches_ahead(batches: Batches, run: _Run) -> DataLoader[Any]:
    """This process's batches of the steps that are left."""
    num_processes = run.accelerator.num_processes
    first = num_processes * run.step + run.accelerator.process_index
    return DataLoader(
        _Steps(batches),
        batch_size=None,
        sampler=range(first, num_processes * run.config.num_steps, num_processes),
        num_workers=run.config.num_workers,
        collate_fn=_unchanged,
        generator=torch.Generator(),  # draws nothing that matters, but from nobody else's
    )


def _unchanged(batch: Any) -> Any:
    return batch


def _writer(run_dir: Path, run: _Run) -> AbstractContextManager[SummaryWriter | None]:
    """Where metrics go: nowhere, in all processes but the first."""
    if not run.accelerator.is_main_process:
        return nullcontext()
    return SummaryWriter(str(run_dir), purge_step=run.step + 1)


def _meet(model: nn.Module) -> Accelerator:
    """Bring together the processes that a launcher started, or this one alone."""
    num_launched = int(os.environ.get("WORLD_SIZE", "1"))
    on_cpu = next(model.parameters()).device.type == "cpu"
    # A batch without sounds has no gradient for what hears.
    unused = DistributedDataParallelKwargs(find_unused_parameters=True)
    accelerator = Accelerator(
        device_placement=False,
        mixed_precision="no",  # the configuration says so, not accelerate
        cpu=on_cpu and num_launched > 1,
        kwargs_handlers=[unused],
    )
    if accelerator.num_processes != num_launched:
        raise RuntimeError(
            f"got {accelerator.num_processes} process, expected the {num_launched} that were "
            "started: on a CPU, any earlier `PartialState` or `Accelerator` needs cpu=True"
        )
    return accelerator


def _moved(batch: Any, device: torch.device) -> Any:
    """The same batch with its tensors on a device."""
    if isinstance(batch, Tensor):
        return batch.to(device)
    if isinstance(batch, Mapping):
        return {name: _moved(value, device) for name, value in batch.items()}
    if dataclasses.is_dataclass(batch) and not isinstance(batch, type):
        moved = {
            item.name: _moved(getattr(batch, item.name), device)
            for item in dataclasses.fields(batch)
        }
        return dataclasses.replace(batch, **moved)
    return batch


def _replace(path: Path, write: Callable[[Path], Any]) -> None:
    unfinished = path.with_suffix(".partial")
    write(unfinished)
    os.replace(unfinished, path)


def retrieval_recall(
    queries: Float[Tensor, "Q D"], keys: Float[Tensor, "N D"], is_true: Bool[Tensor, "Q N"], k: int
) -> float:
    """Return the share of queries that find a true key among their k most similar ones.

    A false key that is exactly as similar counts as found before, so that a model that makes one
    vector of everything finds nothing. Queries without a true key are left out.

    Args:
        queries: Unit vectors of one stream.
        keys: Unit vectors of another one, or of texts.
        is_true: Which keys are true of which query.
        k: How many keys are looked at, at least 1.

    Raises:
        ValueError: If k is below 1, or no query has a true key.

    Example:
        >>> queries, keys = torch.eye(2), torch.tensor([[1.0, 0.0], [0.8, 0.6]])
        >>> retrieval_recall(queries, keys, torch.eye(2).bool(), k=1)
        1.0
        >>> retrieval_recall(queries, keys.flip(0), torch.eye(2).bool(), k=1)
        0.0
    """
    if k < 1:
        raise ValueError(f"got k={k}, expected at least 1")
    has_true = is_true.any(dim=1)
    if not bool(has_true.any()):
        raise ValueError(
            f"got {len(queries)} queries without a true key, expected one that has any"
        )
    similarities = queries.float() @ keys.float().T
    best = similarities.masked_fill(~is_true, -math.inf).amax(dim=1, keepdim=True)
    num_before = (~(similarities < best) & ~is_true).sum(dim=1)  # NaN comes before, too
    return (num_before < k)[has_true].float().mean().item()
