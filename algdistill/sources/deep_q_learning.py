r"""Independent deep Q-learners (DQN) on tasks of their own, as stacked networks.

A learner keeps its latest steps in a replay memory and, every ``update_interval`` steps, takes a
step of Adam towards targets of remembered sequences (Mnih et al. 2015). The network :math:`Q`
chooses the best action of the state that a step led to, and a copy of it, which follows later,
:math:`\bar Q`, says its value (Double DQN, van Hasselt et al. 2016,
`arXiv 1509.06461 <https://arxiv.org/abs/1509.06461>`_):

.. math:: V(s') = \bar Q\bigl(s', \arg\max_{a'} Q(s', a')\bigr)

Targets are Peng's :math:`\lambda`-returns (Peng and Williams 1996; Harb and Precup 2017,
`arXiv 1704.05495 <https://arxiv.org/abs/1704.05495>`_), computed backwards from the end of each
sequence, where :math:`G_T = V(s'_{T-1})`. They do not cut at an explorer's choices, so that a
reward teaches the whole way to it; with :math:`\lambda = 0` they are Double DQN's.

.. math:: G_t = r_t + \gamma\,(1 - \text{terminated}_t)\bigl[
    (1 - \lambda_t) V(s'_t) + \lambda_t G_{t+1}\bigr], \qquad
    \lambda_t = \lambda\,(1 - \text{ended}_t)

A time limit does not end the task: the target bootstraps through truncation, from the state that
was cut off. The network's own output is :math:`(1 - \gamma) Q`, no larger than a reward whatever
the discount, and the loss is :math:`\tfrac12 (1 - \gamma)^2\,\mathbb{E}\,(Q(s_t, a_t) - G_t)^2`.

Axis letters: ``N`` learners, ``T`` steps of a sequence, ``S`` sequences of an update, ``C`` steps
that are remembered.
"""

from __future__ import annotations

from copy import deepcopy
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int, Shaped
from torch import Tensor

from algdistill.sources.epsilon_greedy import NUM_DRAWS, EpsilonGreedyConfig, epsilon_greedy
from algdistill.sources.fleet import SourceFleet
from algdistill.sources.policy_gradient import lambda_advantages
from algdistill.sources.stacked_adam import StackedAdam
from algdistill.sources.stacked_networks import (
    FirstLayer,
    StackedPerceptron,
    WeightStreams,
    check_width,
    layer_for,
)
from algdistill.tasks import BatchedStep, BatchedTasks


@dataclass(frozen=True)
class DeepQLearningConfig(EpsilonGreedyConfig):
    """Settings of every learner.

    Attributes:
        num_episodes: Episodes each learner trains for.
        exploration_episodes: Episodes over which epsilon falls linearly from 1 to
            ``final_epsilon``; with 0 it is ``final_epsilon`` from the beginning.
        final_epsilon: Probability of a uniformly random action afterwards.
        hidden_size: Width of the network's layers, a multiple of 16.
        num_layers: Layers before the head.
        replay_capacity: Latest steps that a learner remembers, ``C``.
        batch_size: Steps in an update, a multiple of ``sequence_length``.
        sequence_length: Successive steps that are remembered together, ``T``.
        q_lambda: Lambda of the returns along a sequence, in [0, 1].
        update_interval: Steps between two updates.
        target_interval: Updates between two moves of the target network.
        target_rate: How far it moves to the network, in (0, 1]; 1 copies (Mnih et al. 2015),
            less with an interval of 1 is Polyak averaging (Lillicrap et al. 2016).
        learning_rate: Of Adam.
        discount: Gamma, in [0, 1).
        max_grad_norm: Longest gradient of a learner; longer ones are shortened to it.

    Raises:
        ValueError: If a value is out of its range.
    """

    hidden_size: int = 32
    num_layers: int = 2
    replay_capacity: int = 10_000
    batch_size: int = 40
    sequence_length: int = 10
    q_lambda: float = 0.8
    update_interval: int = 2
    target_interval: int = 1
    target_rate: float = 0.05
    learning_rate: float = 3e-3
    discount: float = 0.9
    max_grad_norm: float = 0.5

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("num_layers", "sequence_length", "update_interval", "target_interval"):
            self._check_range(name, 1.0)
        check_width(self.hidden_size)
        self._check_range("replay_capacity", float(self.batch_size))
        if self.batch_size < 1 or self.batch_size % self.sequence_length:
            raise ValueError(
                f"got batch_size={self.batch_size}, expected a multiple of sequence_length="
                f"{self.sequence_length}"
            )
        self._check_range("q_lambda", 0.0, 1.0)
        self._check_range("target_rate", 1e-9, 1.0)
        self._check_range("discount", 0.0, 1.0 - 1e-6)
        for name in ("learning_rate", "max_grad_norm"):
            self._check_range(name, 1e-9)


