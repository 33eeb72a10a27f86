r"""A fleet of independent tabular Q-learners, one for each task, as stacked tables.

Watkins' update with the learning rate :math:`\alpha` and the discount :math:`\gamma`
(Watkins and Dayan 1992):

.. math:: Q(s, a) \leftarrow Q(s, a)
    + \alpha\,[r + \gamma \max_{a'} Q(s', a')\,(1 - \text{terminated}) - Q(s, a)]

A time limit does not end the task: the update bootstraps through truncation. After each episode
its steps are replayed once, last step first (Lin 1992), so that one reward teaches the whole way
to it and a source learns within tens of episodes: distillation copies the speed of its source.

Axis letters: ``N`` learners, ``S`` states, ``A`` actions, ``T`` steps of an episode.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from algdistill.histories.recorder import HistoryRecorder
from algdistill.histories.schema import LearningHistory
from algdistill.sources.random_streams import uniform_block
from algdistill.tasks import BatchedTasks, TaskSpace, flat_observation

_DRAWS_PER_STEP = 3


@dataclass(frozen=True)
class TabularQLearningConfig:
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

    num_episodes: int = 40
    exploration_episodes: int = 20
    final_epsilon: float = 0.0
    learning_rate: float = 1.0
    discount: float = 0.9

    def __post_init__(self) -> None:
        for name, low, high in (
            ("num_episodes", 1, float("inf")),
            ("exploration_episodes", 1, float("inf")),
            ("final_epsilon", 0.0, 1.0),
            ("learning_rate", 1e-6, 1.0),
            ("discount", 0.0, 1.0 - 1e-6),
        ):
            value = getattr(self, name)
            if not low <= value <= high:
                raise ValueError(f"got {name}={value}, expected {low} to {high}")

    def epsilon(self, episode: int) -> float:
        """Probability of a random action in an episode; the first is 0."""
        progress = min(episode / self.exploration_episodes, 1.0)
        return 1.0 + (self.final_epsilon - 1.0) * progress


class TabularQLearning:
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

    def __init__(
        self,
        tasks: BatchedTasks,
        config: TabularQLearningConfig,
        learner_seeds: Int[Tensor, " N"],
    ) -> None:
        if learner_seeds.shape != (tasks.num_tasks,):
            raise ValueError(
                f"got learner_seeds of shape {tuple(learner_seeds.shape)}, expected one for each "
                f"of the {tasks.num_tasks} tasks"
            )
        self._tasks = tasks
        self._config = config
        self._space = TaskSpace.of(tasks)
        self._seeds = learner_seeds.to(tasks.device)
        self._num_states = 1
        for size in self._space.observation_sizes:
            self._num_states *= size
        rows = torch.arange(tasks.num_tasks, device=tasks.device)
        self._first_state = rows * self._num_states
        self.q_values = torch.zeros(
            tasks.num_tasks * self._num_states, self._space.num_actions, device=tasks.device
        )

    def train(self) -> list[LearningHistory]:
        """Train every learner from the beginning and return its whole history."""
        num_steps = self._config.num_episodes * self._tasks.episode_length
        recorder = HistoryRecorder(
            self._space,
            self._tasks.task_ids,
            num_steps,
            {"source_algorithm": "tabular_q_learning", **asdict(self._config)},
        )
        self.q_values.zero_()
        obs = self._tasks.reset()
        for episode in range(self._config.num_episodes):
            obs = self._train_episode(episode, obs, recorder)
        return recorder.histories()

    def _train_episode(
        self, episode: int, obs: Int[Tensor, "N O"], recorder: HistoryRecorder
    ) -> Int[Tensor, "N O"]:
        """Act and learn for one episode, replay it backwards, return the next first observation."""
        length = self._tasks.episode_length
        count = length * _DRAWS_PER_STEP
        draws = uniform_block(self._seeds, episode * count, count)
        epsilon = self._config.epsilon(episode)
        steps = []
        for draw in draws.view(length, _DRAWS_PER_STEP, -1):
            states = self._state_index(obs)
            actions = self._act(states, epsilon, draw)
            result = self._tasks.step(actions)
            recorder.record(obs, actions, result)
            step = (
                states * self._space.num_actions + actions,
                result.reward,
                self._state_index(result.next_obs),
                result.terminated,
            )
            self._learn(*step)
            steps.append(step)
            obs = result.obs
        for step in reversed(steps):
            self._learn(*step)
        return obs

    def _state_index(self, obs: Int[Tensor, "N O"]) -> Int[Tensor, " N"]:
        """Row of ``q_values`` for each learner's observation."""
        return self._first_state + flat_observation(obs, self._space.observation_sizes)

    def _act(
        self, states: Int[Tensor, " N"], epsilon: float, draw: Float[Tensor, "3 N"]
    ) -> Int[Tensor, " N"]:
        """Epsilon-greedy, ties between best actions broken uniformly."""
        values = self.q_values[states]
        best = values == values.amax(dim=1, keepdim=True)
        rank = best.cumsum(dim=1)
        chosen = (draw[1] * rank[:, -1]).long() + 1
        greedy = (rank >= chosen[:, None]).long().argmax(dim=1)
        uniform = (draw[2] * self._space.num_actions).long()
        return torch.where(draw[0] < epsilon, uniform, greedy)

    def _learn(
        self,
        index: Int[Tensor, " N"],
        reward: Float[Tensor, " N"],
        next_states: Int[Tensor, " N"],
        terminated: Bool[Tensor, " N"],
    ) -> None:
        """One update of one entry in every learner's table."""
        future = self.q_values[next_states].amax(dim=1) * ~terminated
        flat = self.q_values.view(-1)
        old = flat[index]
        target = reward + self._config.discount * future
        flat[index] = old + self._config.learning_rate * (target - old)
