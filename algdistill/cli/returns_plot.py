"""Draw returns of in-context episodes; matplotlib comes with ``vlmreward[experiments]``."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure


def plot_returns(summary: Mapping[str, Any], path: Path) -> None:
    """Draw the agent's learning curve beside the random agent's, to a file."""
    figure = Figure(figsize=(7.0, 4.0), layout="constrained")
    axes = figure.subplots()
    for name in ("agent", "random"):
        curve = summary[name]["return_by_episode"]
        episodes = np.arange(1, len(curve["value"]) + 1)
        axes.fill_between(episodes, curve["low"], curve["high"], alpha=0.3, lw=0)
        axes.plot(episodes, curve["value"], label=name)
    axes.set(
        xlabel="in-context episode",
        ylabel="return",
        title=f"{summary['num_tasks']} tasks, mean and 95 % interval",
    )
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False)
    figure.savefig(path, dpi=100)
