"""How well an encoder tells the goals of a domain, on labelled trajectories.

Axis letters: ``M`` frames, ``G`` goals, ``D`` width of the embedding, ``H W`` pixels.
"""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from trend_domains import Domain, LabelledTrajectories
from vlmreward import ImageTextEncoder, RewardModel, SoftmaxHead
from vlmreward.evaluation import (
    RewardAccuracy,
    average_precision,
    evaluate_reward,
    threshold_for_false_positive_rate,
)

FALSE_POSITIVE_RATE = 0.003
"""What thresholds are calibrated to, all goals of a domain pooled."""
OTHER_FALSE_POSITIVE_RATES = (0.001, 0.01, 0.03)
"""What else they could be calibrated to."""


def embed(encoder: ImageTextEncoder, frames: NDArray[np.uint8]) -> Tensor:
    """Embed frames ``[M, H, W, 3]`` as ``[M, D]``."""
    return encoder.encode_obs({"pixels": frames})


def reward_model_of(encoder: ImageTextEncoder, domain: Domain) -> RewardModel:
    """Return the softmax over each goal's negatives, at the encoder's own temperature."""
    return RewardModel(encoder, domain.goals, SoftmaxHead(1 / encoder.logit_scale))


def goal_scores(reward_model: RewardModel, embeddings: Tensor) -> NDArray[np.float64]:
    """Score every frame against every goal ``[M, G]``."""
    columns = [
        reward_model.score_embeddings(embeddings, goal).score
        for goal in range(reward_model.num_goals)
    ]
    return torch.stack(columns, dim=1).cpu().numpy().astype(np.float64)


def mean_average_precision(
    labels: NDArray[np.bool_], scores: NDArray[np.float64], goals: NDArray[np.bool_]
) -> float:
    """Return the mean average precision of some goals, of those that any frame achieves."""
    chosen = np.nonzero(goals & labels.any(axis=0))[0]
    return float(np.mean([average_precision(labels[:, goal], scores[:, goal]) for goal in chosen]))


def calibrated_threshold(
    labels: NDArray[np.bool_], scores: NDArray[np.float64], rate: float = FALSE_POSITIVE_RATE
) -> float:
    """Return the threshold that frames without the goal exceed as rarely as is wanted."""
    return threshold_for_false_positive_rate(scores[~labels], rate)


def accuracy(
    found: LabelledTrajectories,
    scores: NDArray[np.float64],
    goals: NDArray[np.bool_],
    threshold: float,
) -> RewardAccuracy:
    """Measure the rewards of some goals, of those that any frame achieves."""
    chosen = np.nonzero(goals & found.labels.any(axis=0))[0]
    return evaluate_reward(
        found.labels[:, chosen].T.ravel(),
        scores[:, chosen].T.ravel(),
        np.repeat(chosen, len(scores)),
        threshold=threshold,
        generator=np.random.default_rng(0),
    )
