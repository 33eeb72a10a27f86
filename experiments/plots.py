"""Pictures of a run, as PNG or GIF bytes: one style, readable in print and without colour vision.

Every function takes plain arrays and returns the bytes of an image; none touches a file or any
global Matplotlib state.

Shapes: T time steps (frame 0 is the reset's), E episodes, S seeds, K points of a curve, H W C an
image.
"""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import matplotlib as mpl
import numpy as np
from jaxtyping import Bool, Float, Int, UInt8
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from PIL import Image

Frames = UInt8[np.ndarray, "T H W C"]

# Okabe and Ito's palette: distinct to colour-blind readers, and apart in lightness.
BLACK, BLUE, VERMILION, GREEN, ORANGE, GREY = (
    "#000000",
    "#0072B2",
    "#D55E00",
    "#009E73",
    "#E69F00",
    "#767676",
)
DPI = 160
LINES: tuple[tuple[str, str, str], ...] = (
    (BLUE, "-", "o"),
    (VERMILION, "--", "s"),
    (GREEN, "-.", "^"),
    (ORANGE, ":", "D"),
)
METHOD_LINES: dict[str, tuple[str, Any]] = {
    "search": (BLUE, "-"),
    "ad": (VERMILION, "--"),
    "slow": (GREEN, "-."),
    "noise": (ORANGE, ":"),
    "expert": ("#CC79A7", "-"),
    "dpt": ("#56B4E9", (0, (5, 1))),
    "rl2": ("#8C510A", (0, (3, 1, 1, 1))),
}
"""The line of each method of experiments in context, the same in every picture."""
_STYLE = {
    "axes.grid": True,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlesize": 11,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.labelsize": 10,
    "figure.facecolor": "white",
    "font.size": 10,
    "grid.color": "#dddddd",
    "grid.linewidth": 0.6,
    "legend.fontsize": 9,
    "legend.frameon": False,
    "lines.linewidth": 1.8,
    "savefig.dpi": DPI,
}


@dataclass(frozen=True)
class TrainingCurve:
    """Returns of one agent's training, one row per seed.

    Attributes:
        label: What the agent was trained on.
        steps: Environment steps taken, increasing.
        vlm_return: Return the reward model paid per episode.
        env_return: Ground-truth return of the same episodes.
    """

    label: str
    steps: Int[np.ndarray, " K"]
    vlm_return: Float[np.ndarray, "S K"]
    env_return: Float[np.ndarray, "S K"]


@dataclass(frozen=True)
class LabelledCurve:
    """A precision–recall curve and the point on it where the threshold lies.

    Attributes:
        label: Which frames were judged.
        precision: In [0, 1].
        recall: In [0, 1].
        at_threshold: Recall and precision at the threshold in use.
    """

    label: str
    precision: Float[np.ndarray, " K"]
    recall: Float[np.ndarray, " K"]
    at_threshold: tuple[float, float]


def film_strip(
    frames: Frames,
    probability: Float[np.ndarray, " T"],
    success: Bool[np.ndarray, " T"],
    *,
    prompt: str,
    threshold: float,
    num_shown: int = 10,
) -> bytes:
    """Draw an episode as a row of frames over the probability that the goal is achieved.

    Args:
        frames: The episode, the reset's frame first.
        probability: What the reward model says of each frame, in [0, 1].
        success: Ground truth of each frame.
        prompt: The goal in words.
        threshold: A reward is paid where the probability is strictly greater.
        num_shown: Most frames in the row; they are evenly spaced over the episode.
    """
    _check_lengths(frames=frames, probability=probability, success=success)
    shown = np.unique(np.linspace(0, len(frames) - 1, min(num_shown, len(frames))).round())
    shown = shown.astype(int)
    with drawing((9.6, 4.1)) as figure:
        grid = figure.add_gridspec(2, len(shown), height_ratios=[1.0, 2.2], hspace=0.12, wspace=0.1)
        for column, step in enumerate(shown):
            axes = figure.add_subplot(grid[0, column])
            axes.imshow(frames[step], interpolation="nearest")
            axes.set(xticks=[], yticks=[])
            axes.grid(visible=False)
            axes.set_title(str(step), fontsize=9, fontweight="normal", loc="center", pad=3)
            for spine in axes.spines.values():
                spine.set(visible=True, color=GREEN if success[step] else "#bbbbbb")
                spine.set_linewidth(3.0 if success[step] else 0.8)
        axes = figure.add_subplot(grid[1, :])
        _draw_probability(axes, probability, success, threshold)
        figure.suptitle(f"“{prompt}”", x=0.125, y=0.965, ha="left", fontsize=11, fontweight="bold")
        return png(figure)


