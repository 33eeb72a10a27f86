"""The temperature of a softmax head, from labelled frames.

Shapes: N frames.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
import torch
from jaxtyping import Bool, Float
from scipy import optimize
from torch.nn.functional import softplus

from vlmreward.evaluation.curves import check_labels_and_scores
from vlmreward.heads import Similarities

LOWEST_TEMPERATURE, HIGHEST_TEMPERATURE = 1e-4, 1e2
_NUM_STARTS = 121


def negative_log_likelihood(
    similarities: Similarities, labels: npt.ArrayLike, temperature: float
) -> float:
    r"""Mean surprise at the labels, in nats per frame; ln 2 ≈ .693 is that of always saying 1/2.

    .. math:: -\frac{1}{N} \sum_n y_n \ln p_n + (1 - y_n) \ln (1 - p_n)

    with p the probability of `SoftmaxHead(temperature)`, in double precision, and never infinite:
    `1 - p` is computed from the negatives, not from a rounded p.

    Args:
        similarities: Of N frames with their goals and negatives.
        labels: Whether the goal is achieved in each frame, bool [N].
        temperature: τ, positive.

    Raises:
        TypeError: If labels are not bool.
        ValueError: If lengths differ, a similarity is not finite, a row has no negative, the
            labels are all the same, or the temperature is not positive.

    Example:
        >>> seen = Similarities.of(torch.tensor([0.3, 0.1]), negatives=torch.full((2, 1), 0.2))
        >>> round(negative_log_likelihood(seen, [True, False], temperature=0.1), 3)  # ln(1 + 1/e)
        0.313
    """
    if not (math.isfinite(temperature) and temperature > 0):
        raise ValueError(f"expected a positive temperature, got {temperature}")
    return _mean_surprise(similarities, _check(similarities, labels), temperature)


def fit_temperature(similarities: Similarities, labels: npt.ArrayLike) -> float:
    """Choose the temperature whose probabilities make the labels likeliest.

    This is temperature scaling (Guo et al. 2017, arXiv 1706.04599) of "goal or not". It minimises
    `negative_log_likelihood` over temperatures from 1e-4 to 100, by a scan and then Brent's method
    around its best point, as with several negatives there may be more than one minimum. With one
    negative it does not change the order of frames, with several it can.

    Args:
        similarities: Of N frames with their goals and negatives.
        labels: Whether the goal is achieved in each frame, bool [N].

    Raises:
        TypeError: If labels are not bool.
        ValueError: If lengths differ, a similarity is not finite, a row has no negative, the
            labels are all the same, or no temperature inside the range is best: similarities that
            separate the labels without an error drive it to 0, ones that say nothing of them to
            infinity.

    Example:
        Three of four frames side with the label at a margin of .1: p = 3/4 at .1 / ln 3 = .091.

        >>> seen = Similarities.of(torch.full((4,), 0.3), negatives=torch.full((4, 1), 0.2))
        >>> round(fit_temperature(seen, [True, True, True, False]), 4)
        0.091
    """
    checked = _check(similarities, labels)

    def surprise(log_temperature: float) -> float:
        return _mean_surprise(similarities, checked, math.exp(log_temperature))

    starts = np.linspace(math.log(LOWEST_TEMPERATURE), math.log(HIGHEST_TEMPERATURE), _NUM_STARTS)
    best = int(np.argmin([surprise(start) for start in starts]))
    if best == 0:
        raise ValueError(
            "the similarities separate these labels without an error, so the likeliest temperature "
            "is 0: add frames that are harder to tell, or keep the model's own temperature, "
            "1 / encoder.logit_scale"
        )
    # Towards infinite temperature p tends to 1 / (1 + negatives): an improvement in the last
    # digits is none.
    flat = surprise(starts[-1])
    if best == _NUM_STARTS - 1 or flat - surprise(starts[best]) < 1e-9:
        raise ValueError(
            "the similarities do not agree with these labels at any temperature: look at the "
            "labels, the prompts and the encoder; average_precision says how well frames are ranked"
        )
    found = optimize.minimize_scalar(
        surprise, bounds=(starts[best - 1], starts[best + 1]), method="bounded"
    )
    return math.exp(float(found.x))


def _check(similarities: Similarities, labels: npt.ArrayLike) -> Bool[torch.Tensor, " N"]:
    goal = similarities.goal.double().cpu().numpy()
    checked, _ = check_labels_and_scores(labels, goal)
    if not bool(similarities.is_negative.any(dim=1).all()):
        raise ValueError(
            "expected at least one negative for each goal, got a row without: a softmax compares a "
            "goal with its negatives; say them in Goal(..., negative_prompts=[...])"
        )
    if not bool(similarities.negatives[similarities.is_negative].isfinite().all()):
        raise ValueError("similarities to negatives must be finite, got NaN or infinity")
    return torch.from_numpy(checked.copy()).to(similarities.goal.device)


def _mean_surprise(
    similarities: Similarities, labels: Bool[torch.Tensor, " N"], temperature: float
) -> float:
    negatives = similarities.negatives.double().masked_fill(~similarities.is_negative, -math.inf)
    goal = similarities.goal.double() / temperature
    # ln(p / (1 − p)) is the goal's logit less the log-sum-exp of the negatives'.
    log_odds: Float[torch.Tensor, " N"] = goal - (negatives / temperature).logsumexp(dim=1)
    return float(softplus(torch.where(labels, -log_odds, log_odds)).mean())
