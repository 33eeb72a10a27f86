"""Stratified bootstrap intervals over training runs and tasks (Agarwal et al. 2021), by rliable.

Axis letters: ``R`` training runs, ``N`` tasks, ``E`` in-context episodes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from rliable.library import get_interval_estimates

Statistic = Callable[[Float[np.ndarray, "R N E"]], Float[np.ndarray, " K"]]
"""Maps the returns of resampled runs and tasks to any number ``K`` of figures."""


@dataclass(frozen=True)
class Interval:
    """A statistic with its interval, elementwise."""

    value: Float[np.ndarray, " K"]
    low: Float[np.ndarray, " K"]
    high: Float[np.ndarray, " K"]


def interquartile_mean(returns: Float[np.ndarray, "R N E"]) -> Float[np.ndarray, " E"]:
    """Mean of the middle half of all runs and tasks, for each episode."""
    ordered = np.sort(returns.reshape(-1, returns.shape[-1]), axis=0)
    cut = len(ordered) // 4
    means: Float[np.ndarray, " E"] = ordered[cut : len(ordered) - cut].mean(axis=0)
    return means


def mean_return(returns: Float[np.ndarray, "R N E"]) -> Float[np.ndarray, " E"]:
    """Mean over all runs and tasks, for each episode."""
    means: Float[np.ndarray, " E"] = returns.mean(axis=(0, 1))
    return means


def improvement(num_episodes: int) -> Statistic:
    """Mean return of the last ``num_episodes`` episodes over that of the first, one figure.

    Infinite where the first episodes earned nothing and the last did.
    """

    def ratio(returns: Float[np.ndarray, "R N E"]) -> Float[np.ndarray, " 1"]:
        last, first = returns[..., -num_episodes:].mean(), returns[..., :num_episodes].mean()
        with np.errstate(divide="ignore", invalid="ignore"):
            return np.array([last / first])

    return ratio


def bootstrap_interval(
    returns: Float[np.ndarray, "R N E"],
    statistic: Statistic,
    *,
    seed: int,
    num_resamples: int = 2000,
    confidence: float = 0.95,
) -> Interval:
    """Percentile interval of a statistic, runs and tasks both drawn anew.

    Tasks are resampled together, runs within each task, and all episodes of a run on a task stay
    together, so that a statistic may relate one episode to another.

    Args:
        returns: One return for each training run, task and episode.
        statistic: What to compute.
        seed: Of the resampling.
        num_resamples: Bootstrap samples.
        confidence: Share of them within the interval.

    Raises:
        ValueError: If ``returns`` is empty or not finite.
    """
    if returns.size == 0 or not np.isfinite(returns).all():
        raise ValueError(
            f"got returns of shape {returns.shape}, expected finite numbers and at least one of "
            "each of runs, tasks and episodes"
        )
    # rliable would resample each episode by itself: give it names of (run, task) pairs instead.
    num_runs, num_tasks, num_episodes = returns.shape
    pairs = np.arange(num_runs * num_tasks).reshape(num_runs, num_tasks)
    flat = returns.reshape(-1, num_episodes)
    with _seeded(seed):
        values, bounds = get_interval_estimates(
            {"all": pairs},
            lambda names: statistic(flat[names]),
            task_bootstrap=True,
            reps=num_resamples,
            confidence_interval_size=confidence,
        )
    return Interval(values["all"], bounds["all"][0], bounds["all"][1])


@contextmanager
def _seeded(seed: int) -> Iterator[None]:
    """Seed NumPy's global generator, which rliable draws from whatever it is told, and restore."""
    state = np.random.get_state()  # noqa: NPY002
    np.random.seed(seed)  # noqa: NPY002
    try:
        yield
    finally:
        np.random.set_state(state)  # noqa: NPY002
