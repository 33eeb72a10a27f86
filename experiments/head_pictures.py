"""Pictures of heads that need no negatives: along an episode, and on labelled frames.

Shapes: N labelled frames.
"""

from __future__ import annotations

import numpy as np
import torch

from head_data import BESIDE, HOLDING, Bench, goal_of
from head_panels import EPISODE, LOOKS, along, direct_label, legend_below, rows_of, spread
from plots import BLUE, GREY, drawing, png
from vlmreward import CosineHead, Goal, GoalBaselineHead, RewardModel, SigmoidHead, ThresholdHead
from vlmreward.evaluation import average_precision, fit_normalized_head
from vlmreward.heads import Similarities

COSINES_OF = {
    "next to the red ball": BESIDE,
    "next to the blue key": "the person is next to the blue key",
    "next to the white cone*": "the person is next to the white cone",
    "holding the red ball": HOLDING,
    "holding the white cone*": "the person is holding the white cone",
    "blue cone next to red box": "the blue cone is next to the red box",
}
THRESHOLDS = (0.05, 0.15, 0.25)
ALPHAS = (0.0, 0.25, 0.5, 0.75, 1.0)
MIDDLES = (0.05, 0.13, 0.20)


def cosine(bench: Bench) -> bytes:
    """Draw the cosine along the episode, and where it lies for several goals."""
    with drawing((9.6, 3.6)) as figure:
        left, right = figure.subplots(1, 2, width_ratios=(1, 1.25), gridspec_kw={"wspace": 0.75})
        along(left, bench.episode, {"": bench.along(Goal(HOLDING), CosineHead())}, EPISODE)
        left.set(ylabel="cosine", ylim=(0, 0.25))
        for row, sentence in enumerate(COSINES_OF.values()):
            seen = bench.labelled(sentence)
            cosines = bench.similarities(Goal(sentence), seen.frames).goal.numpy()
            spread(right, row - 0.16, cosines[seen.labels], LOOKS[0])
            spread(right, row + 0.16, cosines[~seen.labels], LOOKS[1])
        for label, look in zip(("goal true", "goal false"), LOOKS, strict=False):
            right.plot([], [], linewidth=2.5, label=label, **look)
        rows_of(right, list(COSINES_OF))
        right.set(title="Labelled frames: median, 5–95 %", xlabel="cosine (* unseen in training)")
        legend_below(right, 2)
        return png(figure)


def threshold(bench: Bench) -> bytes:
    """Draw the reward at three thresholds, and both kinds of errors at all."""
    places = (  # where there is room for the names of the lines
        ("holding:\npaid wrongly", (-0.01, 8), "left"), ("holding:\nmissed", (0.216, 52), "left"),
        ("next to:\npaid wrongly", (0.09, 74), "left"), ("next to:\nmissed", (0.197, 56), "right"),
    )  # fmt: skip
    with drawing((9.6, 3.6)) as figure:
        left, right = figure.subfigures(1, 2, width_ratios=(1, 1.2))
        rows = left.subplots(len(THRESHOLDS), 1, sharex=True, gridspec_kw={"hspace": 0.55})
        for axes, beta in zip(rows, THRESHOLDS, strict=True):
            paid = bench.along(Goal(HOLDING), ThresholdHead(CosineHead(), beta))
            along(axes, bench.episode, {"": paid}, f"β = {beta:.2f}")
            axes.set(ylim=(-0.1, 1.15), yticks=(0, 1), xlabel="")
        rows[1].set_ylabel("reward")
        rows[-1].set_xlabel("step (shaded: goal true)")
        axes = right.subplots()
        grid = np.linspace(0, 0.28, 141)
        rates = []
        for sentence in (HOLDING, BESIDE):
            seen = bench.labelled(sentence)
            scores = bench.similarities(Goal(sentence), seen.frames).goal.numpy()
            is_paid = scores > grid[:, None]
            rates += [
                is_paid[:, ~seen.labels].mean(axis=1),
                1 - is_paid[:, seen.labels].mean(axis=1),
            ]
        for rate, look, (label, place, side) in zip(rates, LOOKS, places, strict=False):
            axes.plot(grid, 100 * rate, **{**look, "marker": ""})
            direct_label(axes, label, place, side)
        for beta in THRESHOLDS:
            axes.axvline(beta, color=GREY, linewidth=1, zorder=0)
        axes.set(title="Errors on labelled frames", xlabel="threshold β", ylabel="% of frames")
        return png(figure)


