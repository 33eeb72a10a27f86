"""The distance between a reward and the true one.

Shapes: N states.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from jaxtyping import Float64


def epic_distance(rewards: npt.ArrayLike, true_rewards: npt.ArrayLike) -> float:
    r"""EPIC distance for goal tasks, in [0, 1]: 0 for the same reward, 1 for its opposite.

    .. math:: D = \sqrt{1 - \rho} \, / \, \sqrt 2

    with ρ the Pearson correlation of both rewards over a distribution of states, here that of the
    given rows. This is what EPIC (Gleave et al. 2021, arXiv 2006.13900) becomes where a reward
    depends on the state reached alone and the goal states form a set (VLM-RM, Rocamonde et al.
    2024, arXiv 2310.12921). Scaling a reward by a positive number or shifting it changes nothing.

    A constant reward says nothing of the true one, so ρ is taken as 0, and D as √½ ≈ .707, which
    unrelated rewards have too. It is the number to beat.

    Args:
        rewards: What the reward model pays in each state, finite [N].
        true_rewards: What the task pays, finite [N], not all the same. Labels may be given: a goal
            task pays 1 where it is achieved.

    Raises:
        ValueError: If shapes differ or are not one-axis, a number is not finite, or the true reward
            is the same in all states.

    Example:
        >>> true_rewards = np.array([0.0, 0.0, 1.0, 1.0])
        >>> epic_distance(3 * true_rewards - 5, true_rewards), epic_distance(
        ...     -true_rewards, true_rewards)
        (0.0, 1.0)
        >>> round(epic_distance([0.2, 0.3, 0.1, 0.4], true_rewards), 3)  # unrelated: ρ = 0
        0.707
    """
    pair = check_pair("rewards", rewards, "true_rewards", true_rewards)
    return distance_of_standardized(*(standardize(values) for values in pair))


def check_pair(
    name: str, values: npt.ArrayLike, true_name: str, true_values: npt.ArrayLike
) -> tuple[Float64[np.ndarray, " N"], Float64[np.ndarray, " N"]]:
    """Return both columns as arrays, or say what is wrong with them.

    Raises:
        ValueError: If shapes differ or are not one-axis, a number is not finite, or the true values
            are all the same.
    """
    array = np.asarray(values, dtype=np.float64)
    true_array = np.asarray(true_values, dtype=np.float64)
    if array.ndim != 1 or array.shape != true_array.shape:
        raise ValueError(
            f"{name} and {true_name} must both have shape [N], "
            f"got {list(array.shape)} and {list(true_array.shape)}"
        )
    for column_name, column in ((name, array), (true_name, true_array)):
        num_bad = int((~np.isfinite(column)).sum())
        if num_bad:
            raise ValueError(
                f"{column_name} must be finite, got {num_bad} of {column.size} that are NaN or "
                "infinite"
            )
    if np.unique(true_array).size < 2:
        raise ValueError(
            f"{true_name} must differ somewhere, got {true_array.size} equal values: nothing "
            "correlates with a constant; add rows that are better or worse"
        )
    return array, true_array


def standardize(values: Float64[np.ndarray, " N"]) -> Float64[np.ndarray, " N"]:
    """Shift to mean 0 and scale to length 1; a constant becomes zeros."""
    # The first value goes first: what differs in the last digits is then not lost in the mean.
    shifted = values - values[0]
    centred = shifted - shifted.mean()
    length = float(np.linalg.norm(centred))
    return centred / length if np.ptp(values) > 0.0 and length > 0.0 else np.zeros_like(values)


def distance_of_standardized(
    first: Float64[np.ndarray, " N"], second: Float64[np.ndarray, " N"]
) -> float:
    """EPIC distance of two standardized columns: half their Euclidean distance.

    |x − y|² = 2 − 2ρ, so |x − y| / 2 = √(1 − ρ) / √2, without the rounding of 1 − ρ near 0.
    """
    if not first.any() or not second.any():
        return float(np.sqrt(0.5))
    return min(1.0, float(np.linalg.norm(first - second)) / 2.0)
