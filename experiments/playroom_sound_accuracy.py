"""How right embeddings of the Playroom with sound are, goal by goal, and what is better than what.

Axis letters: ``E`` episodes, ``T`` their length, ``G`` sentences, ``D`` width, ``S`` seeds,
``K`` some of the sentences.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Int64
from numpy.typing import NDArray
from torch import Tensor

from playroom_sound_domain import GOALS_OF_KIND, IS_HELD_OUT, SENTENCES
from vlmreward.evaluation import average_precision
from vlmreward_envs.playroom_sound import GoalKind

Precision = NDArray[np.float64]
"""Average precision of every sentence ``[G]``; NaN if it is never true, or not measured."""
_RESAMPLES = 2000


def goal_precision(
    is_true: Bool[Tensor, "E T G"],
    embedded: Float[Tensor, "E T D"],
    text: Float[Tensor, "G D"],
    kinds: Sequence[GoalKind] = tuple(GoalKind),
) -> Precision:
    """Return the average precision of the goals of some kinds, by the cosine with their sentence.

    Args:
        is_true: Which of `SENTENCES` is true of each step.
        embedded: The steps.
        text: The sentences.
        kinds: Of the goals that are measured.
    """
    found = np.full(len(SENTENCES), np.nan)
    scores = (embedded @ text.T).flatten(0, 1).double().numpy()
    labels = is_true.flatten(0, 1).numpy()
    for goal in np.concatenate([GOALS_OF_KIND[kind] for kind in kinds]):
        if labels[:, goal].any():
            found[goal] = average_precision(labels[:, goal], scores[:, goal])
    return found


def mean_by_kind(precision: Precision, name: str) -> dict[str, float]:
    """Return means over the goals of each kind, ``ap_<kind>_<name>``, held-out ones apart."""
    means = {}
    for kind in GoalKind:
        for suffix, goals in _known_goals(kind, precision[None]).items():
            means[f"ap_{kind.name.lower()}_{name}{suffix}"] = float(precision[goals].mean())
    return means


def _known_goals(
    kind: GoalKind, values: Float[np.ndarray, "S G"]
) -> dict[str, Int64[np.ndarray, " K"]]:
    """Return goals of a kind that every seed has, by what to add to their name; none empty."""
    goals = GOALS_OF_KIND[kind]
    known = goals[~np.isnan(values[:, goals]).any(axis=0)]
    groups = {"": known[~IS_HELD_OUT[known]], "_held_out": known[IS_HELD_OUT[known]]}
    return {suffix: of for suffix, of in groups.items() if len(of)}


def table(found: Mapping[str, Sequence[Precision]]) -> dict[str, dict[str, Any]]:
    """Return the mean of each kind of goal with its interval, by what scores; seeds as given.

    Goals that were trained on and held-out ones are apart: ``<kind>`` and ``<kind>_held_out``.
    Seeds and goals are resampled.
    """
    rows: dict[str, dict[str, Any]] = {}
    for name, of_seeds in found.items():
        values = np.stack(of_seeds)
        rows[name] = {}
        for kind in GoalKind:
            for suffix, goals in _known_goals(kind, values).items():
                rows[name][f"{kind.name.lower()}{suffix}"] = interval(values[:, goals])
    return rows


def of_each_goal(found: Mapping[str, Sequence[Precision]], kind: GoalKind) -> dict[str, Any]:
    """Return the mean over seeds of every goal of a kind, by what scores."""
    return {
        SENTENCES[goal]: {
            name: float(np.mean([of[goal] for of in of_seeds]))
            for name, of_seeds in found.items()
            if not np.isnan([of[goal] for of in of_seeds]).any()
        }
        for goal in GOALS_OF_KIND[kind]
    }


def base_rates(is_true: Bool[Tensor, "E T G"]) -> Precision:
    """Return how often every sentence is true: the average precision of chance."""
    rates = is_true.flatten(0, 1).double().mean(dim=0).numpy()
    return np.where(rates > 0, rates, np.nan)


def difference(
    better: Sequence[Precision],
    other: Sequence[Precision],
    kinds: Sequence[GoalKind],
    *,
    resample_goals: bool = True,
) -> dict[str, float]:
    """Return by how much one is better than another on goals that were trained on.

    Goals are resampled together, the seeds of each by themselves. Without ``resample_goals`` the
    interval says what other seeds may make of these very goals.
    """
    one, two = np.stack(better), np.stack(other)
    goals = np.concatenate([GOALS_OF_KIND[kind] for kind in kinds])
    known = ~np.isnan(one[:, goals]).any(axis=0) & ~np.isnan(two[:, goals]).any(axis=0)
    goals = goals[known & ~IS_HELD_OUT[goals]]
    return interval(one[:, goals], two[:, goals], resample_goals=resample_goals)


def best_single(precision: Mapping[str, Precision], kinds: Sequence[GoalKind]) -> Precision:
    """Return for each goal what the pure stream has that is best on its kind."""
    found = np.full(len(SENTENCES), np.nan)
    for kind in kinds:
        goals = GOALS_OF_KIND[kind]
        pure = {
            name: np.nanmean(precision[name][goals[~IS_HELD_OUT[goals]]])
            for name in ("video", "audio")
        }
        found[goals] = precision[max(pure, key=lambda name: pure[name])][goals]
    return found


def interval(
    values: Float[np.ndarray, "S G"],
    minus: Float[np.ndarray, "S2 G"] | None = None,
    *,
    resample_goals: bool = True,
) -> dict[str, float]:
    """Return the mean over seeds and goals, of a difference if given, with its 95 % interval."""
    rng = np.random.default_rng(0)
    goals = np.arange(values.shape[1])
    if resample_goals:
        goals = rng.integers(len(goals), size=(_RESAMPLES, 1, len(goals)))

    def resampled(of: Float[np.ndarray, "S G"]) -> NDArray[np.float64]:
        seeds = rng.integers(len(of), size=(_RESAMPLES, len(of), 1))
        means: NDArray[np.float64] = of[seeds, goals].mean(axis=(1, 2))
        return means

    drawn, value = resampled(values), values.mean()
    if minus is not None:
        drawn, value = drawn - resampled(minus), value - minus.mean()
    low, high = np.percentile(drawn, [2.5, 97.5])
    return {"value": float(value), "low": float(low), "high": float(high)}


@torch.no_grad()
def frame_precision(encoder: Any, frames: Tensor, is_true: Bool[Tensor, "E T G"]) -> Precision:
    """Return what an encoder of frames alone makes of every goal.

    Args:
        encoder: A CLIP.
        frames: uint8 ``[E, T, H, W, 3]``.
        is_true: Which of `SENTENCES` is true of each.
    """
    rows = [encoder.encode_obs({"pixels": of_episode.numpy()}).cpu() for of_episode in frames]
    return goal_precision(is_true, torch.stack(rows), encoder.encode_text(SENTENCES).cpu())