def normalized(bench: Bench) -> bytes:
    """Draw where the cosine lies for several goals, and where once it is normalised for each."""
    with drawing((9.6, 3.6)) as figure:
        left, right = figure.subplots(1, 2, gridspec_kw={"left": 0.24, "wspace": 0.12})
        for row, sentence in enumerate(COSINES_OF.values()):
            seen = bench.labelled(sentence)
            model = RewardModel(bench.encoder, Goal(sentence), CosineHead())
            head = fit_normalized_head(model, seen.frames)
            cosines = bench.similarities(Goal(sentence), seen.frames).goal
            for axes, rewards in ((left, cosines), (right, head.reward(cosines))):
                spread(axes, row - 0.16, rewards.numpy()[seen.labels], LOOKS[0])
                spread(axes, row + 0.16, rewards.numpy()[~seen.labels], LOOKS[1])
        for axes, rows in ((left, list(COSINES_OF)), (right, [""] * len(COSINES_OF))):
            rows_of(axes, rows)
            axes.set_xlabel("reward (* unseen in training)")
        for label, look in zip(("goal true", "goal false"), LOOKS, strict=False):
            left.plot([], [], linewidth=2.5, label=label, **look)
        left.set_title("CosineHead: median, 5–95 %")
        right.set_title("NormalizedHead, fitted to the same")
        legend_below(left, 2)
        return png(figure)


def goal_baseline(bench: Bench) -> bytes:
    """Draw the effect of alpha along the episode, and of the baseline on labelled frames."""
    nothing_held, nothing_near = (goal_of(goal).baseline_prompts[0] for goal in (HOLDING, BESIDE))
    pairs = {
        "holding | holding nothing": (HOLDING, nothing_held),
        "holding | next to nothing": (HOLDING, nothing_near),
        "next to | next to nothing": (BESIDE, nothing_near),
        "next to | holding nothing": (BESIDE, nothing_held),
    }
    with drawing((9.6, 3.4)) as figure:
        left, right = figure.subplots(1, 2, gridspec_kw={"wspace": 0.25})
        lines = {
            f"α = {alpha:g}": bench.along(goal_of(HOLDING), GoalBaselineHead(alpha))
            for alpha in ALPHAS
        }
        along(left, bench.episode, lines, EPISODE)
        left.set_ylabel("reward")
        legend_below(left, 3)
        for (label, (sentence, baseline)), look in zip(pairs.items(), LOOKS, strict=False):
            seen = bench.labelled(sentence)
            cosines = bench.similarities(Goal(sentence, baseline_prompts=baseline), seen.frames)
            found = [
                average_precision(seen.labels, GoalBaselineHead(alpha).score(cosines).numpy())
                for alpha in ALPHAS
            ]
            right.plot(ALPHAS, found, label=label, markersize=5, **look)
        right.set(title="Labelled frames: goal | baseline", xlabel="α", xticks=ALPHAS)
        right.set(ylabel="average precision", ylim=(0, 1.03))
        legend_below(right, 2)
        return png(figure)


def sigmoid(bench: Bench) -> bytes:
    """Draw the probability over the cosine at three biases, and along the episode."""
    scale = bench.encoder.logit_scale
    heads = {
        f"b = −{scale * middle:.0f}": SigmoidHead(scale, -scale * middle) for middle in MIDDLES
    }
    seen = bench.labelled(HOLDING)
    cosines = bench.similarities(Goal(HOLDING), seen.frames).goal.numpy()
    with drawing((9.6, 3.4)) as figure:
        left, right = figure.subplots(1, 2, gridspec_kw={"wspace": 0.2})
        bins = np.linspace(-0.15, 0.3, 46)
        for label, rows, look in (
            ("frames, goal false", ~seen.labels, {"color": GREY}),
            ("frames, goal true", seen.labels, {"color": BLUE, "hatch": "////"}),
        ):
            count = np.histogram(cosines[rows], bins)[0]
            height = 0.5 * count / count.max()
            left.stairs(height, bins, fill=True, alpha=0.3, label=label, **look)
        grid = torch.linspace(-0.15, 0.3, 300)
        for (label, head), look in zip(heads.items(), LOOKS, strict=False):
            probability = head.score(Similarities.of(grid)).numpy()
            left.plot(grid.numpy(), probability, label=label, **{**look, "marker": ""})
        left.set(title="Labelled frames: holding the red ball", xlabel="cosine")
        left.set_ylabel("probability")
        left.legend()
        lines = {label: bench.along(Goal(HOLDING), head) for label, head in heads.items()}
        along(right, bench.episode, lines, EPISODE)
        return png(figure)
