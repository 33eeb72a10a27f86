r"""A fleet of independent tabular Q-learners, one for each task, as stacked tables.

Watkins' update with the learning rate :math:`\alpha` and the discount :math:`\gamma`
(Watkins and Dayan 1992):

.. math:: Q(s, a) \leftarrow Q(s, a)
    + \alpha\,[r + \gamma \max_{a'} Q(s', a')\,(1 - \text{terminated}) - Q(s, a)]

A time limit does not end the task: the update bootstraps through truncation. After each episode
its steps are replayed, last step first (Lin 1992), so that one reward teaches the whole way to it
and a source learns within tens of episodes: distillation copies the speed of its source.

Two options make a learner fit for harder tasks. Optimistic initial values (Sutton and Barto 2018,
section 2.6) send it to what it has not tried. A memory of rewards lets it tell apart what one
observation hides: the table's state is then the observation and how many steps of the episode have
paid so far, so that the way to a door is learned apart from the way to its key.

Axis letters: ``N`` learners, ``S`` states, ``A`` actions, ``O`` components of an observation.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from math import prod

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from algdistill.sources.epsilon_greedy import NUM_DRAWS, EpsilonGreedyConfig, epsilon_greedy
from algdistill.sources.fleet import SourceFleet
from algdistill.tasks import BatchedStep, BatchedTasks, flat_observation


@dataclass(frozen=True)
class TabularQLearningConfig(EpsilonGreedyConfig):
    """Settings of every learner of a fleet.

    Attributes:
        num_episodes: Episodes each learner trains for.
        exploration_episodes: Episodes over which epsilon falls linearly from 1 to
            ``final_epsilon``; with 0 it is ``final_epsilon`` from the beginning.
        final_epsilon: Probability of a uniformly random action afterwards.
        learning_rate: Alpha, in (0, 1].
        discount: Gamma, in [0, 1).
        initial_value: What every entry of the table starts from.
        replayed_episodes: How many of the latest episodes are replayed after each one.
        reward_memory: Most paid steps of an episode that the learner counts.

    Raises:
        ValueError: If a value is out of its range.
    """

    learning_rate: float = 1.0
    discount: float = 0.9
    initial_value: float = 0.0
    replayed_episodes: int = 1
    reward_memory: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        self._check_range("learning_rate", 1e-6, 1.0)
        self._check_range("discount", 0.0, 1.0 - 1e-6)
        self._check_range("initial_value", -1e6, 1e6)
        self._check_range("replayed_episodes", 1.0)
        self._check_range("reward_memory", 0.0)


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
        num_states = prod(self._space.observation_sizes) * (config.reward_memory + 1)
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
        self._table.fill_(self._config.initial_value)
        self._states = self._first_state
        self._num_paid = torch.zeros_like(self._first_state)
        self._episode: list[_Step] = []
        self._past: deque[list[_Step]] = deque(maxlen=self._config.replayed_episodes)

    def _act(self, obs: Int[Tensor, "N O"], step: int) -> Int[Tensor, " N"]:
        """Epsilon-greedy."""
        self._states = self._state_index(obs)
        epsilon = self._config.epsilon(step // self._tasks.episode_length)
        values = self._table.index_select(1, self._states)
        return epsilon_greedy(values, epsilon, self._draw(step, NUM_DRAWS))

    def _learn(self, actions: Int[Tensor, " N"], result: BatchedStep) -> None:
        """One update in every table; after an episode, the latest ones once more, backwards."""
        if self._config.reward_memory:
            self._num_paid += result.reward > 0
        step = _Step(
            actions * self._table.shape[1] + self._states,
            result.reward,
            self._state_index(result.next_obs),
            result.terminated,
        )
        self._update(step)
        self._episode.append(step)
        if self._config.reward_memory:
            self._num_paid *= ~(result.terminated | result.truncated)
        if len(self._episode) == self._tasks.episode_length:
            self._past.append(self._episode)
            self._episode = []
            for episode in reversed(self._past):
                for past in reversed(episode):
                    self._update(past)

    def _state_index(self, obs: Int[Tensor, "N O"]) -> Int[Tensor, " N"]:
        """Column of the table for each learner's observation and what it was paid so far."""
        observed = flat_observation(obs, self._space.observation_sizes)
        memory = self._config.reward_memory
        if memory:
            observed = observed * (memory + 1) + self._num_paid.clamp(max=memory)
        return self._first_state + observed

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