def _draw_probability(
    axes: Axes,
    probability: Float[np.ndarray, " T"],
    success: Bool[np.ndarray, " T"],
    threshold: float,
) -> None:
    steps = np.arange(len(probability))
    paid = (probability > threshold) & (steps > 0)  # no action led to the reset's frame
    for step in steps[success]:
        axes.axvspan(step - 0.5, step + 0.5, color=GREEN, alpha=0.16, linewidth=0)
    axes.plot([], [], color=GREEN, alpha=0.3, linewidth=8, label="goal achieved (ground truth)")
    axes.plot(steps, probability, color=BLUE, label="probability by the reward model")
    axes.plot(steps[paid], probability[paid], "o", color=BLUE, label="reward 1")
    axes.plot(steps[~paid], probability[~paid], "o", color=BLUE, markerfacecolor="white")
    axes.axhline(threshold, color=BLACK, linestyle="--", linewidth=1.2)
    axes.annotate(
        f"threshold {threshold:.2f}",
        (-0.4, threshold),
        xytext=(0, 3 if threshold < 0.9 else -3),
        textcoords="offset points",
        ha="left",
        va="bottom" if threshold < 0.9 else "top",
        fontsize=9,
    )
    axes.set(xlabel="step", ylabel="probability", xlim=(-0.5, len(steps) - 0.5), ylim=(-0.04, 1.04))
    axes.xaxis.get_major_locator().set_params(integer=True)
    axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.2), ncols=3)


def training_returns(curves: Sequence[TrainingCurve]) -> bytes:
    """Draw what the reward model paid beside the ground truth, one panel per agent.

    Thick lines are means over seeds, thin ones the seeds.
    """
    if not curves:
        raise ValueError("there is no training curve to draw")
    with drawing((9.6, 3.5)) as figure:
        panels = figure.subplots(1, len(curves), sharey=True, squeeze=False)[0]
        for axes, curve in zip(panels, curves, strict=True):
            returns = [("reward model", curve.vlm_return), ("ground truth", curve.env_return)]
            for (label, values), (color, line, marker) in zip(returns, LINES, strict=False):
                _check_lengths(steps=curve.steps, returns=values.T)
                if len(values) > 1:
                    axes.plot(curve.steps, values.T, color=color, linewidth=0.7, alpha=0.45)
                axes.plot(
                    curve.steps,
                    values.mean(axis=0),
                    color=color,
                    linestyle=line,
                    marker=marker,
                    markevery=max(1, len(curve.steps) // 8),
                    markersize=4.5,
                    label=label,
                )
            axes.set(title=curve.label, xlabel="environment steps")
            axes.xaxis.set_major_formatter(lambda value, _: short_count(value))
            axes.set_ylim(bottom=min(0.0, axes.get_ylim()[0]))
        panels[0].set_ylabel("return per episode")
        panels[0].legend(loc="best")
        return png(figure)


def precision_recall(curves: Sequence[LabelledCurve]) -> bytes:
    """Draw precision–recall curves, each marked where the threshold lies."""
    with drawing((5.6, 4.4)) as figure:
        axes = figure.subplots()
        for curve, (color, line, marker) in zip(curves, LINES, strict=False):
            _check_lengths(recall=curve.recall, precision=curve.precision)
            look = {"color": color, "linestyle": line}
            axes.step(curve.recall, curve.precision, where="pre", **look)
            point = {"marker": marker, "markersize": 8, "markeredgecolor": "white"}
            axes.plot(*curve.at_threshold, color=color, zorder=3, **point)
            axes.plot([], [], label=curve.label, **look, **point)
        axes.set(xlabel="recall", ylabel="precision", xlim=(0.0, 1.02), ylim=(0.0, 1.02))
        axes.set_aspect("equal")
        axes.legend(loc="lower left", title="marker: at the threshold", alignment="left")
        return png(figure)


def in_context_returns(
    mean: Float[np.ndarray, " E"],
    low: Float[np.ndarray, " E"],
    high: Float[np.ndarray, " E"],
    *,
    source: Float[np.ndarray, " K"],
    random: float,
    optimum: float,
    interval: str = "95 % interval",
) -> bytes:
    """Draw the return of each episode in context, between random and optimal behaviour.

    Args:
        mean: Mean return over tasks and seeds in each episode.
        low: Lower end of its interval.
        high: Upper end of its interval.
        source: Mean return of the source agents' episodes, from their first; episodes beyond E are
            left out, and the last one is drawn as a level.
        random: Mean return of random actions.
        optimum: Mean return of the best policy that knows the goal.
        interval: What low and high are.
    """
    _check_lengths(mean=mean, low=low, high=high)
    episodes = np.arange(1, len(mean) + 1)
    with drawing((7.2, 4.2)) as figure:
        axes = figure.subplots()
        axes.fill_between(episodes, low, high, color=BLUE, alpha=0.22, linewidth=0, label=interval)
        axes.plot(episodes, mean, color=BLUE, marker="o", markersize=3, label="in-context agent")
        early = source[: len(mean)]
        axes.plot(
            episodes[: len(early)], early, color=VERMILION, linestyle="--", label="source agents"
        )
        levels = [
            ("optimum", optimum, BLACK, "-"),
            ("source, last episode", float(source[-1]), VERMILION, ":"),
            ("random", random, GREY, "-."),
        ]
        for label, level, color, line in levels:
            axes.axhline(level, color=color, linestyle=line, linewidth=1.2, label=label)
        top = max(optimum, float(high.max()), float(source.max()))
        axes.set(xlabel="episode", ylabel="return", xlim=(1, len(mean)), ylim=(0.0, 1.06 * top))
        axes.xaxis.get_major_locator().set_params(integer=True)
        axes.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0))
        return png(figure)


