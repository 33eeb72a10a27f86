"""What is added up over learning histories, one at a time, to judge them.

Axis letters: ``E`` episodes, ``D`` tenths of training, ``N`` tasks, ``W`` contexts.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int

from algdistill.histories.schema import LearningHistory
from algdistill.spaces import Discrete, Symbolic
from algdistill.task_space import TaskSpace

_MOST_COUNTED = 2**26
_MOST_IMPROVEMENTS = 2**17
_NORMAL_95 = 1.96


@dataclass(frozen=True)
class Coverage:
    """Shares of what symbolic observations and numbered actions can be.

    Attributes:
        states: Observations that any history visited.
        states_of_one: Observations that one history visited, on average.
        pairs: Pairs of observation and action that any history tried; None where actions are
            continuous or pairs too many to count.
    """

    states: float
    states_of_one: float
    pairs: float | None


class Thinned:
    """An even sample of any number of values: every one, then every second, then every fourth."""

    def __init__(self, limit: int = _MOST_IMPROVEMENTS) -> None:
        self._limit = limit
        self._stride = 1
        self._num_seen = 0
        self._pieces: list[np.ndarray] = []
        self._num_kept = 0

    @property
    def values(self) -> Float[np.ndarray, " W"]:
        """The sample, in order."""
        return np.concatenate([np.empty(0), *self._pieces])

    def add(self, values: Float[np.ndarray, " W"]) -> None:
        """Take values in."""
        phase = -self._num_seen % self._stride
        self._num_seen += len(values)
        piece = values[phase :: self._stride]
        if len(piece):
            self._pieces.append(piece.copy())
            self._num_kept += len(piece)
        while self._num_kept > self._limit:
            self._pieces = [self.values[::2]]
            self._num_kept = len(self._pieces[0])
            self._stride *= 2


class QualitySums:
    """Adds up histories for contexts of ``context_length`` time steps."""

    def __init__(self, context_length: int) -> None:
        self._context_length = context_length
        self._space: TaskSpace | None = None
        self.num_histories = 0
        self.num_steps = 0
        self.num_too_short = 0
        self.decile_returns = np.zeros(10)
        self.decile_env_returns = np.zeros(10)
        self.improvements = Thinned()
        self._curve = np.zeros((3, 0))  # how many, their sum, the sum of their squares
        self._gain = np.zeros((3, 1))
        self._tasks: dict[int, np.ndarray] = {}  # how many, sum of first and of last tenths
        self._contexts = np.zeros(2)  # how many, whole episodes in them
        self._states = np.zeros(0, bool)
        self._pairs = np.zeros(0, bool)
        self._states_of_one = 0.0

    def add(self, history: LearningHistory) -> None:
        """Take one history in."""
        if self._space is None:
            self._space = history.space
            self._prepare_coverage(history.space)
        if history.space != self._space:
            raise ValueError(
                f"got histories of several spaces, expected one: {self._space}, {history.space}"
            )
        ends = np.flatnonzero(history.terminated | history.truncated) + 1
        if len(ends) < 2:
            raise ValueError(
                f"got {history!r} with {len(ends)} whole episodes, expected at least two: learning "
                "within a single episode is not judged here"
            )
        starts = np.concatenate([[0], ends[:-1]])
        whole = slice(ends[-1])
        returns = np.add.reduceat(history.rewards[whole], starts, dtype=np.float64)
        env_returns = np.add.reduceat(history.env_rewards[whole], starts, dtype=np.float64)
        self.num_histories += 1
        self.num_steps += len(history)
        self.num_too_short += len(history) < self._context_length
        self._add_curve(returns)
        deciles = _deciles(returns)
        self.decile_returns += deciles
        self.decile_env_returns += _deciles(env_returns)
        gain = deciles[-1] - deciles[0]
        self._gain += [[1.0], [gain], [gain**2]]
        task = self._tasks.setdefault(history.task_id, np.zeros(3))
        task += 1.0, deciles[0], deciles[-1]
        self._add_contexts(starts[starts + self._context_length <= len(history)], ends, returns)
        self._add_coverage(history)

    def _add_curve(self, returns: Float[np.ndarray, " E"]) -> None:
        missing = len(returns) - self._curve.shape[1]
        if missing > 0:
            self._curve = np.pad(self._curve, ((0, 0), (0, missing)))
        self._curve[:, : len(returns)] += np.stack([np.ones_like(returns), returns, returns**2])

    def _add_contexts(
        self,
        starts: Int[np.ndarray, " W"],
        ends: Int[np.ndarray, " E"],
        returns: Float[np.ndarray, " E"],
    ) -> None:
        """Improvement within the contexts that start with the first episodes."""
        first = np.arange(len(starts))
        whole = np.searchsorted(ends, starts + self._context_length, side="right") - first
        self._contexts += len(starts), whole.sum()
        first, whole = first[whole >= 2], whole[whole >= 2]
        total = np.concatenate([[0.0], np.cumsum(returns)])
        half = whole // 2
        early = total[first + half] - total[first]
        late = total[first + whole] - total[first + whole - half]
        self.improvements.add((late - early) / half)

    def _prepare_coverage(self, space: TaskSpace) -> None:
        if isinstance(space.observations, Symbolic):
            num_states = math.prod(space.observations.sizes)
            self._states = np.zeros(num_states if num_states <= _MOST_COUNTED else 0, bool)
            if isinstance(space.actions, Discrete):
                num_pairs = len(self._states) * space.actions.num_actions
                self._pairs = np.zeros(num_pairs if num_pairs <= _MOST_COUNTED else 0, bool)

    def _add_coverage(self, history: LearningHistory) -> None:
        if not len(self._states):
            return
        sizes = history.space.observation_sizes
        states = np.ravel_multi_index(tuple(history.observations.T.astype(np.int64)), sizes)
        self._states[states] = True
        self._states_of_one += len(np.unique(states)) / len(self._states)
        if len(self._pairs):
            self._pairs[states * history.space.num_actions + history.actions] = True

    def check(self) -> None:
        """Refuse histories that offer no context at all with a `ValueError`."""
        if self.num_histories == 0:
            raise ValueError("got no learning histories, expected at least one: collect some first")
        if self.num_too_short == self.num_histories:
            raise ValueError(
                f"got context_length={self._context_length}, longer than every history: shorten "
                "the context, train the sources for longer or keep more episodes"
            )

    def curve(self) -> tuple[Float[np.ndarray, " E"], Float[np.ndarray, " E"]]:
        """Mean return by episode, and half the width of its interval."""
        return _mean_and_half_width(*self._curve)

    def reached_by_half(self) -> Bool[np.ndarray, " E"]:
        """Which episodes at least half of the histories reached."""
        reached: Bool[np.ndarray, " E"] = 2 * self._curve[0] >= self.num_histories
        return reached

    def gain(self) -> tuple[float, float]:
        """Mean over histories, and half the width of its interval."""
        mean, half_width = _mean_and_half_width(*self._gain)
        return float(mean[0]), float(half_width[0])

    def task_means(self) -> tuple[Float[np.ndarray, " N"], Float[np.ndarray, " N"]]:
        """Mean return of each task in the first and in the last tenth."""
        count, first, last = np.stack(list(self._tasks.values()), axis=1)
        return first / count, last / count

    def episodes_per_context(self) -> float:
        """Mean number of whole episodes in a context."""
        return float(self._contexts[1] / self._contexts[0])

    def coverage(self) -> Coverage | None:
        """Shares visited, if observations can be counted."""
        if not len(self._states):
            return None
        return Coverage(
            states=float(self._states.mean()),
            states_of_one=self._states_of_one / self.num_histories,
            pairs=float(self._pairs.mean()) if len(self._pairs) else None,
        )


def _deciles(returns: Float[np.ndarray, " E"]) -> Float[np.ndarray, " D"]:
    """Mean return of each tenth of the episodes; with less than ten, tenths share episodes."""
    total = np.concatenate([[0.0], np.cumsum(returns)])
    low = np.arange(10) * len(returns) // 10
    high = -(-np.arange(1, 11) * len(returns) // 10)
    means: Float[np.ndarray, " D"] = (total[high] - total[low]) / (high - low)
    return means


def _mean_and_half_width(
    count: Float[np.ndarray, " E"], total: Float[np.ndarray, " E"], squares: Float[np.ndarray, " E"]
) -> tuple[Float[np.ndarray, " E"], Float[np.ndarray, " E"]]:
    """Mean of some numbers and half of its 95 % interval; NaN for a single number."""
    mean = total / count
    with np.errstate(invalid="ignore", divide="ignore"):
        variance = np.maximum(squares / count - mean**2, 0.0) * (count / (count - 1.0))
    return mean, _NORMAL_95 * np.sqrt(variance / count)
