r"""The loss of Algorithm Distillation: predict the source's action at every time step.

.. math:: -\frac{1}{|V|} \sum_{(b, t) \in V} \log \pi(a_{b,t} \mid o_{b,0}, a_{b,0}, r_{b,0},
    \dots, o_{b,t})

over the visible steps :math:`V`, those whose token is not masked (Laskin et al. 2022, Eq. 3).

Axis letters: ``B`` windows, ``T`` time steps, ``A`` actions.
"""

from __future__ import annotations

from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn import functional as F


def action_loss(
    logits: Float[Tensor, "B T A"],
    actions: Int[Tensor, "B T"],
    masked: Bool[Tensor, "B T"],
    label_smoothing: float = 0.0,
) -> tuple[Float[Tensor, ""], Float[Tensor, ""]]:
    """Mean cross-entropy and accuracy over the steps that are not masked."""
    visible = ~masked
    visible_logits, visible_actions = logits[visible], actions[visible]
    loss = F.cross_entropy(visible_logits, visible_actions, label_smoothing=label_smoothing)
    accuracy = (visible_logits.argmax(dim=-1) == visible_actions).float().mean()
    return loss, accuracy
