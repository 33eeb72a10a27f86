r"""Learning histories without learning: an oracle whose actions are ever less often random.

Where tasks know what is optimal, histories need no learner (Zisman et al. 2023, "Emergence of
In-Context Reinforcement Learning from Noise Distillation",
`arXiv 2312.12275 <https://arxiv.org/abs/2312.12275>`_): the probability of a random action falls
from 1 to its end, and the histories improve as steadily as an algorithm would.

Axis letters: ``N`` tasks, ``O`` components of an observation.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Int, Shaped
from torch import Tensor

from algdistill.sources.fleet import FleetConfig, SourceFleet, uniform_action
from algdistill.spaces import Discrete
from algdistill.tasks import BatchedStep, BatchedTasks


@runtime_checkable
class OracleTasks(BatchedTasks, Protocol):
    """Tasks that know what is best to do."""

    def optimal_actions(self) -> Shaped[Tensor, " N *action"]:
        """Return an action for each task that is optimal in its present state, seen or hidden."""
        ...


@dataclass(frozen=True)
class NoisyOracleConfig(FleetConfig):
    """Settings of every history.

    Attributes:
        num_episodes: Episodes of each history.
        final_epsilon: Probability of a random action in the last episode.

    Raises:
        ValueError: If a value is out of its range.
    """

    final_epsilon: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        self._check_range("final_epsilon", 0.0, 1.0)

    def epsilon(self, episode: int) -> float:
        """Probability of a random action in an episode; the first is 0."""
        progress = episode / max(self.num_episodes - 1, 1)
        return 1.0 + (self.final_epsilon - 1.0) * progress


class NoisyOracle(SourceFleet[NoisyOracleConfig]):
    r"""Takes the optimal action, or a uniformly random one with a probability that falls.

    Components of a continuous action are random together, each uniform from -1 to 1.

    In episode :math:`e` of :math:`E`, counted from 0, a random action has the probability

    .. math:: \epsilon_e = 1 - (1 - \epsilon_{E-1}) \frac{e}{E - 1}

    A history depends on its task and its seed only: it is the same alone as among thousands. See
    ``docs/algorithm_distillation.md`` for an example.

    Args:
        tasks: One task for each history; they are `OracleTasks`.
        config: Settings shared by all.
        learner_seeds: One seed for each history.

    Raises:
        ValueError: If there is not one seed for each task.
        TypeError: If the tasks do not know what is optimal.
    """

    source_algorithm = "noisy_oracle"

    def __init__(
        self, tasks: BatchedTasks, config: NoisyOracleConfig, learner_seeds: Int[Tensor, " N"]
    ) -> None:
        if not isinstance(tasks, OracleTasks):
            raise TypeError(
                f"got {type(tasks).__name__} without optimal_actions(), expected tasks that know "
                "what is best to do: add that method, or let an algorithm learn them"
            )
        super().__init__(tasks, config, learner_seeds)
        self._oracle = tasks

    def _forget(self) -> None:
        """There is nothing to forget."""

    def _act(self, obs: Shaped[Tensor, " N *obs"], step: int) -> Shaped[Tensor, " N *action"]:
        epsilon = self._config.epsilon(step // self._tasks.episode_length)
        actions, optimal = self._space.actions, self._oracle.optimal_actions()
        if isinstance(actions, Discrete):
            explores, choice = self._draw(step, 2)
            return torch.where(
                explores < epsilon, uniform_action(choice, actions.num_actions), optimal
            )
        draws = self._draw(step, 1 + actions.dim).T
        explores, choice = draws[:, :1], draws[:, 1:]
        return torch.where(explores < epsilon, 2.0 * choice - 1.0, optimal)

    def _learn(self, actions: Shaped[Tensor, " N *action"], result: BatchedStep) -> None:
        """There is nothing to learn."""
