r"""Beta distributions, drawn from numbers by counter, so that no learner moves another's.

:math:`X / (X + Y)` is Beta(:math:`\alpha, \beta`) for independent :math:`X \sim
\text{Gamma}(\alpha)` and :math:`Y \sim \text{Gamma}(\beta)`. Both are drawn by rejection
(Marsaglia and Tsang 2000): with a normal :math:`x`, a uniform :math:`u`, :math:`d = \alpha - 1/3`
and :math:`v = (1 + x / \sqrt{9 d})^3`, the number :math:`d v` is kept if

.. math:: \log u < x^2 / 2 + d - d v + d \log v

Axis letters: ``M`` distributions.
"""

from __future__ import annotations

import itertools
import math

import torch
from jaxtyping import Bool, Float64, Int
from torch import Tensor

from algdistill.sources.random_streams import uniform_at

DRAWS_PER_SAMPLE = 4
_ATTEMPT_BITS = 40  # an attempt's numbers lie this far, as a power of two, beyond the last one's


def sample_beta(
    alpha: Float64[Tensor, " M"],
    beta: Float64[Tensor, " M"],
    origins: Int[Tensor, " M"],
    first: Int[Tensor, " M"],
) -> Float64[Tensor, " M"]:
    """One number from each Beta(``alpha``, ``beta``), both at least 1.

    Args:
        alpha: First parameter of each distribution.
        beta: Second parameter of each distribution.
        origins: Where the stream that each draws from begins.
        first: Counter of the first of its `DRAWS_PER_SAMPLE` numbers, below 2**40.
    """
    result = torch.empty_like(alpha)
    pending = torch.arange(len(alpha), device=alpha.device)
    offsets = torch.arange(DRAWS_PER_SAMPLE, device=alpha.device)[:, None]
    for attempt in itertools.count():
        counters = first[pending] + offsets + (attempt << _ATTEMPT_BITS)
        numbers = 1.0 - uniform_at(origins[pending], counters).double()  # in (0, 1]
        radius = (-2.0 * numbers[0].log()).sqrt()  # Box and Muller (1958): two normals
        angle = 2.0 * math.pi * numbers[1]
        one, one_kept = _gamma_attempt(alpha[pending], radius * angle.cos(), numbers[2])
        other, other_kept = _gamma_attempt(beta[pending], radius * angle.sin(), numbers[3])
        kept = one_kept & other_kept
        result[pending[kept]] = (one / (one + other))[kept]
        pending = pending[~kept]
        if len(pending) == 0:
            break
    return result


def _gamma_attempt(
    shape: Float64[Tensor, " M"], normal: Float64[Tensor, " M"], uniform: Float64[Tensor, " M"]
) -> tuple[Float64[Tensor, " M"], Bool[Tensor, " M"]]:
    """What might be Gamma(``shape``), and whether it may be kept."""
    d = shape - 1.0 / 3.0
    v = (1.0 + normal / (9.0 * d).sqrt()) ** 3
    # The logarithm of a negative number is not a number, and no comparison with that holds.
    return d * v, uniform.log() < normal**2 / 2.0 + d - d * v + d * v.log()
