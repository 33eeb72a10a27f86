"""Figures of an in-context learning curve, each a `Statistic` to put an interval around.

Axis letters: ``R`` training runs, ``N`` tasks, ``E`` in-context episodes.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Float

from algdistill.evaluation.bootstrap import Statistic, mean_return


def mean_between(first: int, last: int) -> Statistic:
    """Mean return of episodes ``first … last``, counted from 1 and both included, one figure.

    Raises:
        ValueError: If the range is empty, or begins before episode 1.
    """
    if not 1 <= first <= last:
        raise ValueError(f"got episodes {first} to {last}, expected 1 <= first <= last")

    def statistic(returns: Float[np.ndarray, "R N E"]) -> Float[np.ndarray, " 1"]:
        if last > returns.shape[-1]:
            raise ValueError(f"got {returns.shape[-1]} episodes, expected at least {last}")
        return np.array([returns[..., first - 1 : last].mean()])

    return statistic


def area_under_curve(low: float, high: float) -> Statistic:
    """Mean over all episodes of the return, as a share of the way from ``low`` to ``high``.

    1 is an agent that is as good as ``high``, such as the optimum, from its first episode on; 0 is
    one that stays at ``low``, such as a random one.

    Raises:
        ValueError: If ``high`` is not above ``low``.
    """
    if not high > low:
        raise ValueError(f"got low={low} and high={high}, expected low < high")

    def statistic(returns: Float[np.ndarray, "R N E"]) -> Float[np.ndarray, " 1"]:
        return np.array([(returns.mean() - low) / (high - low)])

    return statistic


def episodes_to_threshold(threshold: float, *, smoothing: int = 1) -> Statistic:
    """Episodes until the mean return over runs and tasks reaches ``threshold``, one figure.

    The mean is taken over the latest ``smoothing`` episodes as well, so that a lucky one does not
    count. A curve that never reaches the threshold has one episode more than there are.

    Raises:
        ValueError: If ``smoothing < 1``.
    """
    if smoothing < 1:
        raise ValueError(f"got smoothing={smoothing}, expected at least 1")

    def statistic(returns: Float[np.ndarray, "R N E"]) -> Float[np.ndarray, " 1"]:
        curve = mean_return(returns)
        kernel = np.ones(smoothing) / smoothing
        smooth = np.convolve(curve, kernel, mode="valid")
        reached = np.flatnonzero(smooth >= threshold)
        episode = reached[0] + smoothing if len(reached) else len(curve) + 1
        return np.array([float(episode)])

    return statistic
