"""The contrastive loss of in-domain CLIPs.

Axis letters: ``B`` frames, ``N`` texts, ``D`` embedding width.
"""

import torch
from jaxtyping import Bool, Float
from torch import Tensor


def multi_positive_contrastive_loss(
    image_embeddings: Float[Tensor, "B D"],
    text_embeddings: Float[Tensor, "N D"],
    is_true: Bool[Tensor, "B N"],
    logit_scale: Float[Tensor, ""],
) -> Float[Tensor, ""]:
    """Return the symmetric InfoNCE loss with any number of positives per row and column.

    Radford et al. 2021 (CLIP) contrast each image with one text. Here several texts can be true of
    a frame and one text of several frames, so the target is uniform over the positives, as in the
    outer sum of supervised contrastive learning (Khosla et al. 2020, Eq. 2):

    ``L_image = -mean_i mean_{j in P(i)} log softmax_j(s · x_i·y_j)``, and ``L_text`` the same with
    the roles exchanged; the loss is their mean. A text that is true of no frame (a near miss) has
    no row of its own in ``L_text``; it only lowers the frames' probabilities.

    Args:
        image_embeddings: Unit vectors x.
        text_embeddings: Unit vectors y.
        is_true: Positives; every frame needs one.
        logit_scale: s = 1 / temperature.

    Raises:
        ValueError: A frame has no positive.

    Example:
        Two frames, two texts, orthogonal and matched: the loss is log(1 + exp(-s)).

        >>> eye = torch.eye(2)
        >>> loss = multi_positive_contrastive_loss(eye, eye, eye.bool(), torch.tensor(1.0))
        >>> round(loss.item(), 4)
        0.3133
    """
    if not bool(is_true.any(dim=1).all()):
        frame = int((~is_true.any(dim=1)).nonzero()[0])
        raise ValueError(f"frame {frame} of the batch has no true text; every frame needs one")
    logits = logit_scale * image_embeddings @ text_embeddings.T
    frame_loss = _cross_entropy(logits, is_true)
    has_frame = is_true.any(dim=0)
    text_loss = _cross_entropy(logits.T[has_frame], is_true.T[has_frame])
    return (frame_loss + text_loss) / 2


def _cross_entropy(logits: Float[Tensor, "R C"], is_true: Bool[Tensor, "R C"]) -> Tensor:
    target = is_true / is_true.sum(dim=1, keepdim=True)
    return -(target * torch.log_softmax(logits, dim=1)).sum(dim=1).mean()
