"""What the scaling trend comes to: numbers with intervals, for people and programs.

Axis letters: ``G`` goals, ``R`` bootstrap resamples, ``S`` seeds.
"""

import json
import shlex
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from run_folder import Arrays, RunFolder, machine, seconds_of, versions
from trend_offline import OTHER_RATES
from vlmreward.evaluation import precision_recall_curve

FORMAT = 1
_RESAMPLES = 2000
_CURVE_POINTS = 60
_LAST_EPISODES = 5
_DECIMALS = 3
"""Means that agree to so many are a tie."""


@dataclass(frozen=True)
class Results:
    """What the jobs have found.

    Attributes:
        offline: Of each model, from small to large; see `trend_offline.measure_offline`.
        online: Of each domain and model, one for each seed; see `trend_online.train_agent`.
        in_context: Of each model, one for each distillation; see
            `trend_in_context.learn_in_context`.
        truth: What stands for a model where the ground truth pays.
        seeds: Of the agents.
        is_held_out: Of each domain's goals ``[G]``.
    """

    offline: Mapping[str, Arrays]
    online: Mapping[tuple[str, str], Sequence[Arrays]]
    in_context: Mapping[str, Sequence[Arrays]]
    truth: str
    seeds: Sequence[int]
    is_held_out: Mapping[str, NDArray[np.bool_]]

    @property
    def models(self) -> list[str]:
        """Names, from small to large."""
        return list(self.offline)

    @property
    def domains(self) -> list[str]:
        """Names."""
        return list(self.is_held_out)

    def of_goals(self, domain: str, name: str, *, held_out: bool) -> NDArray[np.float64]:
        """Return a number of every model and goal, of those that some frame achieves."""
        values = np.stack([found[f"{domain}_{name}"] for found in self.offline.values()])
        labels = self.offline[self.models[0]][f"{domain}_labels"]
        return values[:, (self.is_held_out[domain] == held_out) & labels.any(axis=0)]

    def test_success(self, domain: str) -> NDArray[np.float64]:
        """Return the last success on held-out goals of every model and seed."""
        return self._of_curves(domain, lambda curve: curve[-1])

    def success_over_training(self, domain: str) -> NDArray[np.float64]:
        """Return the mean of each learning curve on held-out goals, of every model and seed."""
        return self._of_curves(domain, np.mean)

    def _of_curves(self, domain: str, statistic: Callable[[Any], Any]) -> NDArray[np.float64]:
        return np.array(
            [
                [statistic(found["test_success"]) for found in self.online[domain, model]]
                for model in self.models
            ]
        )


def summarise(run: RunFolder, results: Results) -> dict[str, Any]:
    """Put everything that is reported into one mapping, ready for JSON."""
    parameters = [int(found["image_tower_parameters"]) for found in results.offline.values()]
    folders = {path.name: RunFolder(path, run.settings) for path in run.path.glob("in_context_*/")}
    return {
        "format": FORMAT,
        "command": shlex.join(["python", *sys.argv]),
        "versions": versions(),
        "machine": machine(),
        "seconds": sum(seconds_of(run, folders).values()),
        "seeds": list(results.seeds),
        "image_tower_parameters": dict(zip(results.models, parameters, strict=True)),
        "domains": {domain: _of_domain(results, domain) for domain in results.domains},
        "in_context": {model: _in_context(runs) for model, runs in results.in_context.items()},
        "spearman": _spearman(results, parameters),
    }


def read_summary(path: Path) -> dict[str, Any]:
    """Read a ``summary.json``, or a committed result.

    Raises:
        ValueError: If another version of this experiment wrote it.
    """
    summary: dict[str, Any] = json.loads(path.read_text())
    if summary.get("format") != FORMAT:
        raise ValueError(
            f"{path} has format {summary.get('format')}, this version reads {FORMAT}: run "
            "experiments/scaling_trend.py again"
        )
    return summary


def _in_context(runs: Sequence[Arrays]) -> dict[str, Any]:
    """Mean return of each episode, as a share of the optimum; seeds and tasks are resampled."""
    shares = {
        name: np.stack([found[name] / found["optimum"][:, None] for found in runs])
        for name in ("env_returns", "vlm_returns")
    }  # [S, N, K]
    truth = shares["env_returns"]
    last = np.stack([_last_share(found) for found in runs])
    rng = np.random.default_rng(0)
    resampled = [
        last[np.ix_(rng.integers(len(last), size=len(last)), rows)].mean()
        for rows in _resamples(last.shape[1])
    ]
    low, high = np.percentile(resampled, [2.5, 97.5])
    return {
        "curve": truth.mean(axis=(0, 1)).round(4).tolist(),
        "vlm_curve": shares["vlm_returns"].mean(axis=(0, 1)).round(4).tolist(),
        "last_episodes": {"value": float(last.mean()), "low": float(low), "high": float(high)},
        "first_episode": float(truth[..., 0].mean()),
    }


