"""Which goal an episode is about: drawn, or told by the environment.

Axes: `S` episodes that start together.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Int64
from numpy.typing import NDArray

from vlmreward.goals import Goal


@runtime_checkable
class GoalSource(Protocol):
    """Chooses the goals of episodes as they start."""

    def __call__(
        self, obs: Sequence[Any], infos: Sequence[Mapping[str, Any]]
    ) -> Int64[NDArray[Any], " S"]:
        """Returns one position in the reward model's goals per starting episode.

        Args:
            obs: What each reset returned.
            infos: The info of each reset.
        """


class SampledGoals:
    """Draws a goal uniformly for every episode: one policy learns many goals.

    Baumli et al. 2023 train on some goals and evaluate on others that they held out: give the
    training wrapper `SampledGoals(train, ...)` and the evaluation's `SampledGoals(held_out, ...)`,
    with the same reward model; `split_goals` divides them.

    Args:
        candidates: Positions in the reward model's goals.
        generator: The source of the draws.

    Raises:
        ValueError: If there is no candidate.

    Example:
        >>> source = SampledGoals([3, 5], np.random.default_rng(0))
        >>> source([None] * 4, [{}] * 4)
        array([5, 5, 5, 3])
    """

    def __init__(self, candidates: Sequence[int], generator: np.random.Generator) -> None:
        self.candidates = np.array(candidates, dtype=np.int64)
        if self.candidates.ndim != 1 or not len(self.candidates):
            raise ValueError(f"expected a list of goals to draw from, got {candidates!r}")
        self._generator = generator

    def __call__(
        self, obs: Sequence[Any], infos: Sequence[Mapping[str, Any]]
    ) -> Int64[NDArray[Any], " S"]:
        """Draws one goal per episode, with replacement."""
        return self.candidates[self._generator.integers(len(self.candidates), size=len(infos))]


class ToldGoals:
    """Reads the goal of an episode where the environment says it, such as BabyAI's `mission`.

    Args:
        goals: The reward model's goals; each is known by any of its prompts.
        key: Where the words are: a key of the info, or else of a dict observation.

    Example:
        >>> source = ToldGoals([Goal("a red room"), Goal("a blue room")], key="mission")
        >>> source([{}], [{"mission": "a blue room"}])
        array([1])
    """

    def __init__(self, goals: Sequence[Goal], key: str) -> None:
        self.key = key
        self._index = {prompt: index for index, goal in enumerate(goals) for prompt in goal.prompts}

    def __call__(
        self, obs: Sequence[Any], infos: Sequence[Mapping[str, Any]]
    ) -> Int64[NDArray[Any], " S"]:
        """Looks up one goal per episode.

        Raises:
            KeyError: If the words are neither in the info nor in the observation.
            ValueError: If they are no prompt of any goal; the nearest is named.
        """
        return np.array([self._find(*pair) for pair in zip(obs, infos, strict=True)], np.int64)

    def _find(self, obs: Any, info: Mapping[str, Any]) -> int:
        for place in (info, obs):
            if isinstance(place, Mapping) and self.key in place:
                words = str(place[self.key])
                break
        else:
            raise KeyError(
                f"expected the goal's words under {self.key!r} in the info or the observation, got "
                f"an info with {sorted(info)}"
            )
        if words not in self._index:
            near = difflib.get_close_matches(words, list(self._index), n=1, cutoff=0.0)
            raise ValueError(
                f"the environment's goal {words!r} is no prompt of the reward model's goals; the "
                f"nearest is {near[0]!r}. Add it to them"
            )
        return self._index[words]


def split_goals(
    num_goals: int, num_held_out: int, generator: np.random.Generator
) -> tuple[list[int], list[int]]:
    """Divides goals at random into those to train on and those held out.

    Returns:
        Positions of both, increasing.

    Raises:
        ValueError: If either part would be empty.
    """
    if not 0 < num_held_out < num_goals:
        raise ValueError(
            f"expected num_held_out between 1 and {num_goals - 1}, got {num_held_out}: both parts "
            "need a goal"
        )
    order = generator.permutation(num_goals).tolist()
    return sorted(order[num_held_out:]), sorted(order[:num_held_out])
