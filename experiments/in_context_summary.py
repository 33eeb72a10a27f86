"""What an experiment in context found, as numbers with intervals: ``summary.json``."""

import shlex
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from algdistill.evaluation import (
    Interval,
    area_under_curve,
    bootstrap_interval,
    episodes_to_threshold,
    interquartile_mean,
    mean_between,
    mean_return,
)
from in_context_task import InContextTask
from run_folder import Arrays, RunFolder, machine, seconds_of, versions

_SMOOTHING = 3
_SHARE_OF_OPTIMUM = 0.8


@dataclass(frozen=True)
class Results:
    """The arrays of every stage."""

    task: InContextTask
    returns: Mapping[tuple[str, int], Arrays]
    sources: Mapping[str, Arrays]
    random: Arrays

    @property
    def methods(self) -> list[str]:
        """Names of the methods, in order."""
        return list(dict.fromkeys(name for name, _ in self.returns))

    @property
    def optimum(self) -> float:
        """Mean over test tasks of the highest return."""
        return float(next(iter(self.sources.values()))["optimum"].mean())

    def of(self, method: str, tasks: str = "test") -> np.ndarray:
        """Returns, one for each seed, task and episode."""
        return np.stack(
            [arrays[tasks] for (name, _), arrays in self.returns.items() if name == method]
        )


def summarise(run: RunFolder, folders: Mapping[str, RunFolder], results: Results) -> dict[str, Any]:
    """Return what the run found, as plain numbers with intervals.

    Args:
        run: Folder of the run.
        folders: That of each method.
        results: The arrays in them.
    """
    task, headline = results.task, results.methods[0]
    return {
        "command": shlex.join(["python", *sys.argv]),
        "versions": versions(),
        "machine": machine(),
        "seconds": seconds_of(run, folders),
        "settings": asdict(run.settings)
        | {"methods": {name: asdict(folder.settings) for name, folder in folders.items()}},
        "seeds": sorted({seed for _, seed in results.returns}),
        "tasks": {
            "train": len(task.split.train),
            "validation": len(task.split.validation),
            "test": len(task.split.test),
            "evaluations_of_each_test_task": task.repeats,
        },
        "optimum": results.optimum,
        "no_adaptation": task.no_adaptation,
        "random": float(results.random["test"].mean()),
        "in_context": {"method": headline, **curve(results.of(headline))},
        "source": curve(results.sources[headline]["test"][None]),
        "methods": {name: _method(results, name) for name in results.methods},
    }


def curve(returns: np.ndarray) -> dict[str, Any]:
    """Mean return of each episode over tasks and seeds, its interval, and the mean of the middle.

    Args:
        returns: Of shape (seeds, tasks, episodes).
    """
    mean = bootstrap_interval(returns, mean_return, seed=0)
    return {
        "returns": _rounded(mean.value),
        "low": _rounded(mean.low),
        "high": _rounded(mean.high),
        "interquartile_mean": _rounded(interquartile_mean(returns)),
    }


def blocks(num_episodes: int) -> dict[str, tuple[int, int]]:
    """The episodes whose mean is reported, by name; from and to, counted from 1."""
    half = num_episodes // 2
    size = max(1, num_episodes // 10)
    found = [(1, max(1, size // 2)), (half - size + 1, half)]
    found.append((num_episodes - size + 1, num_episodes))
    return {f"episodes_{first}_{last}": (first, last) for first, last in found}


def _method(results: Results, name: str) -> dict[str, Any]:
    returns, train = results.of(name), results.of(name, "train")
    source = results.sources.get(name)
    last = mean_between(*list(blocks(returns.shape[-1]).values())[-1])
    return {
        "title": results.task.titles[name],
        "seeds": [seed for method, seed in results.returns if method == name],
        "curve": curve(returns),
        **_figures(results, returns),
        "last_over_first": _interval(bootstrap_interval(returns, _last_over_first, seed=0)),
        "source": _figures(results, source["test"][None]) if source is not None else None,
        "of_seeds": {
            key: [float(mean_between(*block)(seed[None])[0]) for seed in returns]
            for key, block in blocks(returns.shape[-1]).items()
        },
        "greedy": {
            key: float(mean_between(*block)(results.of(name, "greedy"))[0])
            for key, block in blocks(returns.shape[-1]).items()
        },
        "train_tasks": {
            key: float(mean_between(*block)(train)[0])
            for key, block in blocks(returns.shape[-1]).items()
        },
        "train_test_gap": float(last(train)[0] - last(returns)[0]),
        "interquartile_mean_of_last_episodes": _interval(
            bootstrap_interval(returns[..., -_last(returns) :].mean(-1, keepdims=True),
                               interquartile_mean, seed=0)
        ),
    }  # fmt: skip


def _figures(results: Results, returns: np.ndarray) -> dict[str, Any]:
    optimum, random = results.optimum, float(results.random["test"].mean())
    statistics = {
        **{
            key: mean_between(*block)
            for key, block in blocks(results.task.num_episodes).items()
            if block[1] <= returns.shape[-1]
        },
        "area_under_curve": area_under_curve(random, optimum),
        "episodes_to_80_percent_of_optimum": episodes_to_threshold(
            _SHARE_OF_OPTIMUM * optimum, smoothing=min(_SMOOTHING, returns.shape[-1])
        ),
    }
    return {
        key: _interval(bootstrap_interval(returns, statistic, seed=0))
        for key, statistic in statistics.items()
    }


def _last_over_first(returns: np.ndarray) -> np.ndarray:
    """Mean return of the last block of episodes over that of the first, taken as .001 at least."""
    first, *_, last = (mean_between(*block) for block in blocks(returns.shape[-1]).values())
    return last(returns) / np.maximum(first(returns), 1e-3)


def _last(returns: np.ndarray) -> int:
    first, last = list(blocks(returns.shape[-1]).values())[-1]
    return last - first + 1


def _interval(found: Interval) -> dict[str, float]:
    return {
        "value": round(float(found.value[0]), 4),
        "low": round(float(found.low[0]), 4),
        "high": round(float(found.high[0]), 4),
    }


def _rounded(values: np.ndarray) -> list[float]:
    return [round(float(value), 4) for value in values]
