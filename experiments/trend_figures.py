"""Pictures of the scaling trend."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from plots import BLACK, drawing, png

# From light to dark, so that sizes are told apart in black and white as well.
SHADES = ("#9ecae1", "#6baed6", "#4292c6", "#2171b5", "#08306b")
_DASHES: tuple[Any, ...] = (":", (0, (3, 1, 1, 1)), "--", "-.", "-")
TITLES = {"playroom": "Playroom", "launcher": "Launcher"}


def line_of(index: int, count: int) -> dict[str, Any]:
    """Return colour and dashes of a model, counted from the smallest."""
    place = round(index * (len(SHADES) - 1) / max(1, count - 1))
    return {"color": SHADES[place], "linestyle": _DASHES[place]}


def two_panels(summary: Mapping[str, Any]) -> bytes:
    """Draw each domain's precision–recall curves beside its agents' learning curves, as PNG.

    The form of Baumli et al. 2023, Figure 4: offline accuracy on the left, ground truth on goals
    never trained on on the right, one line a size.
    """
    parameters = summary["image_tower_parameters"]
    with drawing((9.6, 3.6 * len(summary["domains"]))) as figure:
        panels = figure.subplots(len(summary["domains"]), 2, squeeze=False)
        for (left, right), (name, domain) in zip(panels, summary["domains"].items(), strict=True):
            for index, (model, found) in enumerate(domain["models"].items()):
                look = line_of(index, len(parameters))
                label = f"{model}, {_short(parameters[model])}"
                curve = found["offline"]["precision_recall"]
                left.plot(curve["recall"], curve["precision"], label=label, **look)
                _learning(right, found["online"], label, look)
            _learning(
                right, domain["true reward"], "true reward", {"color": BLACK, "linestyle": "-"}
            )
            left.set(xlabel="recall", ylabel="precision", xlim=(0, 1), ylim=(0, 1.02))
            left.set_title(f"{TITLES[name]}: reward, held-out goals")
            right.set(xlabel="steps", ylabel="success, held-out goals", ylim=(0, 1.02))
            right.set_title(f"{TITLES[name]}: agents")
        handles, labels = panels[0, 1].get_legend_handles_labels()
        figure.legend(
            handles, labels, title="image tower", loc="upper left", bbox_to_anchor=(1.0, 0.95)
        )
        figure.tight_layout()
        return png(figure)


def _learning(axes: Any, online: Mapping[str, Any], label: str, look: Mapping[str, Any]) -> None:
    curve = online["curves"]["test_success"]
    steps = np.array(online["steps"])
    axes.plot(steps, curve["value"], label=label, **look)
    axes.fill_between(
        steps, curve["low"], curve["high"], color=look["color"], alpha=0.15, linewidth=0
    )


def _short(count: int) -> str:
    """Write a number of parameters in three figures."""
    if count >= 1_000_000:
        return f"{count / 1e6:.3g} M"
    return f"{count / 1e3:.3g} k"
