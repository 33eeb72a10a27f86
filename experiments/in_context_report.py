"""The report of an experiment in context: curves and a table, drawn from a run's arrays."""

from pathlib import Path
from typing import Any

import numpy as np

from algdistill.evaluation import bootstrap_interval, mean_return
from in_context_summary import Results, blocks
from in_context_task import InContextTask
from plots import BLACK, GREY, LINES, METHOD_LINES, drawing, png
from report import Figure, Summary, table, write_page

_LIMITATIONS = (
    "Intervals are over training seeds and test tasks, resampled together (stratified bootstrap).",
    "Models are chosen by their return in validation tasks, which are neither trained on nor "
    "reported.",
)


def figures(results: Results) -> list[Figure]:
    """Draw everything the report shows."""
    return [
        Figure(
            "Return of each episode in tasks never seen",
            "Frozen weights, empty context at episode 1. Bands: 95 % intervals over training seeds "
            "and tasks. Black: the source algorithm of the first method learns the same tasks from "
            "nothing.",
            learning_curves(results),
        ),
        Figure(
            "Tasks trained on, tasks never seen, and greedy actions",
            "What is lost between tasks of the training histories and others, and what an agent "
            "loses that always takes its likeliest action.",
            transfer(results),
        ),
    ]


def learning_curves(results: Results) -> bytes:
    """Draw every method's in-context curve beside its source's, as PNG."""
    with drawing((8.0, 4.4)) as figure:
        axes = figure.subplots()
        for name in results.methods:
            color, line = METHOD_LINES[name]
            interval = bootstrap_interval(results.of(name), mean_return, seed=0)
            episodes = np.arange(1, len(interval.value) + 1)
            title = results.task.titles[name]
            axes.plot(episodes, interval.value, color=color, linestyle=line, label=title)
            axes.fill_between(episodes, interval.low, interval.high, color=color, alpha=0.15, lw=0)
        headline = results.sources[results.methods[0]]
        source = headline["test"].mean(axis=0)[: results.task.num_episodes]
        axes.plot(
            np.arange(1, len(source) + 1),
            source,
            color=BLACK,
            linewidth=1.1,
            label="source algorithm, learning the same tasks",
        )
        _levels(axes, results)
        axes.set(xlabel="episode", ylabel="return", ylim=(0.0, None))
        axes.set_xlim(1, results.task.num_episodes)
        axes.legend(loc="center left", bbox_to_anchor=(1.01, 0.5))
        return png(figure)


def transfer(results: Results) -> bytes:
    """Draw how each method does in tasks trained on and with greedy actions, as PNG."""
    shown = (("test", "sampled"), ("train", "tasks trained on"), ("greedy", "greedy"))
    with drawing((3.4 * len(results.methods) + 0.6, 3.4)) as figure:
        panels = figure.subplots(1, len(results.methods), sharey=True, squeeze=False)[0]
        for axes, name in zip(panels, results.methods, strict=True):
            for (tasks, label), (color, line, _) in zip(shown, LINES, strict=False):
                mean = results.of(name, tasks).mean(axis=(0, 1))
                axes.plot(
                    np.arange(1, len(mean) + 1), mean, color=color, linestyle=line, label=label
                )
            _levels(axes, results)
            axes.set(title=results.task.titles[name], xlabel="episode", ylim=(0.0, None))
        panels[0].set_ylabel("return")
        panels[-1].legend(loc="upper left", bbox_to_anchor=(1.01, 1.0))
        return png(figure)


def _levels(axes: Any, results: Results) -> None:
    levels = (("optimum", results.optimum), ("best without adapting", results.task.no_adaptation))
    for name, level in levels:
        axes.axhline(level, color=GREY, linewidth=0.9, linestyle=(0, (2, 2)))
        axes.annotate(
            name,
            (1.0, level),
            xycoords=("axes fraction", "data"),
            ha="right",
            va="bottom",
            fontsize=8,
            color=GREY,
        )


def write_in_context_report(
    run_dir: Path, task: InContextTask, summary: dict[str, Any], drawn: list[Figure]
) -> Path:
    """Write ``report.html`` and return its path."""
    columns = list(blocks(task.num_episodes))
    rows = [
        [
            found["title"],
            *(_interval(found[name]) for name in columns),
            _interval(found["area_under_curve"]),
            _interval(found["episodes_to_80_percent_of_optimum"]),
            _of_source(found["source"]),
            f"{found['train_test_gap']:.2f}",
        ]
        for found in summary["methods"].values()
    ]
    header = [
        "Mean return of episodes",
        *(name.removeprefix("episodes_").replace("_", "–") for name in columns),
        "area under the curve",
        "episodes to 80 % of optimum",
        "its source's",
        "gap to tasks trained on",
    ]
    headline = summary["methods"][summary["in_context"]["method"]]
    last = headline[columns[-1]]
    lead = (
        f"{task.title}: {headline['title']}. In {summary['tasks']['test']} tasks not trained on, "
        f"an agent with frozen weights earns {_interval(headline[columns[0]])} in its first "
        f"episodes and {_interval(last)} in its last; the optimum is {summary['optimum']:.2f}, "
        f"random actions earn {summary['random']:.2f}, the best that does not adapt "
        f"{summary['no_adaptation']:.2f}."
    )
    return write_page(
        run_dir,
        _without_curves(summary),
        drawn,
        title=f"{task.title}: learning in context",
        lead=lead,
        numbers=table(header, rows),
        limitations=(*task.limitations, *_LIMITATIONS),
    )


def _without_curves(summary: dict[str, Any]) -> Summary:
    return {name: summary[name] for name in ("command", "seconds", "versions", "machine")}


def _of_source(found: dict[str, Any] | None) -> str:
    return f"{found['episodes_to_80_percent_of_optimum']['value']:.3g}" if found else "–"


def _interval(found: dict[str, float]) -> str:
    return f"{found['value']:.3g} ({found['low']:.3g} to {found['high']:.3g})"
