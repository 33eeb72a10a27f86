"""A quality report to read in a terminal; `algdistill.histories.quality_plot` draws it."""

from __future__ import annotations

import numpy as np
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from algdistill.histories.quality import QUANTILES, HistoryQuality


def quality_table(quality: HistoryQuality) -> RenderableType:
    """The report as text, for `rich.print`."""
    table = Table("figure", "value", title="Quality of learning histories", title_justify="left")
    for name, value in _figures(quality):
        table.add_row(name, value)
    advice = quality.advice
    lines = [Text(f"Keep {kept(advice.keep_every)}. {advice.reason}")]
    lines += [Text(f"Warning: {warning}", style="yellow") for warning in advice.warnings]
    return Group(table, *lines)


def _figures(quality: HistoryQuality) -> list[tuple[str, str]]:
    """Names and values of the rows."""
    middle, low, high = np.quantile(quality.task_returns, [0.5, 0.1, 0.9])
    if np.isnan(quality.improvement):
        improvement = "unknown: a context holds less than two episodes"
    else:
        tenth, median, ninth = np.interp([0.1, 0.5, 0.9], QUANTILES, quality.improvement_quantiles)
        improvement = (
            f"{quality.improvement:+.3g} on average; 10 %, 50 %, 90 %: {tenth:+.3g}, "
            f"{median:+.3g}, {ninth:+.3g}; positive in {quality.share_improving:.0%}"
        )
    coverage = quality.coverage
    visited = "not counted: observations are not symbolic, or too many"
    if coverage is not None:
        visited = (
            f"{coverage.states:.0%} of observations, by one history {coverage.states_of_one:.0%}"
        )
        if coverage.pairs is not None:
            visited += f"; {coverage.pairs:.0%} of observation-action pairs"
    return [
        (
            "histories, tasks, steps",
            f"{quality.num_histories:,}, {quality.num_tasks:,}, {quality.num_steps:,}",
        ),
        ("kept", kept(quality.keep_every)),
        (
            f"context of {quality.context_length} steps",
            f"{quality.episodes_per_context:.3g} episodes",
        ),
        ("return by tenth of training", _numbers(quality.decile_returns)),
        ("ground-truth return by tenth", _numbers(quality.decile_env_returns)),
        (
            "gain, first to last tenth",
            f"{quality.gain:.3g} (95 % interval from {quality.gain_low:.3g})",
        ),
        ("episodes to 90 % of the gain", f"{quality.learning_episodes}"),
        ("improvement within a context", improvement),
        ("coverage", visited),
        (
            "return of tasks in the last tenth",
            f"median {middle:.3g}; 10 % to 90 %: {low:.3g} to {high:.3g}; "
            f"{quality.tasks_without_gain} without gain",
        ),
    ]


def kept(keep_every: int) -> str:
    """Which episodes are kept, in words: every one, every 2nd, every 3rd."""
    if keep_every == 1:
        return "every episode"
    teen = keep_every % 100 in (11, 12, 13)
    ending = "th" if teen else {1: "st", 2: "nd", 3: "rd"}.get(keep_every % 10, "th")
    return f"every {keep_every}{ending} episode"


def _numbers(values: np.ndarray) -> str:
    return "  ".join(f"{value:.3g}" for value in values)
