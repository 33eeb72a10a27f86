"""Adam for the networks of many learners, stacked: no learner's gradient touches another's."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from jaxtyping import Float
from torch import Tensor, nn


class StackedAdam:
    """Moves each learner's weights down its own loss.

    Args:
        network: Parameters with one slice for each learner.
        learning_rate: Of Adam.
        max_grad_norm: Longest gradient of a learner; longer ones are shortened to it.
    """

    def __init__(self, network: nn.Module, learning_rate: float, max_grad_norm: float) -> None:
        self._parameters = list(network.parameters())
        self._max_grad_norm = max_grad_norm
        self._adam = torch.optim.Adam(self._parameters, learning_rate, eps=1e-5, fused=True)

    def descend(self, loss: Float[Tensor, ""]) -> None:
        """Take a step down the sum of all learners' losses."""
        self._adam.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        clip_each_learner(self._parameters, self._max_grad_norm)
        self._adam.step()


@torch.no_grad()
def clip_each_learner(parameters: Iterable[nn.Parameter], max_norm: float) -> None:
    """Shorten the gradient of each learner, over all of its weights, to ``max_norm``."""
    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    squares = [gradient.flatten(1).square().sum(dim=1) for gradient in gradients]
    norm = torch.stack(squares, dim=1).sum(dim=1).sqrt()
    scale = (max_norm / (norm + 1e-6)).clamp(max=1.0)
    for gradient in gradients:
        gradient.mul_(scale.view(-1, *(1,) * (gradient.dim() - 1)))