class DeepQLearning(SourceFleet[DeepQLearningConfig]):
    """Independent deep Q-learners on ``tasks``, learner ``i`` on task ``i``.

    A learner's history depends on its task and its seed only. On a CPU it is the same alone as in a
    fleet of thousands, with the same number of threads; on other devices as far as kernels round
    alike. Observations are remembered as shown (frames as uint8), two a step, on the tasks' device.

    Args:
        tasks: One task for each learner.
        config: Settings shared by all.
        learner_seeds: One seed for each learner.
        first_layer: Reads observations; needed for pixels only.

    Raises:
        ValueError: If there is not one seed for each task, or nothing reads the pixels shown.
        TypeError: If actions are not discrete.

    Example:
        >>> import torch
        >>> from algdistill.tasks_fake import dark_room_tasks
        >>> tasks = dark_room_tasks(size=3)
        >>> fleet = DeepQLearning(tasks, DeepQLearningConfig(num_episodes=30), tasks.task_ids)
        >>> history = fleet.train()[0]
        >>> bool(history.episode_returns[-10:].mean() > history.episode_returns[:10].mean())
        True
    """

    source_algorithm = "deep_q_learning"

    def __init__(
        self,
        tasks: BatchedTasks,
        config: DeepQLearningConfig,
        learner_seeds: Int[Tensor, " N"],
        first_layer: FirstLayer | None = None,
    ) -> None:
        super().__init__(tasks, config, learner_seeds)
        self._first_layer = first_layer or layer_for(self._space)
        self._num_actions = self._space.num_actions
        self._capacity = min(config.replay_capacity, self.num_steps)
        self._forget()

    def _forget(self) -> None:
        config = self._config
        self.network = StackedPerceptron(
            WeightStreams(self._origins),
            self._first_layer,
            config.hidden_size,
            config.num_layers,
            self._num_actions,
        )
        self.target_network = deepcopy(self.network).requires_grad_(False)
        self._optimizer = StackedAdam(self.network, config.learning_rate, config.max_grad_norm)
        self._num_updates = 0
        self._num_seen = 0
        self._memory: list[Shaped[Tensor, "N C ..."]] = []

    @torch.no_grad()
    def _act(self, obs: Shaped[Tensor, " N *obs"], step: int) -> Int[Tensor, " N"]:
        """Epsilon-greedy; the rest of the step's numbers choose what is remembered."""
        num_sequences = self._config.batch_size // self._config.sequence_length
        draws = self._draw(step, NUM_DRAWS + num_sequences)
        self._obs, self._replay_draws = obs, draws[NUM_DRAWS:].T
        epsilon = self._config.epsilon(step // self._tasks.episode_length)
        values = self.network(obs[:, None])[:, 0].T
        return epsilon_greedy(values, epsilon, draws[:NUM_DRAWS])

    def _learn(self, actions: Int[Tensor, " N"], result: BatchedStep) -> None:
        """Remember the step; every ``update_interval`` steps, learn from remembered ones."""
        ended = result.terminated | result.truncated
        step = (self._obs, actions, result.reward, result.next_obs, result.terminated, ended)
        if not self._memory:
            self._memory = [
                value.new_empty(len(value), self._capacity, *value.shape[1:]) for value in step
            ]
        for column, value in zip(self._memory, step, strict=True):
            column[:, self._num_seen % self._capacity] = value
        self._num_seen += 1
        enough = self._num_seen >= self._config.batch_size
        if enough and self._num_seen % self._config.update_interval == 0:
            self._update(self._remembered(self._replay_draws))

    def _remembered(self, draws: Float[Tensor, "N S"]) -> _Steps:
        """Sequences of every learner, uniformly from all that its memory holds."""
        length = self._config.sequence_length
        held = min(self._num_seen, self._capacity)
        first = self._num_seen - held + (draws * (held - length + 1)).long()
        later = torch.arange(length, device=draws.device)
        slots = (first[:, None] + later[:, None]) % self._capacity
        learners = torch.arange(len(draws), device=draws.device)[:, None, None]
        return _Steps(*(column[learners, slots] for column in self._memory))

    @torch.no_grad()
    def _targets(self, steps: _Steps) -> Float[Tensor, "N T S"]:
        """The returns that values of the actions taken should move to."""
        next_obs = steps.next_obs.flatten(1, 2)
        best = self.network(next_obs).argmax(dim=-1, keepdim=True)
        next_values = self.target_network(next_obs).gather(-1, best).view_as(steps.rewards)
        next_values = next_values / (1.0 - self._config.discount)
        # A step starts where the one before it led to, unless that ended and nothing is carried
        # over: the values subtracted from returns and added again are these, one step later.
        values: Tensor = next_values.roll(1, dims=1)
        return values + lambda_advantages(
            steps.rewards,
            values,
            next_values,
            steps.terminated,
            steps.ended,
            discount=self._config.discount,
            gae_lambda=self._config.q_lambda,
        )

    def _update(self, steps: _Steps) -> None:
        """Take a step of Adam; the target network follows."""
        config = self._config
        targets = self._targets(steps).flatten(1)
        outputs = self.network(steps.obs.flatten(1, 2))
        chosen = outputs.gather(-1, steps.actions.flatten(1)[..., None])[..., 0]
        losses = 0.5 * (chosen - (1.0 - config.discount) * targets).square()
        self._optimizer.descend(losses.mean(dim=1).sum())
        self._num_updates += 1
        if self._num_updates % config.target_interval == 0:
            followers = self.target_network.parameters()
            for follower, parameter in zip(followers, self.network.parameters(), strict=True):
                follower.lerp_(parameter.detach(), config.target_rate)


@dataclass(frozen=True)
class _Steps:
    """Remembered sequences of every learner, ``[N, T, S]``."""

    obs: Tensor
    actions: Tensor
    rewards: Tensor
    next_obs: Tensor
    terminated: Tensor
    ended: Tensor
