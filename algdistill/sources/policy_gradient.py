"""Returns along the steps of many learners at once, and what is to be gained on them.

Axis letters: ``N`` learners, ``E`` tasks of each, ``T`` steps of a rollout.
"""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float
from torch import Tensor


def lambda_advantages(
    rewards: Float[Tensor, "N T E"],
    values: Float[Tensor, "N T E"],
    next_values: Float[Tensor, "N T E"],
    terminated: Bool[Tensor, "N T E"],
    ended: Bool[Tensor, "N T E"],
    *,
    discount: float,
    gae_lambda: float,
) -> Float[Tensor, "N T E"]:
    r"""Generalised advantage estimates of a rollout (Schulman et al. 2016).

    Args:
        rewards: :math:`r_t`.
        values: :math:`V(s_t)`.
        next_values: :math:`V(s'_t)`, of the states that actions led to, before any reset.
        terminated: Nothing of value lies beyond :math:`s'_t`.
        ended: Another episode begins after step ``t``, for whatever reason.
        discount: Gamma.
        gae_lambda: Lambda.
    """
    deltas = rewards + discount * next_values * ~terminated - values
    carried = (discount * gae_lambda) * ~ended
    advantages = torch.empty_like(deltas)
    later = torch.zeros_like(deltas[:, 0])
    for step in reversed(range(deltas.shape[1])):
        later = deltas[:, step] + carried[:, step] * later
        advantages[:, step] = later
    return advantages
