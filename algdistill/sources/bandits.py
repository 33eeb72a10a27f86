r"""Fleets of bandit algorithms, for tasks with a single state: UCB1 and Thompson sampling.

A learner remembers, for each arm :math:`a`, how often it was pulled, :math:`n_a`, and what it paid
in total, :math:`s_a`. It forgets nothing when an episode ends: its history is one long run of
trials. Ties are broken uniformly.

Axis letters: ``N`` learners, ``A`` arms, ``O`` components of an observation.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from algdistill.sources.beta_sampling import DRAWS_PER_SAMPLE, sample_beta
from algdistill.sources.fleet import Config, FleetConfig, SourceFleet, uniform_argmax
from algdistill.tasks import BatchedStep, BatchedTasks


class BanditFleet(SourceFleet[Config]):
    """Learners that remember how often each arm was pulled, and what it paid.

    Raises:
        ValueError: If there is not one seed for each task, or the tasks have several states.
    """

    def __init__(
        self, tasks: BatchedTasks, config: Config, learner_seeds: Int[Tensor, " N"]
    ) -> None:
        super().__init__(tasks, config, learner_seeds)
        if math.prod(self._space.observation_sizes) != 1:
            raise ValueError(
                f"got tasks with observation_sizes={self._space.observation_sizes}, expected a "
                "single state, as (1,): for tasks with several use TabularQLearning"
            )
        self._forget()

    def _forget(self) -> None:
        shape = (self._space.num_actions, self._tasks.num_tasks)
        self._pulls, self._paid = torch.zeros(2, *shape, device=self._tasks.device)

    def _learn(self, actions: Int[Tensor, " N"], result: BatchedStep) -> None:
        self._check_rewards(result.reward)
        self._pulls.scatter_add_(0, actions[None], torch.ones_like(result.reward)[None])
        self._paid.scatter_add_(0, actions[None], result.reward[None])

    def _check_rewards(self, reward: Float[Tensor, " N"]) -> None:
        """Refuse rewards that the algorithm is not made for."""
        if not bool(((reward >= 0) & (reward <= 1)).all()):
            raise ValueError(
                f"got rewards from {reward.min():g} to {reward.max():g}, expected 0 to 1: "
                "rescale them"
            )


@dataclass(frozen=True)
class UCB1Config(FleetConfig):
    """Settings of every learner of a fleet.

    Attributes:
        num_episodes: Episodes of trials each learner goes through.
        exploration: Factor of the logarithm, above 0; 2 in the paper. With less, a learner settles
            earlier, and more often on a wrong arm.

    Raises:
        ValueError: If a value is out of its range.
    """

    num_episodes: int = 1
    exploration: float = 2.0

    def __post_init__(self) -> None:
        super().__post_init__()
        self._check_range("exploration", 1e-6, 1e6)


class UCB1(BanditFleet[UCB1Config]):
    r"""Independent learners that pull the arm with the highest upper confidence bound.

    After each arm was pulled once, trial :math:`n + 1` pulls the arm with the largest
    (Auer, Cesa-Bianchi and Fischer 2002, "Finite-time Analysis of the Multiarmed Bandit Problem")

    .. math:: \frac{s_a}{n_a} + \sqrt{\frac{2 \ln n}{n_a}}

    where 2 is ``exploration``. A learner's history depends on its task and its seed only: it is
    the same alone as in a fleet of thousands. See ``docs/algorithm_distillation.md`` for an
    example.

    Args:
        tasks: One task for each learner, with a single state and rewards 0 to 1.
        config: Settings shared by all.
        learner_seeds: One seed for each learner, of its ties.

    Raises:
        ValueError: If there is not one seed for each task, or the tasks have several states; when
            training, if a reward is below 0 or above 1.
    """

    source_algorithm = "ucb1"

    def _act(self, obs: Int[Tensor, "N O"], step: int) -> Int[Tensor, " N"]:
        (tie,) = self._draw(step, 1)
        return uniform_argmax(self._bounds(step), tie)

    def _bounds(self, num_pulls: int) -> Float[Tensor, "A N"]:
        """Upper confidence bound of every arm; infinite for those that were never pulled."""
        log_pulls = math.log(max(num_pulls, 1))
        bonus = (self._config.exploration * log_pulls / self._pulls).sqrt()
        return torch.where(self._pulls > 0, self._paid / self._pulls + bonus, math.inf)


@dataclass(frozen=True)
class ThompsonSamplingConfig(FleetConfig):
    """Settings of every learner of a fleet.

    Attributes:
        num_episodes: Episodes of trials each learner goes through.

    Raises:
        ValueError: If a value is out of its range.
    """

    num_episodes: int = 1


class ThompsonSampling(BanditFleet[ThompsonSamplingConfig]):
    r"""Independent learners that pull each arm as likely as they believe it to be the best.

    Arms pay 0 or 1, and all probabilities are equally likely at first. Each trial draws, for every
    arm, a probability from what is believed of it,

    .. math:: \theta_a \sim \text{Beta}(1 + s_a,\; 1 + n_a - s_a)

    and pulls the arm with the largest (Thompson 1933; Chapelle and Li 2011, "An Empirical
    Evaluation of Thompson Sampling"). A learner's draws depend on its seed only, so its history is
    the same alone as in a fleet of thousands, as far as double precision can tell. See
    ``docs/algorithm_distillation.md`` for an example.

    Args:
        tasks: One task for each learner, with a single state and rewards 0 or 1.
        config: Settings shared by all.
        learner_seeds: One seed for each learner.

    Raises:
        ValueError: If there is not one seed for each task, or the tasks have several states; when
            training, if a reward is neither 0 nor 1.
    """

    source_algorithm = "thompson_sampling"

    def _act(self, obs: Int[Tensor, "N O"], step: int) -> Int[Tensor, " N"]:
        num_arms, num_learners = self._pulls.shape
        arms = torch.arange(num_arms, device=self._pulls.device)
        first = (step * num_arms + arms) * DRAWS_PER_SAMPLE
        samples = sample_beta(
            (1.0 + self._paid).double().flatten(),
            (1.0 + self._pulls - self._paid).double().flatten(),
            self._origins.repeat(num_arms),
            first.repeat_interleave(num_learners),
        )
        return samples.view(num_arms, num_learners).argmax(dim=0)

    def _check_rewards(self, reward: Float[Tensor, " N"]) -> None:
        if not bool(((reward == 0) | (reward == 1)).all()):
            raise ValueError(
                f"got rewards from {reward.min():g} to {reward.max():g}, expected each 0 or 1: "
                "use UCB1 for others"
            )