def _of_domain(results: Results, domain: str) -> dict[str, Any]:
    truth = results.online[domain, results.truth]
    reference = np.array([found["test_success"][-1] for found in truth])
    ap = results.of_goals(domain, "ap", held_out=True)
    success = results.test_success(domain)
    return {
        "models": {
            model: {
                "offline": _offline(results, domain, row),
                "online": _online(results.online[domain, model]),
            }
            for row, model in enumerate(results.models)
        },
        results.truth: _online(truth),
        "best_minus_worst_words": {
            model: _best_and_worst_words(results, domain, row)
            for row, model in enumerate(results.models)
        },
        "largest_minus_smallest_ap": estimate(
            lambda goals: (ap[-1] - ap[0])[goals].mean(), ap.shape[1]
        ),
        "largest_over_true_reward": estimate(
            lambda seeds: success[-1][seeds].mean() / max(1e-9, reference[seeds].mean()),
            len(reference),
        ),
    }


def _offline(results: Results, domain: str, row: int) -> dict[str, Any]:
    found = results.offline[results.models[row]]
    groups = {"named": False, "held_out": True}
    variants = [name for name in found if name.startswith(f"{domain}_ap_")]
    names = ["ap", "epic", "ece"]
    names += [
        f"{name}{suffix}" for name in ("recall", "false_positives") for suffix in ("", *OTHER_RATES)
    ]
    names += [name.removeprefix(f"{domain}_") for name in variants]
    measured = {
        name: {
            group: mean(results.of_goals(domain, name, held_out=held_out)[row])
            for group, held_out in groups.items()
        }
        for name in names
    }
    return {
        "threshold": float(found[f"{domain}_threshold"]),
        **measured,
        "precision_recall": _precision_recall(results, domain, found),
    }


def _best_and_worst_words(results: Results, domain: str, row: int) -> dict[str, Any]:
    """Compare the words with the highest and the lowest average precision, goal by goal.

    Of goals that are said in all forms in training. The two are chosen by the goals that they are
    compared on, so that the difference leans upwards.
    """
    start = f"{domain}_ap_form_"
    forms = [name for name in results.offline[results.models[row]] if name.startswith(start)]
    ap = {"state": results.of_goals(domain, "ap", held_out=False)[row]}
    for name in forms:
        short = name.removeprefix(f"{domain}_")
        ap[short.removeprefix("ap_form_")] = results.of_goals(domain, short, held_out=False)[row]
    ranked = sorted(ap, key=lambda name: float(ap[name].mean()))
    worst, best = ranked[0], ranked[-1]
    return {"best": best, "worst": worst, "difference": mean(ap[best] - ap[worst])}


def _precision_recall(results: Results, domain: str, found: Arrays) -> dict[str, list[float]]:
    """Return the curve of all held-out goals pooled, at evenly spaced recalls."""
    labels = found[f"{domain}_labels"][:, results.is_held_out[domain]]
    curve = precision_recall_curve(labels.ravel(), found[f"{domain}_held_out_scores"].ravel())
    # Thresholds below the last true frame's have its recall and less precision.
    reached, which = np.unique(curve.recall, return_inverse=True)
    best = np.zeros(len(reached))
    np.maximum.at(best, which, curve.precision)
    recall = np.linspace(0, 1, _CURVE_POINTS)
    precision = np.interp(recall, reached, best)
    return {"recall": recall.round(4).tolist(), "precision": precision.round(4).tolist()}


def _online(runs: Sequence[Arrays]) -> dict[str, Any]:
    names = ("vlm_return", "env_return", "test_success", "train_success")
    curves = {name: np.stack([found[name] for found in runs]) for name in names}
    summary: dict[str, Any] = {
        "steps": runs[0]["steps"].astype(int).tolist(),
        "curves": {
            name: {
                "value": values.mean(axis=0).round(4).tolist(),
                **_bounds(values),
            }
            for name, values in curves.items()
        },
        "test_success": mean(curves["test_success"][:, -1]),
        "success_over_training": mean(curves["test_success"].mean(axis=1)),
        "train_success": mean(curves["train_success"][:, -1]),
        "test_success_of_seeds": curves["test_success"][:, -1].round(4).tolist(),
    }
    for name in ("test_paid", "test_reached", "test_paid_wrongly"):
        if name in runs[0]:
            summary[name] = mean(np.array([float(found[name]) for found in runs]))
    return summary


