"""Pictures of what stands around a head: when it is asked, and how the goal is given."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float, UInt8

from head_data import HOLDING, Bench
from head_panels import EPISODE, LOOKS, SPACES, along, film_strip, legend_below, ranked
from plots import GREY, drawing, png
from vlmreward import CosineHead, Goal, RewardTiming, ThresholdHead
from vlmreward.evaluation import average_precision

GOAL = Goal(HOLDING)
LOW_THRESHOLD = 0.027
POOL_SEED = 99  # other rooms than those that are scored
NUM_IMAGES = (1, 4, 16, 64)
WEIGHTS = (0.0, 0.25, 0.5, 0.75, 1.0)
WORDINGS = (
    "a person who is holding a red ball",
    "the red ball is held by the person",
    "holding the red ball",
    "lift the red ball",
)


def timings(bench: Bench) -> bytes:
    """Draw six timings along one episode, each over what every step alone would pay."""
    mean, maximum = (RewardTiming(window=4, pooling=pooling) for pooling in ("mean", "max"))
    change = RewardTiming(window=4, pooling="last_minus_first")
    at_the_end = RewardTiming(score_every="episode_end")
    low = ThresholdHead(CosineHead(), LOW_THRESHOLD)
    panels = (
        ("window=4", CosineHead(), {"mean": mean, "max": maximum}),
        ("window=4, last minus first", CosineHead(), {"paid": change}),
        ("discount=0.95", CosineHead(), {"paid": RewardTiming(discount=0.95)}),
        ("score_every=4", CosineHead(), {"paid": RewardTiming(score_every=4)}),
        ("score_every=episode_end", CosineHead(), {"paid": at_the_end}),
        ("success_steps=3", low, {"paid": RewardTiming(success_steps=3)}),
    )
    steps = np.arange(1, len(bench.episode.frames))
    with drawing((9.6, 5.6)) as figure:
        top, bottom = figure.subfigures(2, 1, height_ratios=(0.2, 0.8))
        film_strip(top, bench.episode)
        grid = bottom.subplots(2, 3, gridspec_kw=SPACES)
        for axes, (title, head, paid) in zip(grid.flat, panels, strict=True):
            lines = {label: bench.along(GOAL, head, timing) for label, timing in paid.items()}
            along(axes, bench.episode, lines, title)
            alone = bench.along(GOAL, head)
            axes.plot(steps, alone, drawstyle="steps-mid", color=GREY, linewidth=1, zorder=1)
            axes.set_xlabel("step" if axes in grid[1] else "")
        grid[0, 0].set_ylim(top=0.31)
        grid[0, 0].legend(loc="upper left", ncols=2, handlelength=2)
        return png(figure)


def goals(bench: Bench) -> bytes:
    """Draw a goal in words, in pictures, and between, and in other words."""
    seen, pool = bench.labelled(HOLDING), bench.labelled(HOLDING, seed=POOL_SEED)
    shown = pool.frames[pool.labels]

    def score(goal: Goal) -> Float[np.ndarray, " N"]:
        return bench.similarities(goal, seen.frames).goal.numpy()

    several = shown[: NUM_IMAGES[-1]]
    with drawing((9.6, 6.6)) as figure:
        top, bottom = figure.subfigures(2, 1, height_ratios=(1.3, 1))
        left, right = top.subplots(1, 2, gridspec_kw={"wspace": 0.25, "bottom": 0.28})
        lines = {
            "words": GOAL,
            "1 image": Goal(images=shown[:1]),
            f"{len(several)} images": Goal(images=several),
            f"words and {len(several)} images, ¼": mixed(several, 0.25),
        }
        paid = {label: bench.along(goal, CosineHead()) for label, goal in lines.items()}
        along(left, bench.episode, paid, EPISODE)
        left.set_ylabel("cosine")
        legend_below(left, 2)
        for count, look in zip(NUM_IMAGES, LOOKS, strict=False):
            found = [
                average_precision(seen.labels, score(mixed(shown[:count], weight)))
                for weight in WEIGHTS
            ]
            right.plot(WEIGHTS, found, label=f"images: {count}", markersize=5, **look)
        right.set(title="Labelled frames: words to images", xlabel="image_weight", xticks=WEIGHTS)
        right.set(ylabel="average precision", ylim=(0, 1.03))
        legend_below(right, 2)
        wordings = {
            f"“{HOLDING}”": GOAL,
            **{f"“{text}”": Goal(text) for text in WORDINGS},
            "mean of these four": Goal(WORDINGS),
            "mean of all five": Goal((HOLDING, *WORDINGS)),
        }
        rows = [(label, seen, score(goal)) for label, goal in wordings.items()]
        ranked(bottom.subplots(gridspec_kw={"left": 0.42}), rows, "Labelled frames: other words")
        return png(figure)


def mixed(images: UInt8[np.ndarray, "K H W 3"], weight: float) -> Goal:
    """Return the goal between the sentence and some images."""
    return Goal(HOLDING, images=images, image_weight=weight)
