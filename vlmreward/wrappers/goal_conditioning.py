"""Goals that change from episode to episode, and policies that are told theirs.

Axes: `N` environments, `S` episodes that start together, `D` width of the embedding.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import gymnasium as gym
import numpy as np
from jaxtyping import Float32, Int64
from numpy.typing import NDArray

from vlmreward.goal_source import GoalSource
from vlmreward.reward_model import GoalIndex, RewardModel

GOAL_EMBEDDING = "goal_embedding"
"""The observation key of the goal's embedding."""

_SLACK = 1.001  # a unit vector's bounds, with room for rounding


class GoalConditioning:
    """What every wrapper does about goals: choose them at a start, and add them to observations.

    Args:
        reward_model: Has the goals.
        goals: One for all, one per environment, or a source asked at every start.
        observe: Whether observations get the goal's embedding.
    """

    def __init__(
        self, reward_model: RewardModel, goals: GoalIndex | GoalSource, observe: bool
    ) -> None:
        self._goals = goals
        self._observe = observe
        every = np.arange(reward_model.num_goals)
        self._embeddings: Float32[NDArray[Any], "G D"] = (
            reward_model.goal_embeddings(every).cpu().numpy()
        )

    def initial(self, num_envs: int) -> GoalIndex:
        """Returns the goals before the first start; with a source they do not matter."""
        return 0 if isinstance(self._goals, GoalSource) else self._goals

    def choose(
        self, obs: Sequence[Any], infos: Sequence[Mapping[str, Any]]
    ) -> Int64[NDArray[Any], " S"] | None:
        """Returns the goals of starting episodes, None where each environment keeps its own."""
        return self._goals(obs, infos) if isinstance(self._goals, GoalSource) else None

    def extend_space(self, space: gym.Space[Any]) -> gym.spaces.Dict:
        """Returns an observation space with the goal's embedding.

        Raises:
            TypeError: If the space is no dict.
            ValueError: If it has an entry of that name.
        """
        if not isinstance(space, gym.spaces.Dict):
            raise TypeError(
                f"observe_goal needs dict observations, got {type(space).__name__}: wrap the "
                "environment in gymnasium.wrappers.AddRenderObservation(env, render_only=False)"
            )
        if GOAL_EMBEDDING in space.spaces:
            raise ValueError(f"the observation has an entry {GOAL_EMBEDDING!r} already")
        shape = self._embeddings.shape[1:]
        return gym.spaces.Dict(
            {**space.spaces, GOAL_EMBEDDING: gym.spaces.Box(-_SLACK, _SLACK, shape, np.float32)}
        )

    def add_to_row(self, obs: Any, goal_index: int) -> Any:
        """Returns one environment's observation with its goal."""
        if not self._observe:
            return obs
        return {**obs, GOAL_EMBEDDING: self._embeddings[goal_index].copy()}

    def add_to_rows(self, obs: Any, goal_index: Int64[NDArray[Any], " N"]) -> Any:
        """Returns a batch of observations with their goals."""
        if not self._observe:
            return obs
        return {**obs, GOAL_EMBEDDING: self._embeddings[goal_index]}