def gif(
    frames: Frames,
    *,
    rewarded: Bool[np.ndarray, " T"] | None = None,
    scale: int = 3,
    milliseconds: int = 160,
) -> bytes:
    """Make an endless animation, enlarged without blurring.

    Args:
        frames: The animation; its last frame is held four times as long.
        rewarded: Frames to give a green border; none has a border if this is None.
        scale: Enlargement, a whole number.
        milliseconds: Time each frame is shown.
    """
    if rewarded is not None:
        _check_lengths(frames=frames, rewarded=rewarded)
        frames = _with_borders(frames, rewarded)
    height, width = frames.shape[1:3]
    images = [
        Image.fromarray(frame).resize((width * scale, height * scale), Image.Resampling.NEAREST)
        for frame in frames
    ]
    buffer = io.BytesIO()
    images[0].save(
        buffer,
        format="GIF",
        save_all=True,
        append_images=images[1:],
        duration=[milliseconds] * (len(images) - 1) + [4 * milliseconds],
        loop=0,
    )
    return buffer.getvalue()


def stack(*images: bytes) -> bytes:
    """Put pictures below each other, centred on white, each at its own size."""
    drawn = [Image.open(io.BytesIO(image)).convert("RGB") for image in images]
    width = max(image.width for image in drawn)
    canvas = Image.new("RGB", (width, sum(image.height for image in drawn)), "white")
    top = 0
    for image in drawn:
        canvas.paste(image, ((width - image.width) // 2, top))
        top += image.height
    stream = io.BytesIO()
    canvas.save(stream, "PNG", dpi=(DPI, DPI))
    return stream.getvalue()


def _with_borders(frames: Frames, rewarded: Bool[np.ndarray, " T"], width: int = 4) -> Frames:
    color = np.array([int(GREEN[i : i + 2], 16) for i in (1, 3, 5)], dtype=np.uint8)
    margins = ((0, 0), (width, width), (width, width), (0, 0))
    bordered = np.pad(frames, margins, constant_values=255)
    inside = np.pad(np.ones(frames.shape[1:3], dtype=bool), width)
    bordered[rewarded] = np.where(inside[..., None], bordered[rewarded], color)
    return bordered


@contextmanager
def drawing(inches: tuple[float, float]) -> Iterator[Figure]:
    """Give a figure of a size, in the style of all pictures."""
    with mpl.rc_context(_STYLE):
        yield Figure(figsize=inches)


def png(figure: Figure) -> bytes:
    """Return a figure as the bytes of a PNG."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", bbox_inches="tight", pad_inches=0.08)
    return buffer.getvalue()


def short_count(value: float) -> str:
    """Say a count in thousands or millions."""
    if value >= 1e6:
        return f"{value / 1e6:g} M"
    return f"{value / 1e3:g} k" if value >= 1e3 else f"{value:g}"


def _check_lengths(**arrays: np.ndarray) -> None:
    lengths = {name: len(array) for name, array in arrays.items()}
    if len(set(lengths.values())) > 1 or 0 in lengths.values():
        raise ValueError(f"these must have the same length, at least 1, got {lengths}")
