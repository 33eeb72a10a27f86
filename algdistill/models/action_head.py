r"""What the numbers that the model puts out for a time step say of the action.

Discrete actions: ``A`` logits. Continuous ones: a mean for each component, not bounded, and what
its standard deviation is made of,

.. math:: \log \sigma = l + (h - l) \, \mathrm{sigmoid}(x)

with :math:`l, h` the bounds of `LOG_STD_BOUNDS`, so that neither a repeated action nor a wild one
makes the likelihood explode.

Axis letters: ``*batch`` any, ``P`` numbers put out, ``A`` actions, or components of one.
"""

from __future__ import annotations

import math

import torch
from jaxtyping import Float, Shaped
from torch import Tensor

from algdistill.spaces import ActionSpace, Discrete

LOG_STD_BOUNDS = (-4.0, 1.0)
"""Bounds of the logarithm of a continuous action's standard deviation; actions are -1 to 1."""


def num_outputs(actions: ActionSpace) -> int:
    """How many numbers the model puts out for an action."""
    return actions.num_actions if isinstance(actions, Discrete) else 2 * actions.dim


def gaussian(
    outputs: Float[Tensor, "*batch P"],
) -> tuple[Float[Tensor, "*batch A"], Float[Tensor, "*batch A"]]:
    """Mean and logarithm of the standard deviation of a continuous action."""
    mean, raw = outputs.chunk(2, dim=-1)
    low, high = LOG_STD_BOUNDS
    return mean, low + (high - low) * raw.sigmoid()


def likeliest_action(
    actions: ActionSpace, outputs: Float[Tensor, "*batch P"]
) -> Shaped[Tensor, "*batch_and_action"]:
    """The action of most probability; of continuous ones the mean, clipped to -1 and 1."""
    if isinstance(actions, Discrete):
        return outputs.argmax(dim=-1)
    return gaussian(outputs)[0].clamp(-1.0, 1.0)


def sample_action(
    actions: ActionSpace,
    outputs: Float[Tensor, "N P"],
    temperature: float,
    generator: torch.Generator | None,
) -> Shaped[Tensor, " N *action"]:
    """Draw an action for each row, from probabilities to the power of ``1 / temperature``.

    A normal distribution stays one, of ``temperature`` times the variance. Continuous actions are
    clipped to -1 and 1 once they are drawn.
    """
    if isinstance(actions, Discrete):
        probabilities = (outputs / temperature).softmax(-1)
        return torch.multinomial(probabilities, 1, generator=generator)[:, 0]
    mean, log_std = gaussian(outputs)
    noise = torch.randn(mean.shape, generator=generator, device=mean.device)
    return (mean + math.sqrt(temperature) * log_std.exp() * noise).clamp(-1.0, 1.0)
