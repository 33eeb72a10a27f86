"""Draw what every head pays: one picture for each page of `docs/heads/`, and one of them all.

    python experiments/reward_heads.py

A person walks to the red ball, lifts it, carries it, and puts it down; and there are frames of many
rooms, labelled with the ground truth. All is scored by the encoder that ships. Writes
``docs/images/heads.png`` and one ``docs/images/heads_<page>.png`` per page.
"""

from collections.abc import Callable
from pathlib import Path

import torch
import tyro

import goal_pictures
import head_pictures
import negatives_pictures
from head_data import HOLDING, Bench, goal_of, playroom_encoder
from head_panels import SPACES, along, few_colours, film_strip
from plots import drawing, png
from run_folder import write_atomically
from vlmreward import (
    ContrastHead,
    CosineHead,
    GoalBaselineHead,
    Head,
    NormalizedHead,
    SigmoidHead,
    SoftmaxHead,
    ThresholdHead,
)

IMAGES = Path(__file__).resolve().parents[1] / "docs" / "images"
PAGES: dict[str, Callable[[Bench], bytes]] = {
    "cosine": head_pictures.cosine,
    "softmax": negatives_pictures.softmax,
    "threshold": head_pictures.threshold,
    "goal_baseline": head_pictures.goal_baseline,
    "contrast": negatives_pictures.contrast,
    "sigmoid": head_pictures.sigmoid,
    "normalized": head_pictures.normalized,
    "timings": goal_pictures.timings,
    "goals": goal_pictures.goals,
}
NUM_COLUMNS = 3


def main(num_frames: int = 1000, images: Path = IMAGES) -> None:
    """Draw the pictures.

    Args:
        num_frames: Labelled frames per goal.
        images: Folder to write to.
    """
    torch.set_num_threads(1)
    bench = Bench(playroom_encoder(), num_frames)
    pictures = {"heads": overview, **{f"heads_{page}": draw for page, draw in PAGES.items()}}
    for name, draw in pictures.items():
        write_atomically(images / f"{name}.png", few_colours(draw(bench)))
        print(images / f"{name}.png")


def overview(bench: Bench) -> bytes:
    """Draw the episode over what each head pays along it."""
    heads = choices(bench.encoder.logit_scale)
    num_rows = -(-len(heads) // NUM_COLUMNS)
    with drawing((9.6, 1.1 + 2.2 * num_rows)) as figure:
        top, bottom = figure.subfigures(2, 1, height_ratios=(1.1, 2.2 * num_rows))
        film_strip(top, bench.episode)
        panels = bottom.subplots(num_rows, NUM_COLUMNS, squeeze=False, gridspec_kw=SPACES)
        for axes in panels.flat[len(heads) :]:
            axes.set_visible(False)
        for axes, (title, head) in zip(panels.flat, heads.items(), strict=False):
            along(axes, bench.episode, {"": bench.along(goal_of(HOLDING), head)}, title)
            axes.set_xlabel("step" if axes in panels[-1] else "")
        return png(figure)


def choices(scale: float) -> dict[str, Head]:
    """Return one head of each kind, by title; the scale is the encoder's own."""
    softmax = SoftmaxHead(1 / scale)
    return {
        "CosineHead()": CosineHead(),
        "SoftmaxHead(0.01)": softmax,
        "ThresholdHead(…, 0.3)": ThresholdHead(softmax, 0.3),
        "GoalBaselineHead(0.5)": GoalBaselineHead(0.5),
        "ContrastHead()": ContrastHead(),
        "SigmoidHead(100, −13)": SigmoidHead(scale, -0.13 * scale),
        "NormalizedHead(…, 0.02, 0.09)": NormalizedHead(CosineHead(), 0.02, 0.09),
    }


if __name__ == "__main__":
    tyro.cli(main)
