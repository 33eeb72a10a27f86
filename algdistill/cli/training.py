"""``algdistill train``: distil stored learning histories into a model."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import torch
from tyro.conf import Positional, arg

from algdistill.agents import InContextAgent
from algdistill.cli.devices import check_device
from algdistill.cli.named_tasks import VALIDATING, Named, NamedTasks, random_streams
from algdistill.cli.output import MESSAGES, write_json
from algdistill.evaluation import evaluate_in_context
from algdistill.histories import HistoryStore, StoreWindowSampler, WindowSampler
from algdistill.histories.windows import WindowSource
from algdistill.models import ADTransformer, ADTransformerConfig, FrameEncoderConfig
from algdistill.tasks import BatchedTasks, TaskSpace
from algdistill.training import SELECTION_METRIC, Trainer, TrainingConfig


@dataclass(frozen=True)
class ModelOptions:
    """Shape of the model; see `algdistill.models.ADTransformerConfig`.

    Attributes:
        context_length: Time steps of the context and of training windows.
        embed_dim: Width of a token.
        num_layers: Transformer blocks.
        num_heads: Attention heads; they divide the width.
        mlp_dim: Width of the hidden layer of each block's MLP.
        norm: Norm before attention and MLP, or after them.
        positions: A vector for each place of the context, or rotary positions.
        tokens_per_step: One token for a time step, or three.
        dropout: In the residual stream.
        frames: Shape of the encoder of frames, where tasks show frames.
    """

    context_length: int
    embed_dim: int = ADTransformerConfig.embed_dim
    num_layers: int = ADTransformerConfig.num_layers
    num_heads: int = ADTransformerConfig.num_heads
    mlp_dim: int = ADTransformerConfig.mlp_dim
    norm: Literal["pre", "post"] = "pre"
    positions: Literal["learned", "rotary"] = "learned"
    tokens_per_step: Literal[1, 3] = 1
    dropout: float = ADTransformerConfig.dropout
    frames: FrameEncoderConfig = field(default_factory=FrameEncoderConfig)

    def for_space(self, space: TaskSpace) -> ADTransformerConfig:
        """The configuration of a model for some tasks."""
        return ADTransformerConfig(space, **vars(self))


@dataclass(frozen=True)
class WindowOptions:
    """Which windows are trained on; see `algdistill.histories.WindowSampler`.

    Attributes:
        start_fraction: Share of windows that start at the beginning of a history.
        keep_every: Train on every so many whole episodes only.
        num_blocks: Blocks of the store to hold in memory; without it the whole store.
    """

    start_fraction: float = 0.2
    keep_every: int = 1
    num_blocks: int | None = None

    def sampler(self, store: HistoryStore, window_length: int, seed: int) -> WindowSource:
        """What draws windows from a store."""
        settings: dict[str, Any] = {
            "window_length": window_length,
            "start_fraction": self.start_fraction,
            "keep_every": self.keep_every,
            "generator": np.random.default_rng(seed),
        }
        if self.num_blocks is None:
            return WindowSampler(store.read(), **settings)
        return StoreWindowSampler(store, num_blocks=self.num_blocks, **settings)


@dataclass(frozen=True)
class Validation:
    """How models are compared while one is trained, on the tasks that are named.

    Attributes:
        validation_episodes: In-context episodes in each task; the second half of them counts.
        validation_repeats: How often each task is learned.
    """

    validation_episodes: int = 50
    validation_repeats: int = 8

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if value < 1:
                raise ValueError(f"got {name}={value}, expected at least 1")

    def tasks(self, named: NamedTasks, device: str) -> BatchedTasks:
        """The tasks, the same in every run."""
        ids = named.ids(device).repeat_interleave(self.validation_repeats)
        return named.make(ids, random_streams(0, VALIDATING, len(ids), device))

    def measure(self, model: ADTransformer, tasks: BatchedTasks) -> dict[str, float]:
        """Let a frozen model learn in context."""
        agent = InContextAgent(
            model, drop_length=min(tasks.episode_length, model.config.context_length)
        )
        generator = torch.Generator(model.device).manual_seed(0)
        returns = evaluate_in_context(
            agent, tasks, num_episodes=self.validation_episodes, generator=generator
        ).env_returns
        return {SELECTION_METRIC: float(returns[:, self.validation_episodes // 2 :].mean())}


_TRAINING, _WINDOWS, _VALIDATION = TrainingConfig(), WindowOptions(), Validation()


def train(
    store: Positional[Path],
    run: Positional[Path],
    *,
    named: Named,
    model: Annotated[ModelOptions, arg(name="")],
    training: Annotated[TrainingConfig, arg(name="")] = _TRAINING,
    windows: Annotated[WindowOptions, arg(name="")] = _WINDOWS,
    validation: Annotated[Validation, arg(name="")] = _VALIDATION,
    seed: int = 0,
    device: str = "cpu",
) -> None:
    """Distil the learning histories of a store into a model.

    The tasks that are named are for validation: the model that learns them best in context is kept.
    Typed again after a kill, the same command continues.

    Args:
        store: Folder of the store.
        run: Folder for the model, checkpoints, TensorBoard events and `summary.json`.
        named: Tasks for validation.
        model: Shape of the model.
        training: How it is trained.
        windows: What it is trained on.
        validation: How it is validated.
        seed: Of the weights, the windows and what is masked.
        device: Where the model and the tasks are.
    """
    check_device(device)
    histories = HistoryStore.open(store)
    tasks = validation.tasks(named, device)
    if TaskSpace.of(tasks) != histories.space:
        raise ValueError(
            f"got tasks of {TaskSpace.of(tasks)}, expected those of {store}: {histories.space}"
        )
    learned = sorted(set(histories.task_ids().tolist()))
    if shared := sorted(set(named.ids().tolist()) & set(learned)):
        MESSAGES.print(
            f"Warning: validation tasks {shared} are among those trained on: the model chosen by "
            "them may only remember them.",
            style="yellow",
        )
    generator = torch.Generator().manual_seed(seed)
    network = ADTransformer(model.for_space(histories.space), generator).to(device)
    settings = {
        "num_histories": len(histories),
        "source": histories.metadata,
        "train_task_ids": learned,
        "model": network.config.to_dict(),
        "training": asdict(training),
        "windows": asdict(windows),
        "validation": {**asdict(named), **asdict(validation)},
        "seed": seed,
    }
    trainer = Trainer(
        network,
        windows.sampler(histories, model.context_length, seed),
        training,
        run,
        evaluate=lambda trained: validation.measure(trained, tasks),
        generator=generator,
    )
    _keep(run / "settings.json", settings)
    result = trainer.train()
    found = {
        "best_model": result.best_model.name,
        "best_update": result.best_update,
        SELECTION_METRIC: result.best_metric,
    }
    write_json(run / "summary.json", {**found, **settings})
    print(
        f"{result.best_model}: return {result.best_metric:.3g} in validation tasks, after "
        f"{result.best_update} updates"
    )


def _keep(path: Path, settings: dict[str, Any]) -> None:
    """Write the settings of a run, or refuse to go on with other ones."""
    wanted = json.loads(json.dumps(settings))
    if not path.exists():
        write_json(path, wanted)
    elif (before := json.loads(path.read_text("utf-8"))) != wanted:
        differing = sorted(name for name in wanted if before.get(name) != wanted[name])
        raise ValueError(
            f"{path} is of a run with other settings ({', '.join(differing)}): choose another run "
            "folder, or remove this one"
        )
