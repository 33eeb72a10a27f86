r"""AdamW and LAMB, and the learning rate of every step.

LAMB (You et al. 2020, `arXiv 1904.00962 <https://arxiv.org/abs/1904.00962>`_) lets the batch grow:
how far a matrix :math:`w` moves depends on its own norm, not on that of its gradient :math:`g`.

.. math::
    m_t &= \beta_1 m_{t-1} + (1 - \beta_1) g_t, \quad
        v_t = \beta_2 v_{t-1} + (1 - \beta_2) g_t^2 \\
    u_t &= m_t / (\sqrt{v_t} + \epsilon) + \lambda w_{t-1} \\
    w_t &= w_{t-1} - \eta_t\, \frac{\phi(\|w_{t-1}\|)}{\|u_t\|}\, u_t, \quad
        \phi(z) = \min(z, 10), \quad \text{or } 1 \text{ for the fraction if } \|w_{t-1}\| = 0

Paper → code: η → ``learning_rate_at``, (β₁, β₂) → ``betas``, λ → ``weight_decay``. A matrix that
begins at zero hardly grows under LAMB: use AdamW for one that must.
"""

from __future__ import annotations

import importlib
import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal, get_args

import torch
from torch import nn

OptimiserName = Literal["adamw", "lamb"]

_EPSILON = {"adamw": 1e-8, "lamb": 1e-6}
_NEVER_DECAYED = ("position", "norm", "gain")  # in names: these may be shaped like matrices


@dataclass(frozen=True)
class OptimiserConfig:
    """How to follow the gradient.

    Attributes:
        name: ``"adamw"``, or ``"lamb"`` for large batches.
        learning_rate: Peak, reached after the warm-up. LAMB's is the fraction of its own norm by
            which a matrix moves, so it is larger than AdamW's.
        warmup_steps: Steps over which the learning rate rises linearly.
        final_learning_rate_fraction: Share of the peak that the cosine ends at.
        betas: Decay of the running means of the gradient and of its square.
        weight_decay: Of matrices only; see `is_decayed`.

    Raises:
        ValueError: If a value is out of its range.
    """

    name: OptimiserName = "adamw"
    learning_rate: float = 1e-3
    warmup_steps: int = 200
    final_learning_rate_fraction: float = 0.0
    betas: tuple[float, float] = (0.9, 0.98)
    weight_decay: float = 0.05

    def __post_init__(self) -> None:
        if self.name not in get_args(OptimiserName):
            raise ValueError(f"got name={self.name!r}, expected one of {get_args(OptimiserName)}")
        if not 0.0 < self.learning_rate < math.inf:
            raise ValueError(f"got learning_rate={self.learning_rate}, expected a positive number")
        if not all(0.0 <= beta < 1.0 for beta in self.betas):
            raise ValueError(
                f"got betas={self.betas}, expected each from 0 up to, not including, 1"
            )
        for field, high in (
            ("warmup_steps", math.inf),
            ("final_learning_rate_fraction", 1.0),
            ("weight_decay", math.inf),
        ):
            value = getattr(self, field)
            if not 0 <= value <= high:
                raise ValueError(f"got {field}={value}, expected 0 to {high}")

    def learning_rate_at(self, step: int, num_steps: int) -> float:
        """Learning rate of a step, the first being 0: linear warm-up, then half a cosine.

        Args:
            step: Number of the gradient step.
            num_steps: Steps of the whole training.
        """
        if step < self.warmup_steps:
            return self.learning_rate * (step + 1) / self.warmup_steps
        progress = (step - self.warmup_steps) / max(1, num_steps - self.warmup_steps)
        cosine = 0.5 * (1.0 + math.cos(math.pi * min(progress, 1.0)))
        floor = self.final_learning_rate_fraction
        return self.learning_rate * (floor + (1.0 - floor) * cosine)


def is_decayed(name: str, parameter: nn.Parameter) -> bool:
    """Whether a parameter is a matrix, or a stack of them, that weight decay pulls to zero.

    Biases, norms, gains, gates and learned positions are none, whatever axes of length 1 they have.

    Args:
        name: As `torch.nn.Module.named_parameters` gives it; positions, norms and gains say so.
        parameter: The weights.
    """
    num_axes = sum(size > 1 for size in parameter.shape)
    return num_axes >= 2 and not any(word in name for word in _NEVER_DECAYED)


def make_optimiser(
    named_parameters: Iterable[tuple[str, nn.Parameter]], config: OptimiserConfig
) -> torch.optim.Optimizer:
    """Make the optimiser of some parameters; those that need no gradient are left out.

    Args:
        named_parameters: As `torch.nn.Module.named_parameters` gives them.
        config: Which one, and its settings.

    Raises:
        ImportError: If LAMB is asked for and ``pytorch_optimizer`` is not installed.
        ValueError: If no parameter needs a gradient.
    """
    trained = [(name, weights) for name, weights in named_parameters if weights.requires_grad]
    if not trained:
        raise ValueError("got no parameter that needs a gradient: there is nothing to train")
    decayed = [weights for name, weights in trained if is_decayed(name, weights)]
    others = [weights for name, weights in trained if not is_decayed(name, weights)]
    groups: list[dict[str, Any]] = [
        {"params": decayed, "weight_decay": config.weight_decay},
        {"params": others, "weight_decay": 0.0},
    ]
    shared: dict[str, Any] = {
        "lr": config.learning_rate,
        "betas": config.betas,
        "eps": _EPSILON[config.name],
    }
    if config.name == "adamw":
        return torch.optim.AdamW(groups, fused=True, **shared)
    # What is no matrix moves as in Adam: a bias of zero has no norm to take a fraction of.
    groups[1]["adam"] = True
    return _make_lamb(groups, shared)


def _make_lamb(groups: list[dict[str, Any]], shared: dict[str, Any]) -> torch.optim.Optimizer:
    try:
        module: Any = importlib.import_module("pytorch_optimizer")
    except ImportError as error:
        raise ImportError(
            "optimiser 'lamb' comes from pytorch_optimizer, which is not installed: "
            "pip install 'vlmreward[lamb]'"
        ) from error
    # By its defaults a first step is 1 / (1 - beta_1) times too long, and the decay not in u.
    lamb: torch.optim.Optimizer = module.Lamb(
        groups, adam_debias=True, weight_decouple=False, **shared
    )
    return lamb
