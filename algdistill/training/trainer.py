"""Training with progress, TensorBoard, checkpoints that survive a kill, and exact resume.

In one process or in several, by accelerate: all draw the same windows, each trains on its share of
them, and the first one writes.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from accelerate.utils import broadcast_object_list
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from torch.utils.tensorboard import SummaryWriter

from algdistill.histories.windows import WindowSource
from algdistill.models.checkpoint import save_model
from algdistill.models.transformer import ADTransformer
from algdistill.spaces import Discrete
from algdistill.training.config import TrainingConfig
from algdistill.training.objective import Objective
from algdistill.training.processes import meet, own_share

SELECTION_METRIC = "eval/in_context_return"
"""What the best model is picked by: the loss says little about learning in context."""

Evaluate = Callable[[ADTransformer], Mapping[str, float]]
"""Measures a model on held-out tasks; returns metrics, `SELECTION_METRIC` among them."""


@dataclass(frozen=True)
class TrainingResult:
    """What training left behind.

    Attributes:
        best_model: File of the model of the highest `SELECTION_METRIC`.
        best_metric: That metric.
        best_update: After how many updates it was measured.
    """

    best_model: Path
    best_metric: float
    best_update: int


class Trainer:
    """Distils learning histories into ``model``, where the model is: on a CPU or a GPU.

    The run folder holds ``best.safetensors`` (see `algdistill.models.load_model`),
    ``checkpoint.pt`` to resume from, and TensorBoard events. Training that was killed continues
    from its last checkpoint, bit for bit as if it had not been on a CPU.

    Of the processes that ``torchrun`` or ``accelerate launch`` started, each makes the same trainer
    with the model on a device of its own. A batch is shared among them; whatever their number, it
    is the same batch. Only the first evaluates and writes.

    Args:
        model: Trained in place.
        sampler: Where windows come from; as long as the model's context or shorter.
        config: Settings of training.
        run_dir: Folder of the run, one for all processes.
        evaluate: Measures a model on tasks that are neither trained on nor reported on.
        generator: Draws which tokens are hidden, and what is dropped out; on the CPU.

    Raises:
        ValueError: If the sampler's spaces or windows do not fit the model, or the batch cannot be
            shared evenly.
        RuntimeError: If other processes were started as well, but have not met this one.
    """

    def __init__(
        self,
        model: ADTransformer,
        sampler: WindowSource,
        config: TrainingConfig,
        run_dir: Path,
        *,
        evaluate: Evaluate,
        generator: torch.Generator,
    ) -> None:
        if sampler.space != model.config.space:
            raise ValueError(
                f"got histories of {sampler.space}, expected the model's {model.config.space}"
            )
        if sampler.window_length > model.config.context_length:
            raise ValueError(
                f"got windows of {sampler.window_length} steps, expected at most the model's "
                f"context_length={model.config.context_length}"
            )
        self._accelerator = meet(on_cpu=model.device.type == "cpu")
        if config.batch_size % self._accelerator.num_processes:
            raise ValueError(
                f"got batch_size={config.batch_size}, expected a multiple of the "
                f"{self._accelerator.num_processes} processes"
            )
        self.model = model
        self.sampler = sampler
        self.config = config
        self.run_dir = run_dir
        self._evaluate = evaluate
        self._generator = generator
        self._optimizer = torch.optim.AdamW(
            model.parameters(),
            lr=config.learning_rate,
            betas=(0.9, 0.99),
            weight_decay=config.weight_decay,
            fused=True,
        )
        self._objective = self._accelerator.prepare_model(
            Objective(model, config.label_smoothing, config.precision)
        )
        self._num_updates = 0
        self._num_targets = 0
        self._seconds = 0.0
        self._best_metric = float("-inf")
        self._best_update = 0

    @property
    def best_model(self) -> Path:
        """File of the best model so far."""
        return self.run_dir / "best.safetensors"

    @property
    def _checkpoint(self) -> Path:
        return self.run_dir / "checkpoint.pt"

    def train(self) -> TrainingResult:
        """Train to ``num_updates``, from the last checkpoint if the run folder has one.

        Raises:
            ValueError: If the checkpoint is of other settings, or the evaluation does not return
                `SELECTION_METRIC`.
        """
        self.run_dir.mkdir(parents=True, exist_ok=True)
        if self._checkpoint.exists():
            self._resume()
        columns = (TextColumn("{task.description}"), BarColumn(), TimeRemainingColumn())
        is_first = self._accelerator.is_main_process
        shown = Progress(*columns, console=Console(stderr=True), disable=not is_first)
        with self._writer() as writer, shown as progress:
            bar = progress.add_task(
                "distil", total=self.config.num_updates, completed=self._num_updates
            )
            while self._num_updates < self.config.num_updates:
                loss = self._update(writer)
                progress.update(bar, advance=1, description=f"distil · loss {loss:.3f}")
                finished = self._num_updates == self.config.num_updates
                if finished or self._num_updates % self.config.evaluate_every == 0:
                    if writer is not None:
                        self._measure(writer)
                        self._save()
                    self._agree()
        return TrainingResult(self.best_model, self._best_metric, self._best_update)

    def _writer(self) -> AbstractContextManager[SummaryWriter | None]:
        """Where metrics go: nowhere, in all processes but the first."""
        if not self._accelerator.is_main_process:
            return nullcontext()
        return SummaryWriter(str(self.run_dir), purge_step=self._num_updates + 1)

    def _agree(self) -> None:
        """Wait for the first process, and learn what it found to be best."""
        best = broadcast_object_list([self._best_metric, self._best_update])
        self._best_metric, self._best_update = best

    def _update(self, writer: SummaryWriter | None) -> float:
        """One optimiser step; returns the loss."""
        began = time.perf_counter()
        learning_rate = self.config.learning_rate_at(self._num_updates)
        for group in self._optimizer.param_groups:
            group["lr"] = learning_rate
        batch = self.sampler.sample(self.config.batch_size)
        draws = torch.rand(batch.actions.shape[:2], generator=self._generator)
        masked = draws < self.config.token_mask_rate
        batch, masked, weight = own_share(self._accelerator, batch, masked)
        device = self.model.device
        loss, accuracy = self._objective(
            batch.to(device), masked.to(device), self._dropout_generator()
        )
        loss = weight * loss
        self._optimizer.zero_grad()
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(
            self.model.parameters(), self.config.max_gradient_norm
        )
        self._optimizer.step()
        # Weighted, the mean over processes is the mean over all steps that are not masked.
        figures = torch.stack([loss.detach(), weight * accuracy])
        mean_loss, mean_accuracy = self._accelerator.reduce(figures, "mean").tolist()
        self._num_updates += 1
        self._num_targets += draws.numel()
        self._seconds += time.perf_counter() - began
        if writer is not None and self._num_updates % self.config.log_every == 0:
            is_discrete = isinstance(self.sampler.space.actions, Discrete)
            for name, value in (
                ("train/loss", mean_loss),
                ("train/accuracy" if is_discrete else "train/action_error", mean_accuracy),
                ("train/gradient_norm", norm.item()),
                ("train/learning_rate", learning_rate),
                ("time/targets_per_second", self._num_targets / self._seconds),
            ):
                writer.add_scalar(name, value, self._num_updates)
        return float(mean_loss)

    def _dropout_generator(self) -> torch.Generator | None:
        """What draws the dropout of an update, another in each process."""
        if self.model.config.dropout == 0.0:
            return None
        seed = int(torch.randint(2**62, (), generator=self._generator))
        generator = torch.Generator(self.model.device)
        return generator.manual_seed(seed + self._accelerator.process_index)

    def _measure(self, writer: SummaryWriter) -> None:
        """Evaluate on held-out tasks, and keep the model if none was better."""
        metrics = self._evaluate(self.model)
        if SELECTION_METRIC not in metrics:
            raise ValueError(
                f"got metrics {sorted(metrics)}, expected {SELECTION_METRIC!r} among them: the "
                "best model is picked by it"
            )
        for name, value in metrics.items():
            writer.add_scalar(name, value, self._num_updates)
        if metrics[SELECTION_METRIC] > self._best_metric:
            self._best_metric = float(metrics[SELECTION_METRIC])
            self._best_update = self._num_updates
            save_model(self.model, self.best_model)

    def _identity(self) -> str:
        """What must be the same for a checkpoint to be continued."""
        settings = {
            "training": asdict(self.config),
            "model": self.model.config.to_dict(),
            "window_length": self.sampler.window_length,
            "num_steps_of_histories": self.sampler.num_steps,
        }
        return json.dumps(settings, sort_keys=True)

    def _save(self) -> None:
        """Write everything needed to continue; a kill leaves the old file or the new one."""
        state = {
            "identity": self._identity(),
            "num_updates": self._num_updates,
            "num_targets": self._num_targets,
            "seconds": self._seconds,
            "best_metric": self._best_metric,
            "best_update": self._best_update,
            "model": self.model.state_dict(),
            "optimizer": self._optimizer.state_dict(),
            "sampler": json.dumps(self.sampler.state_dict()),
            "generator": self._generator.get_state(),
        }
        unfinished = self._checkpoint.with_suffix(".partial")
        torch.save(state, unfinished)
        os.replace(unfinished, self._checkpoint)

    def _resume(self) -> None:
        """Continue from the last checkpoint."""
        state: dict[str, Any] = torch.load(
            self._checkpoint, map_location=self.model.device, weights_only=True
        )
        if state["identity"] != self._identity():
            raise ValueError(
                f"{self._checkpoint} is of a run with other settings:\n{state['identity']}\n"
                f"expected\n{self._identity()}\nchoose another run folder, or remove this one"
            )
        self.model.load_state_dict(state["model"])
        self._optimizer.load_state_dict(state["optimizer"])
        self.sampler.load_state_dict(json.loads(state["sampler"]))
        self._generator.set_state(state["generator"].cpu())
        self._num_updates = state["num_updates"]
        self._num_targets = state["num_targets"]
        self._seconds = state["seconds"]
        self._best_metric = state["best_metric"]
        self._best_update = state["best_update"]
