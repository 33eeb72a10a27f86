"""Pictures of the heads that compare a goal with its negatives.

Shapes: N labelled frames.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from jaxtyping import Bool, UInt8
from matplotlib.axes import Axes
from torch.nn.functional import avg_pool2d, pad

from head_data import BESIDE, HOLDING, Bench, goal_of
from head_panels import EPISODE, LOOKS, along, legend_below, ranked, rows_of, spread
from plots import BLUE, GREY, VERMILION, drawing, png
from vlmreward import ContrastHead, CosineHead, Goal, RewardModel, SoftmaxHead
from vlmreward.heads import Similarities

TEMPERATURES = (0.01, 0.03, 0.1, 1.0)
NUM_NEGATIVES = (1, 2, 4, 8, 16, 36)
NUM_DRAWS = 20


def softmax(bench: Bench) -> bytes:
    """Draw the effect of the temperature, and of the number of negatives."""
    with drawing((9.6, 3.4)) as figure:
        first, *others = figure.subplots(1, 3, gridspec_kw={"wspace": 0.32})
        lines = {
            f"τ = {temperature:g}": bench.along(goal_of(HOLDING), SoftmaxHead(temperature))
            for temperature in TEMPERATURES
        }
        along(first, bench.episode, lines, EPISODE)
        first.set_ylabel("probability")
        legend_below(first, 2)
        for axes, sentence in zip(others, (HOLDING, BESIDE), strict=True):
            _number_of_negatives(axes, bench, sentence)
        others[0].set_ylabel("share of frames with p > ½")
        return png(figure)


def _number_of_negatives(axes: Axes, bench: Bench, sentence: str) -> None:
    seen = bench.labelled(sentence)
    cosines = bench.similarities(goal_of(sentence), seen.frames)
    counts = np.array(NUM_NEGATIVES)
    for (label, rows, with_nothing), look in zip(
        (
            ("goal true", seen.labels, False),
            ("goal false", ~seen.labels, False),
            ("goal false, “nothing” is one of them", ~seen.labels, True),
        ),
        LOOKS, strict=False,
    ):  # fmt: skip
        share = np.array(
            [
                [paid_with(cosines, count, seed, with_nothing)[rows].mean() for count in counts]
                for seed in range(NUM_DRAWS)
            ]
        )
        low, high = share.min(axis=0), share.max(axis=0)
        axes.fill_between(counts, low, high, alpha=0.2, color=look["color"], linewidth=0)
        axes.plot(counts, share.mean(axis=0), label=label, markersize=5, **look)
    axes.set(xscale="log", xticks=counts, xticklabels=counts, ylim=(0, 1.03))
    axes.set(xlabel="number of negatives", title=sentence.removeprefix("the person is "))
    axes.minorticks_off()
    if sentence == HOLDING:
        legend_below(axes, 3, centre=1.1)


def paid_with(
    cosines: Similarities, count: int, seed: int, with_nothing: bool
) -> Bool[np.ndarray, " N"]:
    """Return which frames have a probability above one half, with negatives drawn at random.

    Args:
        cosines: Of the frames with all negatives, the last of which says "nothing".
        count: How many to draw.
        seed: Of the draw.
        with_nothing: Let the last negative be one of them.
    """
    last = cosines.negatives.shape[1] - 1
    kept = np.random.default_rng(seed).permutation(last + 1 - with_nothing)
    kept = np.append(last, kept)[:count] if with_nothing else kept[:count]
    fewer = replace(
        cosines, negatives=cosines.negatives[:, kept], is_negative=cosines.is_negative[:, kept]
    )
    return (SoftmaxHead(0.01).score(fewer) > 0.5).numpy()


def contrast(bench: Bench) -> bytes:
    """Draw cosine and contrast in sharp and in blurred frames, and how they rank."""
    with drawing((9.6, 6.2)) as figure:
        grid = figure.add_gridspec(2, 1, hspace=0.62)
        above = grid[0].subgridspec(1, 3, wspace=0.42, width_ratios=(1, 1, 0.9))
        for place, head in zip(above, (CosineHead(), ContrastHead()), strict=False):
            model = RewardModel(bench.encoder, goal_of(HOLDING), head)
            lines = {
                "sharp": model(bench.episode.frames)[1:].numpy(),
                "blurred": model(blurred(bench.episode.frames))[1:].numpy(),
            }
            axes = figure.add_subplot(place)
            along(axes, bench.episode, lines, f"{type(head).__name__}, episode")
            axes.set_ylim(0, 0.25)
            legend_below(axes, 2)
        _changes(figure.add_subplot(above[2]), bench)
        below = grid[1].subgridspec(1, 2, wspace=0.75)
        _both_cosines(figure.add_subplot(below[0]), bench)
        _ranks(figure.add_subplot(below[1]), bench)
        return png(figure)


def _changes(axes: Axes, bench: Bench) -> None:
    """Draw what blurring adds to the cosine, to the mean of the negatives, and to the contrast."""
    frames = bench.labelled(HOLDING).frames
    sharp, soft = (
        bench.similarities(goal_of(HOLDING), shown) for shown in (frames, blurred(frames))
    )
    to_goal = (soft.goal - sharp.goal).numpy()
    to_negatives = (soft.negatives - sharp.negatives).mean(dim=1).numpy()
    for row, values in enumerate((to_goal, to_negatives, to_goal - to_negatives)):
        spread(axes, row, values, LOOKS[0])
    rows_of(axes, ["goal", "negatives", "contrast"])
    axes.axvline(0, color=GREY, linewidth=1.2, linestyle=":")
    axes.set(title="Change by blur", xlabel="labelled frames, 5–95 %", xlim=(-0.04, 0.09))
    axes.set_xticks([0, 0.04, 0.08])


def _both_cosines(axes: Axes, bench: Bench) -> None:
    seen = bench.labelled(BESIDE)
    cosines = bench.similarities(goal_of(BESIDE), seen.frames)
    to_goal, to_negatives = cosines.goal.numpy(), cosines.negatives.mean(dim=1).numpy()
    for label, rows, color, marker, alpha in (
        ("goal false", ~seen.labels, VERMILION, "s", 0.35),
        ("goal true", seen.labels, BLUE, "o", 0.8),
    ):
        axes.scatter(
            to_negatives[rows], to_goal[rows],
            s=9, linewidth=0, label=label, color=color, marker=marker, alpha=alpha,
        )  # fmt: skip
    axes.axline(
        (-0.15, 0.13), slope=1, color=GREY, linestyle="--", linewidth=1.2, label="equal contrast"
    )
    axes.set(title="Labelled frames: next to the red ball", xlabel="mean cosine of 36 negatives")
    axes.set_ylabel("cosine of the goal")
    legend_below(axes, 3)


def _ranks(axes: Axes, bench: Bench) -> None:
    seen = bench.labelled(BESIDE)
    every = bench.similarities(goal_of(BESIDE), seen.frames)
    nothing = Goal(BESIDE, goal_of(BESIDE).negative_prompts[-1:])
    one = bench.similarities(nothing, seen.frames)
    scores = {
        "cosine": CosineHead().score(every),
        "softmax, 36 negatives": SoftmaxHead(0.01).score(every),
        "contrast, “nothing” alone": ContrastHead().score(one),
        "contrast, 36 negatives": ContrastHead().score(every),
    }
    ranked(
        axes,
        [(label, seen, score.numpy()) for label, score in scores.items()],
        "Ranking of the same frames",
    )


def blurred(frames: UInt8[np.ndarray, "N H W 3"]) -> UInt8[np.ndarray, "N H W 3"]:
    """Return each pixel as the mean of its 3×3 neighbours: a camera out of focus."""
    planes = torch.from_numpy(frames).permute(0, 3, 1, 2).float()
    smooth = avg_pool2d(pad(planes, (1, 1, 1, 1), mode="replicate"), 3, stride=1)
    return smooth.round().byte().permute(0, 2, 3, 1).contiguous().numpy()
