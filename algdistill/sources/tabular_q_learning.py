r"""A fleet of independent tabular Q-learners, one for each task, as stacked tables.

Watkins' update with the learning rate :math:`\alpha` and the discount :math:`\gamma`
(Watkins and Dayan 1992):

.. math:: Q(s, a) \leftarrow Q(s, a)
    + \alpha\,[r + \gamma \max_{a'} Q(s', a')\,(1 - \text{terminated}) - Q(s, a)]

A time limit does not end the task: the update bootstraps through truncation. After each episode
its steps are replayed once, last step first (Lin 1992), so that one reward teaches the whole way
to it and a source learns within tens of episodes: distillation copies the speed of its source.

Axis letters: ``N`` learners, ``S`` states, ``A`` actions, ``O`` components of an observation.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import prod

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from algdistill.sources.fleet import FleetConfig, SourceFleet, uniform_action, uniform_argmax
from algdistill.tasks import BatchedStep, BatchedTasks, flat_observation


@dataclass(frozen=True)
class TabularQLearningConfig(FleetConfig):
    """Settings of every learner of a fleet.

    Attributes:
        num_episodes: Episodes each learner trains for.
        exploration_episodes: Episodes over which epsilon falls linearly from 1 to
            ``final_epsilon``.
        final_epsilon: Probability of a uniformly random action afterwards.
        learning_rate: Alpha, in (0, 1].
        discount: Gamma, in [0, 1).

    Raises:
        ValueError: If a value is out of its range.
    """

    exploration_episodes: int = 20
    final_epsilon: float = 0.0
    learning_rate: float = 1.0
    discount: float = 0.9

    def __post_init__(self) -> None:
        super().__post_init__()
        self._check_range("exploration_episodes", 1.0)
        self._check_range("final_epsilon", 0.0, 1.0)
        self._check_range("learning_rate", 1e-6, 1.0)
        self._check_range("discount", 0.0, 1.0 - 1e-6)

    def epsilon(self, episode: int) -> float:
        """Probability of a random action in an episode; the first is 0."""
        progress = min(episode / self.exploration_episodes, 1.0)
        return 1.0 + (self.final_epsilon - 1.0) * progress


class TabularQLearning(SourceFleet[TabularQLearningConfig]):
    """Independent Q-learners on ``tasks``, learner ``i`` on task ``i``.

    A learner's history depends on its task and its seed only: it is the same alone as in a fleet
    of thousands.

    Args:
        tasks: One task for each learner.
        config: Settings shared by all.
        learner_seeds: One seed for each learner.

    Raises:
        ValueError: If there is not one seed for each task.

    Example:
        >>> import torch
        >>> from algdistill.tasks_fake import dark_room_tasks
        >>> tasks = dark_room_tasks(size=3)
        >>> fleet = TabularQLearning(tasks, TabularQLearningConfig(num_episodes=30), tasks.task_ids)
        >>> history = fleet.train()[0]
        >>> history
        LearningHistory(task_id=0, 600 steps, 30 episodes, observations: uint8[600, 2], \
actions: uint8[600], rewards: float32[600])
        >>> bool(history.episode_returns[-1] > history.episode_returns[0])
        True
    """

    source_algorithm = "tabular_q_learning"

    def __init__(
        self,
        tasks: BatchedTasks,
        config: TabularQLearningConfig,
        learner_seeds: Int[Tensor, " N"],
    ) -> None:
        super().__init__(tasks, config, learner_seeds)
        num_states = prod(self._space.observation_sizes)
        self._first_state = torch.arange(tasks.num_tasks, device=tasks.device) * num_states
        # Actions come first, so that the best of them is found for many learners at a time.
        self._table = torch.zeros(
            self._space.num_actions, tasks.num_tasks * num_states, device=tasks.device
        )
        self._forget()

    @property
    def q_values(self) -> Float[Tensor, "NS A"]:
        """All tables, one below the other: the first learner's ``S`` states come first."""
        return self._table.t()

    def _forget(self) -> None:
        self._table.zero_()
        self._states = self._first_state
        self._episode: list[_Step] = []

    def _act(self, obs: Int[Tensor, "N O"], step: int) -> Int[Tensor, " N"]:
        """Epsilon-greedy."""
        self._states = self._state_index(obs)
        explores, tie, choice = self._draw(step, 3)
        greedy = uniform_argmax(self._table.index_select(1, self._states), tie)
        epsilon = self._config.epsilon(step // self._tasks.episode_length)
        uniform = uniform_action(choice, self._space.num_actions)
        return torch.where(explores < epsilon, uniform, greedy)

    def _learn(self, actions: Int[Tensor, " N"], result: BatchedStep) -> None:
        """One update in every table; after an episode, all of its updates once more, backwards."""
        step = _Step(
            actions * self._table.shape[1] + self._states,
            result.reward,
            self._state_index(result.next_obs),
            result.terminated,
        )
        self._update(step)
        self._episode.append(step)
        if len(self._episode) == self._tasks.episode_length:
            for past in reversed(self._episode):
                self._update(past)
            self._episode.clear()

    def _state_index(self, obs: Int[Tensor, "N O"]) -> Int[Tensor, " N"]:
        """Column of the table for each learner's observation."""
        return self._first_state + flat_observation(obs, self._space.observation_sizes)

    def _update(self, step: _Step) -> None:
        """Watkins' update of one entry in every learner's table."""
        future = self._table.index_select(1, step.next_states).amax(dim=0) * ~step.terminated
        flat = self._table.view(-1)
        old = flat.index_select(0, step.entries)
        target = step.reward + self._config.discount * future
        flat.scatter_(0, step.entries, old + self._config.learning_rate * (target - old))


@dataclass(frozen=True)
class _Step:
    """What an update needs: entries of the table in memory order, and columns of next states."""

    entries: Int[Tensor, " N"]
    reward: Float[Tensor, " N"]
    next_states: Int[Tensor, " N"]
    terminated: Bool[Tensor, " N"]
