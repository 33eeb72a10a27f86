"""Draw what was learned in context in every environment in one picture, from ``results/``.

    python experiments/in_context_overview.py

Writes ``docs/images/in_context.png``.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from plots import BLACK, GREY, METHOD_LINES, drawing, png
from run_folder import write_atomically

_HERE = Path(__file__).parent
TITLES = {
    "dark_room": "Dark Room",
    "dark_room_hard": "Dark Room Hard",
    "key_to_door": "Dark Key-to-Door",
    "watermaze": "Watermaze",
}


def main() -> None:
    """Read the results there are and draw them."""
    found = {
        title: json.loads(file.read_text())
        for name, title in TITLES.items()
        if (file := _HERE / "results" / f"{name}.json").exists()
    }
    picture = curves_by_environment(found)
    write_atomically(_HERE.parent / "docs" / "images" / "in_context.png", picture)


def curves_by_environment(found: Mapping[str, Mapping[str, Any]]) -> bytes:
    """Draw a panel for each environment: every method, the source, and what bounds them, as PNG.

    Raises:
        ValueError: If there is nothing to draw.
    """
    if not found:
        raise ValueError("got no results, expected at least one environment's")
    columns = min(2, len(found))
    rows = -(-len(found) // columns)
    with drawing((4.6 * columns + 2.4, 3.4 * rows)) as figure:
        panels = figure.subplots(rows, columns, squeeze=False).flatten()
        for axes in panels[len(found) :]:
            axes.axis("off")
        for axes, (title, summary) in zip(panels, found.items(), strict=False):
            for name, method in summary["methods"].items():
                color, line = METHOD_LINES[name]
                curve = method["curve"]
                episodes = np.arange(1, len(curve["returns"]) + 1)
                look = {"color": color, "linestyle": line, "label": method["title"]}
                axes.plot(episodes, curve["returns"], **look)
                axes.fill_between(
                    episodes, curve["low"], curve["high"], color=color, alpha=0.15, linewidth=0
                )
            source = summary["source"]["returns"][: len(episodes)]
            axes.plot(
                np.arange(1, len(source) + 1), source, color=BLACK, lw=1, label="source, learning"
            )
            for level, name in (("optimum", "optimum"), ("no_adaptation", "best without adapting")):
                axes.axhline(summary[level], color=GREY, linewidth=0.9, linestyle=(0, (2, 2)))
                axes.annotate(
                    name,
                    (1.0, summary[level]),
                    xycoords=("axes fraction", "data"),
                    ha="right",
                    va="bottom",
                    fontsize=8,
                    color=GREY,
                )
            axes.set(title=title, xlabel="episode in context", ylim=(0, 1.1 * summary["optimum"]))
            axes.set_xlim(1, len(episodes))
        for first in panels[::columns]:
            first.set_ylabel("return, tasks never seen")
        labelled = {}
        for axes in panels:
            handles, labels = axes.get_legend_handles_labels()
            labelled |= dict(zip(labels, handles, strict=True))
        titles = list(dict.fromkeys(labelled))
        figure.legend(
            [labelled[title] for title in titles],
            titles,
            loc="upper left",
            bbox_to_anchor=(1.0, 0.95),
        )
        figure.tight_layout()
        return png(figure)


if __name__ == "__main__":
    main()