def _bounds(values: NDArray[np.float64]) -> dict[str, list[float]]:
    resampled = np.stack([values[rows].mean(axis=0) for rows in _resamples(len(values))])
    low, high = np.percentile(resampled, [2.5, 97.5], axis=0)
    return {"low": low.round(4).tolist(), "high": high.round(4).tolist()}


def _spearman(results: Results, parameters: Sequence[int]) -> dict[str, Any]:
    """Rank correlations over models: size with accuracy, accuracy with what agents can do.

    Each domain on its own, and ``mean``: with means over both. What agents can do is their success
    at the end (``ap_return``) and its mean over training; in context, that of the last episodes,
    and the accuracy is that of the Playroom. Goals and seeds are resampled.
    """
    ap = {domain: results.of_goals(domain, "ap", held_out=True) for domain in results.domains}
    sizes = np.array(parameters, float)[:, None]
    others = {
        "size_ap": dict.fromkeys(results.domains, sizes),
        "ap_return": {domain: results.test_success(domain) for domain in results.domains},
        "ap_return_over_training": {
            domain: results.success_over_training(domain) for domain in results.domains
        },
    }
    groups = {**{domain: [domain] for domain in results.domains}, "mean": results.domains}
    found: dict[str, Any] = {
        name: {
            group: _ranked([ap[of] for of in members], [other[of] for of in members])
            for group, members in groups.items()
        }
        for name, other in others.items()
    }
    in_context = np.array(
        [[_last_share(of).mean() for of in results.in_context[model]] for model in results.models]
    )
    found["ap_in_context"] = {"playroom": _ranked([ap["playroom"]], [in_context])}
    return found


def _last_share(found: Arrays) -> NDArray[np.float64]:
    """Return the true return of the last episodes over the optimum, for each task."""
    shares = found["env_returns"] / found["optimum"][:, None]
    last: NDArray[np.float64] = shares[:, -_LAST_EPISODES:].mean(axis=1)
    return last


def _ranked(
    accuracies: Sequence[NDArray[np.float64]], others: Sequence[NDArray[np.float64]]
) -> dict[str, float | None]:
    """Correlate two means over domains; None where all models are alike in one of them.

    Args:
        accuracies: Of each domain, by model and goal.
        others: Of each domain, by model and seed.
    """
    rng = np.random.default_rng(0)

    def drawn(values: NDArray[np.float64]) -> NDArray[np.float64]:
        """Means of all rows, and below them those of every resample ``[1 + R, models]``."""
        count = values.shape[1]
        rows = rng.integers(count, size=(_RESAMPLES, count))
        means = np.stack([values[model][rows].mean(axis=1) for model in range(len(values))], axis=1)
        return np.concatenate([values.mean(axis=1)[None], means])

    ranks = [
        stats.rankdata(
            np.mean([drawn(values) for values in of_domains], axis=0).round(_DECIMALS), axis=1
        )
        for of_domains in (accuracies, others)
    ]
    first, second = (of - of.mean(axis=1, keepdims=True) for of in ranks)
    spread = np.sqrt((first**2).sum(axis=1) * (second**2).sum(axis=1))
    if spread[0] == 0:
        return {"value": None, "low": None, "high": None}
    found = np.divide(
        (first * second).sum(axis=1), spread, out=np.zeros_like(spread), where=spread > 0
    )
    low, high = np.percentile(found[1:], [2.5, 97.5])
    return {"value": float(found[0]), "low": float(low), "high": float(high)}


def mean(values: NDArray[np.float64]) -> dict[str, float]:
    """Return a mean with its 95 % bootstrap interval."""
    return estimate(lambda rows: values[rows].mean(), len(values))


def estimate(statistic: Callable[[NDArray[np.int64]], Any], count: int) -> dict[str, float]:
    """Return a statistic of some rows with its 95 % bootstrap interval."""
    resampled = [float(statistic(rows)) for rows in _resamples(count)]
    low, high = np.percentile(resampled, [2.5, 97.5])
    return {"value": float(statistic(np.arange(count))), "low": float(low), "high": float(high)}


def _resamples(count: int) -> NDArray[np.int64]:
    return np.random.default_rng(0).integers(count, size=(_RESAMPLES, count))
