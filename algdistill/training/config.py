"""Settings of training."""

from __future__ import annotations

import math
from dataclasses import dataclass

PRECISIONS = ("fp32", "bf16")


@dataclass(frozen=True)
class TrainingConfig:
    """How a model is trained; what it is made of is its own configuration.

    Attributes:
        num_updates: Optimiser steps.
        batch_size: Windows in each.
        learning_rate: Peak of AdamW's, reached after the warm-up.
        warmup_updates: Updates over which it rises linearly.
        final_learning_rate_fraction: Share of the peak that the cosine ends at.
        weight_decay: AdamW's.
        token_mask_rate: Probability that a time step's whole token is hidden; hidden steps are
            not trained on. Laskin et al. 2022 found .3 to .5 best.
        label_smoothing: Probability mass spread over all actions.
        max_gradient_norm: Gradients are scaled down to this norm.
        precision: What products of matrices are computed in: ``"fp32"``, ``"bf16"``, or by default
            bfloat16 on GPUs that have it and float32 elsewhere.
        evaluate_every: Updates between evaluations, each followed by a checkpoint.
        log_every: Updates between logged training metrics.

    Raises:
        ValueError: If a value is out of its range.
    """

    num_updates: int = 2400
    batch_size: int = 64
    learning_rate: float = 3e-3
    warmup_updates: int = 200
    final_learning_rate_fraction: float = 0.02
    weight_decay: float = 0.01
    token_mask_rate: float = 0.3
    label_smoothing: float = 0.0
    max_gradient_norm: float = 1.0
    precision: str | None = None
    evaluate_every: int = 300
    log_every: int = 20

    def __post_init__(self) -> None:
        for name, low, high in (
            ("num_updates", 1, math.inf),
            ("batch_size", 1, math.inf),
            ("learning_rate", 0.0, math.inf),
            ("warmup_updates", 0, math.inf),
            ("final_learning_rate_fraction", 0.0, 1.0),
            ("weight_decay", 0.0, math.inf),
            ("token_mask_rate", 0.0, 0.99),
            ("label_smoothing", 0.0, 0.99),
            ("max_gradient_norm", 1e-12, math.inf),
            ("evaluate_every", 1, math.inf),
            ("log_every", 1, math.inf),
        ):
            value = getattr(self, name)
            if not low <= value <= high:
                raise ValueError(f"got {name}={value}, expected {low} to {high}")

        if self.precision not in (None, *PRECISIONS):
            raise ValueError(
                f"got precision={self.precision!r}, expected one of {PRECISIONS} or None"
            )

    def learning_rate_at(self, update: int) -> float:
        """Learning rate of an update, the first being 0: linear warm-up, then half a cosine."""
        if update < self.warmup_updates:
            return self.learning_rate * (update + 1) / self.warmup_updates
        progress = (update - self.warmup_updates) / max(1, self.num_updates - self.warmup_updates)
        cosine = 0.5 * (1.0 + math.cos(math.pi * min(progress, 1.0)))
        floor = self.final_learning_rate_fraction
        return self.learning_rate * (floor + (1.0 - floor) * cosine)
