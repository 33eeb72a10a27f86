"""Rewards of one environment's frames, in the order in which they were seen.

Axes: `R` rows, each one frame: the frame of a reset, or one that an action led to.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Bool, Float32
from numpy.typing import NDArray

from vlmreward.reward_model import RewardModel
from vlmreward.reward_stream import RewardStream
from vlmreward.step_plan import PlannedStep

_ONLY_RESET = np.array([False])


class RowRewards:
    """Works out rewards chunk by chunk; where the chunks are cut makes no difference.

    Args:
        reward_model: Pays.
        next_goal: Called at every start of an episode, for its goal.
        batch_size: Frames in a forward pass; more only where a single step needs more. With 1,
            steps are encoded one by one, as the wrapper of a single environment does.
    """

    def __init__(
        self, reward_model: RewardModel, next_goal: Callable[[], int], batch_size: int
    ) -> None:
        if batch_size < 1:
            raise ValueError(f"expected batch_size of at least 1, got {batch_size}")
        self._batch_size = batch_size
        self._next_goal = next_goal
        self._stream = RewardStream(reward_model, num_envs=1)

    def __call__(
        self,
        obs: Mapping[str, Any],
        starts: Bool[NDArray[Any], " R"],
        terminated: Bool[NDArray[Any], " R"],
        truncated: Bool[NDArray[Any], " R"],
    ) -> tuple[Float32[NDArray[Any], " R"], Float32[NDArray[Any], " R"]]:
        """Returns the reward and the score of the next rows, NaN for both at starts."""
        planned = [
            self._plan(
                {key: values[row : row + 1] for key, values in obs.items()},
                is_start,
                terminated[row : row + 1],
                truncated[row : row + 1],
            )
            for row, is_start in enumerate(starts.tolist())
        ]
        paid = [
            self._stream.pay(step, embedding)
            for batch in _batches(planned, self._batch_size)
            for step, embedding in zip(batch, self._stream.encode(batch), strict=True)
        ]
        reward = np.array([step.reward[0] for step in paid], dtype=np.float32)
        score = np.array([step.score[0] for step in paid], dtype=np.float32)
        reward[starts] = np.nan
        return reward, score

    def _plan(
        self,
        obs: Mapping[str, Any],
        is_start: bool,
        terminated: Bool[NDArray[Any], " 1"],
        truncated: Bool[NDArray[Any], " 1"],
    ) -> PlannedStep:
        planner = self._stream.planner
        if not is_start:
            return planner.plan(obs, terminated=terminated, truncated=truncated)
        goal = [self._next_goal()]
        return planner.plan({}, stepped=_ONLY_RESET, started=[0], first_obs=obs, goal_index=goal)


def _batches(planned: Sequence[PlannedStep], batch_size: int) -> Iterator[Sequence[PlannedStep]]:
    """Divides steps into runs that have no more rows to encode than fit, if not one step alone."""
    begin = num_rows = 0
    for end, step in enumerate(planned):
        if num_rows and num_rows + step.num_rows > batch_size:
            yield planned[begin:end]
            begin, num_rows = end, 0
        num_rows += step.num_rows
    yield planned[begin:]


def goals_of_episodes(goal_index: Any, num_episodes: int) -> Iterator[int]:
    """Returns the goal of every episode in order, from one for all or one for each.

    Raises:
        ValueError: If there is another number of goals than of episodes.
    """
    goals = np.asarray(goal_index)
    if goals.ndim == 0:
        goals = np.full(num_episodes, goals)
    if goals.shape != (num_episodes,):
        raise ValueError(
            f"expected one goal_index for all, or one for each of the {num_episodes} episodes, got "
            f"shape {list(goals.shape)}"
        )
    return iter(goals.tolist())
