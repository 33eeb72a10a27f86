"""Trains an open_clip model on captioned frames."""

import math
import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from rich.progress import Progress, TextColumn
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from torch.utils.tensorboard import SummaryWriter

from vlmreward.encoders.open_clip import Tokenizer, build_model, build_tokenizer
from vlmreward.encoders.preprocess import Preprocessor
from vlmreward.pretraining.captions import CaptionSource, draw_texts
from vlmreward.pretraining.loss import multi_positive_contrastive_loss

_CHECKPOINT = "checkpoint.pt"
_MAX_LOGIT_SCALE = 100.0  # Radford et al. 2021, section 2.5


@dataclass(frozen=True)
class PretrainConfig:
    """How to train.

    Attributes:
        num_steps: Gradient steps.
        batch_size: Frames per step.
        captions_per_frame: True captions drawn per frame.
        near_misses_per_caption: Hard negatives drawn per caption.
        learning_rate: Peak of a linear warm-up followed by a cosine to zero.
        warmup_steps: Steps of the warm-up.
        weight_decay: AdamW's, on tensors with two or more axes.
        seed: Of the weights and of every batch.
        checkpoint_interval: Steps between checkpoints; what a kill can lose.
        evaluation_interval: Steps between evaluations.
        mixed_precision: Compute both towers in bfloat16 where that is safe; weights, optimiser and
            loss stay in float32.
    """

    num_steps: int = 4000
    batch_size: int = 256
    captions_per_frame: int = 2
    near_misses_per_caption: int = 2
    learning_rate: float = 2e-3
    warmup_steps: int = 200
    weight_decay: float = 0.05
    seed: int = 0
    checkpoint_interval: int = 200
    evaluation_interval: int = 500
    mixed_precision: bool = False

    def __post_init__(self) -> None:
        for name in ("num_steps", "batch_size", "captions_per_frame", "checkpoint_interval"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
        if self.learning_rate <= 0:
            raise ValueError(f"learning_rate must be positive, got {self.learning_rate}")

    def learning_rate_at(self, step: int) -> float:
        """Return the learning rate of gradient step ``step`` (from 0)."""
        if step < self.warmup_steps:
            return self.learning_rate * (step + 1) / self.warmup_steps
        done = (step - self.warmup_steps) / max(1, self.num_steps - self.warmup_steps)
        return self.learning_rate * 0.5 * (1 + math.cos(math.pi * done))


def pretrain(
    model_config: Mapping[str, Any],
    source: CaptionSource,
    config: PretrainConfig,
    run_dir: Path,
    *,
    evaluate: Callable[[torch.nn.Module], Mapping[str, float]] | None = None,
    device: torch.device | str = "cpu",
    num_workers: int = 0,
) -> torch.nn.Module:
    """Train a CLIP from scratch; a run that was killed goes on from its last checkpoint.

    Every batch is a function of the seed and the step alone, so a resumed run equals one that was
    never stopped (bit for bit on a CPU with the same number of threads; GPU kernels may differ).

    Args:
        model_config: An open_clip model configuration (what its ``model_configs/*.json`` hold).
        source: Draws captioned frames.
        config: How to train.
        run_dir: Checkpoints and TensorBoard events (``train/``, ``eval/``, ``time/``).
        evaluate: Called with the model in evaluation mode now and then and at the end; its
            metrics are logged under ``eval/``.
        device: Where to train.
        num_workers: Processes that draw batches ahead; with 0, they are drawn in this one. The
            batches are the same.

    Returns:
        The trained model, in evaluation mode.

    Raises:
        ValueError: ``run_dir`` holds a run with other settings.
    """
    run_dir.mkdir(parents=True, exist_ok=True)
    trainer = _Trainer(model_config, config, torch.device(device))
    trainer.resume(run_dir / _CHECKPOINT)
    batches = DataLoader(
        _Batches(source, config, _TokenTable(build_tokenizer(model_config))),
        batch_size=None,
        sampler=range(trainer.step, config.num_steps),
        num_workers=num_workers,
        generator=torch.Generator(),  # draws nothing that matters, but from nobody else's
    )
    progress = Progress(*Progress.get_default_columns(), TextColumn("{task.fields[status]}"))
    with SummaryWriter(str(run_dir), purge_step=trainer.step) as writer, progress:
        bar = progress.add_task(
            "training CLIP", total=config.num_steps, completed=trainer.step, status=""
        )
        started = time.perf_counter()
        for batch in batches:
            metrics = trainer.train_step(*batch)
            seconds = time.perf_counter() - started
            metrics["time/frames_per_second"] = config.batch_size / seconds
            is_last = trainer.step == config.num_steps
            if evaluate and (is_last or trainer.step % config.evaluation_interval == 0):
                found = evaluate(trainer.model.eval())
                metrics |= {f"eval/{name}": value for name, value in found.items()}
            for name, value in metrics.items():
                writer.add_scalar(name, value, trainer.step)
            if is_last or trainer.step % config.checkpoint_interval == 0:
                trainer.save(run_dir / _CHECKPOINT)
            progress.update(bar, completed=trainer.step, status=f"loss {metrics['train/loss']:.3f}")
            started = time.perf_counter()
    return cast(torch.nn.Module, trainer.model.eval())


class _Batches(Dataset[tuple[Tensor, Tensor, Tensor]]):
    """The batch of every step: frames, tokens of its texts, and which text is true of which."""

    def __init__(self, source: CaptionSource, config: PretrainConfig, tokens: "_TokenTable"):
        self._source = source
        self._config = config
        self._tokens = tokens

    def __getitem__(self, step: int) -> tuple[Tensor, Tensor, Tensor]:
        config = self._config
        rng = np.random.default_rng((config.seed, step))
        batch = self._source(config.batch_size, rng)
        texts = draw_texts(batch, config.captions_per_frame, config.near_misses_per_caption, rng)
        return batch.frames, self._tokens(texts.texts), texts.is_true


class _Trainer:
    """Model, optimiser and step count: what a checkpoint holds."""

    def __init__(
        self, model_config: Mapping[str, Any], config: PretrainConfig, device: torch.device
    ) -> None:
        self.config = config
        self.step = 0
        self.settings = {"model_config": dict(model_config), "config": asdict(config)}
        model: Any = build_model(model_config, seed=config.seed)
        self.model: Any = model.to(device).to(memory_format=torch.channels_last)
        self._device = device
        self._preprocess = Preprocessor.from_open_clip(self.model.visual.preprocess_cfg)
        matrices = [p for p in self.model.parameters() if p.ndim >= 2]
        vectors = [p for p in self.model.parameters() if p.ndim < 2]
        groups = [
            {"params": matrices, "weight_decay": config.weight_decay},
            {"params": vectors, "weight_decay": 0.0},
        ]
        self._optimizer = torch.optim.AdamW(groups, lr=config.learning_rate, betas=(0.9, 0.98))

    def train_step(self, frames: Tensor, tokens: Tensor, is_true: Tensor) -> dict[str, float]:
        config = self.config
        self.model.train()
        images = self._preprocess(frames.to(self._device))
        tokens, is_true = tokens.to(self._device), is_true.to(self._device)
        with torch.autocast(self._device.type, torch.bfloat16, enabled=config.mixed_precision):
            image_embeddings = self.model.encode_image(images, normalize=True)
            text_embeddings = self.model.encode_text(tokens, normalize=True)
        image_embeddings, text_embeddings = image_embeddings.float(), text_embeddings.float()
        scale = self.model.logit_scale.exp()
        loss = multi_positive_contrastive_loss(image_embeddings, text_embeddings, is_true, scale)
        for group in self._optimizer.param_groups:
            group["lr"] = config.learning_rate_at(self.step)
        self._optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self._optimizer.step()
        with torch.no_grad():
            self.model.logit_scale.clamp_(0, math.log(_MAX_LOGIT_SCALE))
            best = (image_embeddings @ text_embeddings.T).argmax(dim=1, keepdim=True)
            accuracy = is_true.gather(1, best).float().mean()
        self.step += 1
        return {
            "train/loss": loss.item(),
            "train/accuracy": accuracy.item(),
            "train/logit_scale": scale.item(),
            "train/learning_rate": config.learning_rate_at(self.step - 1),
        }

    def save(self, path: Path) -> None:
        state = {
            "settings": self.settings,
            "step": self.step,
            "model": self.model.state_dict(),
            "optimizer": self._optimizer.state_dict(),
        }
        partial = path.with_suffix(".part")
        torch.save(state, partial)
        os.replace(partial, path)

    def resume(self, path: Path) -> None:
        if not path.exists():
            return
        state = torch.load(path, map_location=self._device, weights_only=True)
        if state["settings"] != self.settings:
            raise ValueError(
                f"{path} belongs to a run with other settings: {state['settings']}, expected "
                f"{self.settings}; use another run folder, or delete this one"
            )
        self.model.load_state_dict(state["model"])
        self._optimizer.load_state_dict(state["optimizer"])
        self.step = state["step"]


class _TokenTable:
    """Tokens of every text seen so far: a small domain repeats its sentences."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self._rows: dict[str, Tensor] = {}

    def __call__(self, texts: Sequence[str]) -> Tensor:
        new = [text for text in texts if text not in self._rows]
        if new:
            self._rows.update(zip(new, self._tokenizer(new), strict=True))
        return torch.stack([self._rows[text] for text in texts])
