"""Draw a quality report; matplotlib comes with ``pip install vlmreward[experiments]``."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from algdistill.histories.quality import QUANTILES, HistoryQuality
from algdistill.histories.quality_report import kept


def plot_quality(quality: HistoryQuality, path: Path) -> None:
    """Draw the report to a file, its format by the name's ending.

    Top: the learning curve with its interval, and the return by tenth of training beside the ground
    truth. Bottom: the distribution of the improvement within a context, and of the tasks' returns.
    """
    figure = Figure(figsize=(10.0, 6.5), layout="constrained")
    axes = figure.subplots(2, 2)
    _draw_curve(axes[0, 0], quality)
    _draw_deciles(axes[0, 1], quality)
    _draw_improvement(axes[1, 0], quality)
    _draw_tasks(axes[1, 1], quality)
    for panel in axes.flat:
        panel.spines[["top", "right"]].set_visible(False)
    figure.suptitle(
        f"{quality.num_histories:,} histories of {quality.num_tasks:,} tasks, "
        f"{kept(quality.keep_every)}; advice: keep {kept(quality.advice.keep_every)}; "
        f"warnings: {len(quality.advice.warnings)}"
    )
    figure.savefig(path, dpi=100)


def _draw_curve(panel: Axes, quality: HistoryQuality) -> None:
    episodes = np.arange(1, len(quality.episode_returns) + 1)
    panel.fill_between(
        episodes, quality.episode_returns_low, quality.episode_returns_high, alpha=0.3, lw=0
    )
    panel.plot(episodes, quality.episode_returns, label="mean return, 95 % interval")
    panel.axvspan(
        1,
        1 + quality.episodes_per_context,
        color="0.9",
        zorder=0,
        label=f"one context, {quality.context_length} steps",
    )
    panel.axvline(
        quality.learning_episodes, color="0.4", ls="--", lw=1, label="90 % of the gain made"
    )
    panel.set(xlabel="kept episode", ylabel="return", title="Learning curve of the sources")
    panel.legend(frameon=False, fontsize=8)


def _draw_deciles(panel: Axes, quality: HistoryQuality) -> None:
    tenths = np.arange(1, 11)
    panel.bar(tenths - 0.2, quality.decile_returns, 0.4, label="what the source was paid")
    panel.bar(tenths + 0.2, quality.decile_env_returns, 0.4, label="ground truth")
    panel.set(xlabel="tenth of training", ylabel="return", title="Return by tenth of training")
    panel.set_xticks(tenths)
    panel.legend(frameon=False, fontsize=8)


def _draw_improvement(panel: Axes, quality: HistoryQuality) -> None:
    panel.set(
        xlabel="improvement: return, second half of the context less first",
        ylabel="share of contexts at most",
        title="Improvement within one context",
    )
    if np.isnan(quality.improvement):
        panel.text(0.5, 0.5, "less than two episodes in a context", ha="center", va="center")
        return
    panel.plot(quality.improvement_quantiles, QUANTILES, marker="o", ms=3)
    panel.axvline(0.0, color="0.4", lw=1)
    panel.axvline(
        quality.improvement, color="C1", ls="--", lw=1, label=f"mean {quality.improvement:+.2g}"
    )
    panel.set_ylim(0.0, 1.02)
    panel.legend(frameon=False, fontsize=8, loc="upper left")


def _draw_tasks(panel: Axes, quality: HistoryQuality) -> None:
    panel.plot(np.linspace(0.0, 1.0, len(quality.task_returns)), quality.task_returns, ".", ms=4)
    panel.set(
        xlabel="share of tasks, lowest first",
        ylabel="return, last tenth of training",
        title=f"Tasks: {quality.tasks_without_gain} of {quality.num_tasks:,} without gain",
    )
