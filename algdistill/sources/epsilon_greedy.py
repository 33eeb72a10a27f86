"""Exploration by chance, as Q-learners share it, in tables and in networks.

Axis letters: ``N`` learners, ``A`` actions.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from algdistill.sources.fleet import FleetConfig, uniform_action, uniform_argmax

NUM_DRAWS = 3
"""Numbers that one choice takes."""


@dataclass(frozen=True)
class EpsilonGreedyConfig(FleetConfig):
    """Settings of every learner of a fleet that explores by chance.

    Attributes:
        num_episodes: Episodes each learner trains for.
        exploration_episodes: Episodes over which epsilon falls linearly from 1 to
            ``final_epsilon``; with 0 it is ``final_epsilon`` from the beginning.
        final_epsilon: Probability of a uniformly random action afterwards.

    Raises:
        ValueError: If a value is out of its range.
    """

    exploration_episodes: int = 20
    final_epsilon: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        self._check_range("exploration_episodes", 0.0)
        self._check_range("final_epsilon", 0.0, 1.0)

    def epsilon(self, episode: int) -> float:
        """Probability of a random action in an episode, counted from 0."""
        progress = (
            min(episode / self.exploration_episodes, 1.0) if self.exploration_episodes else 1.0
        )
        return 1.0 + (self.final_epsilon - 1.0) * progress


def epsilon_greedy(
    values: Float[Tensor, "A N"], epsilon: float, draws: Float[Tensor, "3 N"]
) -> Int[Tensor, " N"]:
    """Each learner's best action, ties broken uniformly, or with ``epsilon`` a random one.

    Args:
        values: Of each action.
        epsilon: Probability of a uniformly random action.
        draws: `NUM_DRAWS` for each learner, uniform in [0, 1).
    """
    explores, tie, choice = draws
    uniform = uniform_action(choice, len(values))
    return torch.where(explores < epsilon, uniform, uniform_argmax(values, tie))
