"""Parts that the pictures of heads share: the film strip, a panel of an episode, intervals.

Shapes: T steps of the episode; its frames are one more, the reset's first.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Bool, Float
from matplotlib.axes import Axes
from matplotlib.figure import SubFigure
from PIL import Image

from head_data import Labelled
from plots import BLACK, BLUE, DPI, GREEN, GREY, LINES
from vlmreward.evaluation import average_precision, bootstrap

# Told apart by dash and marker where colours are not.
LOOKS: tuple[dict[str, Any], ...] = tuple(
    {"color": color, "linestyle": line, "marker": marker}
    for color, line, marker in (*LINES, (BLACK, (0, (1, 1)), "v"))
)
SPACES = {"hspace": 0.4, "wspace": 0.28, "top": 0.93}  # of panels below a film strip
EPISODE = "Along the episode"
NUM_RESAMPLES = 100
_ON_WHITE = {"facecolor": "white", "edgecolor": "none", "pad": 0.8}


def film_strip(figure: SubFigure, episode: Labelled, num_shown: int = 9) -> None:
    """Draw frames of an episode in a row, with a green border where the goal is true."""
    shown = np.linspace(0, len(episode.frames) - 1, num_shown).round().astype(int)
    spaces = {"wspace": 0.1, "bottom": 0.02, "top": 0.84}
    for axes, step in zip(figure.subplots(1, num_shown, gridspec_kw=spaces), shown, strict=True):
        axes.imshow(episode.frames[step], interpolation="nearest")
        axes.set(xticks=[], yticks=[])
        axes.set_title(str(step), fontsize=9, fontweight="normal", loc="center", pad=3)
        for spine in axes.spines.values():
            reached = episode.labels[step]
            spine.set(visible=True, color=GREEN if reached else GREY, linewidth=2 + reached)


def along(
    axes: Axes, episode: Labelled, lines: dict[str, Float[np.ndarray, " T"]], title: str
) -> None:
    """Draw what each step pays, over the steps at which the goal is true."""
    shade(axes, episode.labels[1:])
    steps = np.arange(1, len(episode.frames))
    for (label, paid), look in zip(lines.items(), LOOKS, strict=False):
        axes.plot(steps, paid, drawstyle="steps-mid", label=label, **{**look, "marker": ""})
    axes.set(title=title, xlabel="step (shaded: goal true)", xlim=(0.5, len(steps) + 0.5))


def shade(axes: Axes, reached: Bool[np.ndarray, " T"]) -> None:
    """Shade the steps at which the goal is true; the first step is step 1."""
    edges = np.flatnonzero(np.diff(np.concatenate([[False], reached, [False]]))) + 0.5
    for start, end in edges.reshape(-1, 2):
        axes.axvspan(start, end, color=GREEN, alpha=0.16, linewidth=0)


def legend_below(axes: Axes, ncols: int, *, centre: float = 0.5) -> None:
    """Put the legend under the axis, where it hides no line."""
    axes.legend(
        loc="upper center", bbox_to_anchor=(centre, 0), borderaxespad=4.4, ncols=ncols,
        handlelength=2.4, columnspacing=1.2, handletextpad=0.5, markerscale=1.3,
    )  # fmt: skip


def direct_label(axes: Axes, label: str, place: tuple[float, float], side: str = "left") -> None:
    """Name a line beside it."""
    axes.text(*place, label, ha=side, va="center", fontsize=9, bbox=_ON_WHITE)


def spread(axes: Axes, row: float, values: Float[np.ndarray, " N"], look: dict[str, Any]) -> None:
    """Draw the median and the 5–95 % range of some values in one row."""
    low, middle, high = np.quantile(values, (0.05, 0.5, 0.95))
    line = {"color": look["color"], "linestyle": look["linestyle"]}
    axes.plot([low, high], [row, row], linewidth=2.5, **line)
    axes.plot(middle, row, marker=look["marker"], color=look["color"])


def rows_of(axes: Axes, labels: Sequence[str]) -> None:
    """Name the rows of a panel, the first at the top."""
    axes.set(yticks=range(len(labels)), yticklabels=labels, ylim=(len(labels) - 0.5, -0.5))
    axes.tick_params(axis="y", length=0)


def ranked(
    axes: Axes, rows: Sequence[tuple[str, Labelled, Float[np.ndarray, " N"]]], title: str
) -> None:
    """Draw the average precision of several scores as rows, each with its 95 % interval."""
    chance = rows[0][1].labels.mean()
    for row, (_, seen, scores) in enumerate(rows):
        found = bootstrap(
            average_precision, seen.labels, scores, strata=seen.labels,
            generator=np.random.default_rng(0), num_resamples=NUM_RESAMPLES,
        )  # fmt: skip
        axes.plot([found.low, found.high], [row, row], color=BLUE)
        axes.plot(found.value, row, "o", color=BLUE)
        inside = found.value > 0.5
        place = (found.low - 0.015, row) if inside else (max(found.high, chance) + 0.015, row)
        direct_label(axes, f"{found.value:.2f}", place, "right" if inside else "left")
    axes.axvline(chance, color=GREY, linestyle=":", linewidth=1.2)
    axes.set(title=title, xlabel="average precision (dotted: chance)", xlim=(0, 1.03))
    rows_of(axes, [label for label, _, _ in rows])


def few_colours(picture: bytes) -> bytes:
    """Return a PNG with 256 colours, in less than half of the bytes."""
    drawn = Image.open(io.BytesIO(picture)).convert("RGB")
    reduced = drawn.quantize(256, method=Image.Quantize.MAXCOVERAGE, dither=Image.Dither.NONE)
    stream = io.BytesIO()
    reduced.save(stream, "PNG", optimize=True, dpi=(DPI, DPI))
    return stream.getvalue()
