"""Learning histories of a search: go to places not seen yet until one pays, then always there.

Where the dynamics are known and only the goal is not, that is what an efficient learner does: as
R-MAX (Brafman and Tennenholtz 2002, `JMLR 3, 213–231
<https://www.jmlr.org/papers/v3/brafman02a.html>`_), it plans to what it does not know as if that
paid, and to what pays once it knows. What it learns is where the reward is, nothing else.

Axis letters: ``N`` tasks, ``G`` goals, ``P`` places.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Bool, Int, Shaped
from torch import Tensor

from algdistill.sources.fleet import FleetConfig, SourceFleet, uniform_action, uniform_argmax
from algdistill.sources.noisy_oracle import OracleTasks
from algdistill.tasks import BatchedStep, BatchedTasks, TaskSpace

_NEVER = -1


@runtime_checkable
class SearchableTasks(OracleTasks, Protocol):
    """Tasks that consist in getting to one of many places, or to one after another.

    Attributes:
        num_places: How many places there are; a goal may be between some.
        num_goals: How many goals there are, the first of which pays first.
    """

    num_places: int
    num_goals: int

    def places_seen(self) -> Bool[Tensor, "N P"]:
        """Return which places each agent is at: a goal there would have paid."""
        ...

    def actions_towards(self, places: Int[Tensor, " N"]) -> Int[Tensor, " N"]:
        """Return an action for each task that brings its agent nearer to a place."""
        ...


@dataclass(frozen=True)
class GoalSearchConfig(FleetConfig):
    """Settings of every history.

    Attributes:
        num_episodes: Episodes of each history.
        epsilon: Probability of a uniformly random action, at every step.
        memory: Episodes before the present one of which it is known which places were seen; by
            default all. What a model is to imitate, its context should be able to hold.

    Raises:
        ValueError: If a value is out of its range.
    """

    epsilon: float = 0.05
    memory: int | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        self._check_range("epsilon", 0.0, 1.0)
        if self.memory is not None:
            self._check_range("memory", 0.0)


class GoalSearch(SourceFleet[GoalSearchConfig]):
    """Walks to places it does not remember until it is paid, then takes optimal actions.

    Places are drawn uniformly among those not seen as far as it remembers, a new one whenever the
    last was seen or an episode begins. Who has seen all of them unpaid starts over. Where there are
    several goals, it goes to those it knows and searches for the next.

    A history depends on its task and its seed only: it is the same alone as among thousands.

    Args:
        tasks: One task for each history; they are `SearchableTasks` with numbered actions.
        config: Settings shared by all.
        learner_seeds: One seed for each history.

    Raises:
        ValueError: If there is not one seed for each task.
        TypeError: If the tasks have no places to search.

    Example:
        >>> from vlmreward_envs.dark_room import DARK_ROOM_HARD, DarkRoomTasks
        >>> goals = torch.arange(289)
        >>> rooms = DarkRoomTasks(goals, DARK_ROOM_HARD)
        >>> histories = GoalSearch(rooms, GoalSearchConfig(num_episodes=60), goals).train()
        >>> returns = torch.tensor([history.episode_returns.tolist() for history in histories])
        >>> returns.mean(dim=0)[[0, 19, 39, 59]].round(decimals=1)
        tensor([0.1, 0.6, 0.9, 1.0])
    """

    source_algorithm = "goal_search"

    def __init__(
        self, tasks: BatchedTasks, config: GoalSearchConfig, learner_seeds: Int[Tensor, " N"]
    ) -> None:
        if not isinstance(tasks, SearchableTasks):
            raise TypeError(
                f"got {type(tasks).__name__} without places_seen() and actions_towards(), expected "
                "tasks with places to search: add them, or let another algorithm learn the tasks"
            )
        super().__init__(tasks, config, learner_seeds)
        self._searched = tasks
        self._num_actions = TaskSpace.of(tasks).num_actions

    def _forget(self) -> None:
        num_tasks, device = self._tasks.num_tasks, self._tasks.device
        shape = (num_tasks, self._searched.num_goals, self._searched.num_places)
        self._last_seen = torch.full(shape, _NEVER, device=device)
        self._each = torch.arange(num_tasks, device=device)
        self._place = torch.zeros_like(self._each)
        self._num_known = torch.zeros_like(self._each)
        self._num_met = torch.zeros_like(self._each)  # in this episode

    def _act(self, obs: Shaped[Tensor, " N *obs"], step: int) -> Int[Tensor, " N"]:
        explores, choice, draw = self._draw(step, 3)
        episode, step_of_episode = divmod(step, self._tasks.episode_length)
        begins = step_of_episode == 0
        if begins:
            self._num_met = torch.zeros_like(self._num_met)
        is_seen = self._places_seen(episode)
        has_arrived = is_seen.gather(1, self._place[:, None])[:, 0]
        drawn = uniform_argmax((~is_seen).T.float(), draw)
        self._place = torch.where(has_arrived | begins, drawn, self._place)
        knows_way = (self._num_met < self._num_known) | (self._num_met == self._searched.num_goals)
        actions = torch.where(
            knows_way,
            self._searched.optimal_actions(),
            self._searched.actions_towards(self._place),
        )
        return torch.where(
            explores < self._config.epsilon, uniform_action(choice, self._num_actions), actions
        )

    def _places_seen(self, episode: int) -> Bool[Tensor, "N P"]:
        """Take note of the present places, and return all that are remembered for the next goal."""
        goal = self._num_met.clamp(max=self._searched.num_goals - 1)
        last_seen = self._last_seen[self._each, goal]
        last_seen[self._searched.places_seen()] = episode
        first = 0 if self._config.memory is None else episode - self._config.memory
        is_seen = last_seen >= max(first, 0)
        starts_over = is_seen.all(dim=1)
        last_seen[starts_over] = _NEVER
        self._last_seen[self._each, goal] = last_seen
        return is_seen & ~starts_over[:, None]

    def _learn(self, actions: Int[Tensor, " N"], result: BatchedStep) -> None:
        met = self._num_met + (result.reward > 0)
        self._num_met = met.clamp(max=self._searched.num_goals)
        self._num_known = torch.maximum(self._num_known, self._num_met)
