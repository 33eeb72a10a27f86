r"""The loss of Algorithm Distillation: predict the source's action at every time step.

.. math:: -\frac{1}{|V|} \sum_{(b, t) \in V} \log \pi(a_{b,t} \mid o_{b,0}, a_{b,0}, r_{b,0},
    \dots, o_{b,t})

over the visible steps :math:`V`, those whose token is not masked (Laskin et al. 2022, Eq. 3). The
components of a continuous action are independent and normal.

Axis letters: ``B`` windows, ``T`` time steps, ``P`` numbers the model puts out for an action:
logits of discrete actions; for continuous ones see `algdistill.models.action_head`.
"""

from __future__ import annotations

import math

from jaxtyping import Bool, Float, Shaped
from torch import Tensor
from torch.nn import functional as F

from algdistill.models.action_head import gaussian


def action_loss(
    outputs: Float[Tensor, "B T P"],
    actions: Shaped[Tensor, "B T *action"],
    masked: Bool[Tensor, "B T"],
    label_smoothing: float = 0.0,
) -> tuple[Float[Tensor, ""], Float[Tensor, ""]]:
    """Mean loss, in nats, over the steps that are not masked, and how good the best guess is.

    Returns:
        The loss, and the accuracy of the likeliest action: the share of discrete actions that are
        it, or the mean distance of each component of continuous ones from it.

    Raises:
        ValueError: If labels of continuous actions are to be smoothed.
    """
    visible = ~masked
    visible_outputs, visible_actions = outputs[visible], actions[visible]
    if not actions.is_floating_point():
        loss = F.cross_entropy(visible_outputs, visible_actions, label_smoothing=label_smoothing)
        accuracy = (visible_outputs.argmax(dim=-1) == visible_actions).float().mean()
        return loss, accuracy
    if label_smoothing:
        raise ValueError(
            f"got label_smoothing={label_smoothing} for continuous actions, expected 0"
        )
    mean, log_std = gaussian(visible_outputs)
    error = visible_actions - mean
    scaled = error * (-log_std).exp()
    surprise = (0.5 * scaled.square() + log_std + 0.5 * math.log(2.0 * math.pi)).sum(dim=-1)
    return surprise.mean(), error.detach().abs().mean()
