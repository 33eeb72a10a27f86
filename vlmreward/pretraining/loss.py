"""The contrastive loss of in-domain CLIPs.

Axis letters: ``B`` frames, ``N`` texts, ``D`` embedding width.
"""

from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn import functional

_ABSENT = -1e4  # far below any logit, and unlike minus infinity it has a gradient


def multi_positive_contrastive_loss(
    image_embeddings: Float[Tensor, "B D"],
    text_embeddings: Float[Tensor, "N D"],
    is_true: Bool[Tensor, "B N"],
    logit_scale: Float[Tensor, ""],
) -> Float[Tensor, ""]:
    """Return the symmetric InfoNCE loss with any number of positives per row and column.

    Radford et al. 2021 (CLIP) contrast each image with one text. Here several texts can be true of
    a frame and one text of several frames. Each true pair is contrasted with what is false only, so
    that true texts do not compete with each other:

    ``L_image = mean_i mean_{j in P(i)} -log(exp(s x_i·y_j) / (exp(s x_i·y_j) + sum_{n not in P(i)}
    exp(s x_i·y_n)))``, and ``L_text`` the same with the roles exchanged; the loss is their mean.
    With one positive per row and column it is CLIP's. A text that is true of no frame (a near miss)
    has no term of its own in ``L_text``; it only lowers the frames' terms.

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
    has_frame = is_true.any(dim=0)
    frame_loss = _mean_over_positives(logits, is_true)
    text_loss = _mean_over_positives(logits.T[has_frame], is_true.T[has_frame])
    return (frame_loss + text_loss) / 2


def _mean_over_positives(logits: Float[Tensor, "R C"], is_true: Bool[Tensor, "R C"]) -> Tensor:
    # -log(e^a / (e^a + sum of e^b)) = softplus(log sum of e^b - a)
    against = logits.masked_fill(is_true, _ABSENT).logsumexp(dim=1, keepdim=True)
    of_pair = functional.softplus(against - logits).masked_fill(~is_true, 0.0)
    return (of_pair.sum(dim=1) / is_true.sum(dim=1)).mean()
