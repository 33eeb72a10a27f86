"""Measure what 8-bit arithmetic costs a reward in accuracy.

    python experiments/int8_accuracy.py

Two comparisons of int8 with fp32, on the same frames:

1. Average precision of the shipped Playroom encoder on its test set. Its image tower is all
   convolutions but for one linear layer, and int8 changes linear layers only, so that little can
   be lost there, and little gained.
2. How far embeddings and the order of frames agree, for that tower and for a ViT-B-32, whose
   arithmetic is nearly all in linear layers. The ViT has random weights: there is no labelled
   frame that it could tell from another, so no average precision.

Writes ``experiments/results/int8_accuracy.json``. How fast int8 is, `benchmarks/` measures.
"""

import shlex
import sys
import time
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
import tyro
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from playroom_domain import LabelledScores, draw_states, labelled_scores
from playroom_encoder import TEST_SEED
from run_folder import machine, versions, write_json
from vlmreward import OpenCLIPEncoder, load_encoder
from vlmreward.evaluation import average_precision, bootstrap, spearman_correlation
from vlmreward_envs.playroom import Family, PlayroomConfig, PlayroomRenderer, all_goals

RESULT = Path(__file__).resolve().parent / "results" / "int8_accuracy.json"
PRECISIONS = ("fp32", "int8")
Encoders = dict[str, OpenCLIPEncoder]


def main(
    frames_per_goal: int = 256,
    num_frames: int = 128,
    architecture: str = "ViT-B-32",
    num_threads: int = 1,
) -> None:
    """Measure, print two tables and write the result.

    Args:
        frames_per_goal: Of the test set; the encoder shipped with 256.
        num_frames: On which embeddings are compared.
        architecture: The one with random weights, known to open_clip.
        num_threads: Of torch.
    """
    torch.set_num_threads(num_threads)
    began = time.perf_counter()
    shipped = load("playroom")
    accuracy = compare_accuracy(shipped, frames_per_goal)
    large = load(architecture, pretrained="random")
    agreement = {
        "playroom": compare_embeddings(shipped, num_frames),
        f"{architecture}, random weights": compare_embeddings(large, num_frames),
    }
    show(accuracy, agreement)
    result = {
        "command": shlex.join(["python", *sys.argv]),
        "seed": TEST_SEED,
        "seconds": round(time.perf_counter() - began),
        "machine": machine(),
        "versions": versions() | {"torchao": version("torchao")},
        "frames_per_goal": frames_per_goal,
        "average_precision": accuracy,
        "num_frames": num_frames,
        "agreement": agreement,
    }
    write_json(RESULT, result)


def load(name: str, pretrained: str | None = None) -> Encoders:
    """Return an encoder in both precisions."""
    return {
        precision: load_encoder(name, pretrained=pretrained, device="cpu", precision=precision)
        for precision in PRECISIONS
    }


def compare_accuracy(encoders: Encoders, frames_per_goal: int) -> dict[str, Any]:
    """Return the average precision of groups of goals in both precisions, and the difference.

    Intervals are of goals drawn anew, for the difference the same goals in both precisions.
    """
    found = {}
    for precision, encoder in encoders.items():
        rng = np.random.default_rng(TEST_SEED)  # so the same frames and goals
        found[precision] = labelled_scores(encoder, 1 / encoder.logit_scale, rng, frames_per_goal)
    fp32, int8 = (found[precision] for precision in PRECISIONS)
    assert np.array_equal(fp32.labels, int8.labels)
    per_goal = {precision: of_each_goal(scores) for precision, scores in found.items()}
    goals = np.array(list(per_goal["fp32"]))
    rows = np.searchsorted(fp32.goal_index, goals)  # the first of each goal
    family, held_out = fp32.family[rows], fp32.is_held_out[rows]
    groups = {"seen": ~held_out, "held_out": held_out}
    for name in fp32.families:
        groups[f"{name}_seen"] = (family == name) & ~held_out
        groups[f"{name}_held_out"] = (family == name) & held_out
    columns = {precision: np.array(list(ap.values())) for precision, ap in per_goal.items()}
    columns["difference"] = columns["int8"] - columns["fp32"]
    return {
        group: {"num_goals": int(chosen.sum())}
        | {
            name: bootstrap(
                np.mean, values[chosen], generator=np.random.default_rng(TEST_SEED)
            ).to_dict()
            for name, values in columns.items()
        }
        for group, chosen in groups.items()
    }


def of_each_goal(found: LabelledScores) -> dict[int, float]:
    """Return the average precision of each goal that is true of some frames, not of all."""
    precision = {}
    for goal in np.unique(found.goal_index).tolist():
        rows = found.goal_index == goal
        if 0 < found.labels[rows].sum() < rows.sum():
            precision[goal] = average_precision(found.labels[rows], found.scores[rows])
    return precision


def compare_embeddings(encoders: Encoders, num_frames: int) -> dict[str, float]:
    """Return how far two precisions agree on frames of the Playroom.

    The rank correlation is of the frames in the order of their cosine to a goal, over the goals of
    the family "lift". Beside it, how alike different frames are: where they hardly differ, small
    errors change their order.
    """
    frames = playroom_frames(num_frames)
    fp32, int8 = (encoders[p].encode_obs({"pixels": frames}).numpy() for p in PRECISIONS)
    texts = encoders["fp32"].encode_text([goal.sentence for goal in all_goals(Family.LIFT)]).numpy()
    cosine = (fp32 * int8).sum(axis=1)
    ranks = [spearman_correlation(int8 @ text, fp32 @ text) for text in texts]
    others = (fp32 @ fp32.T)[~np.eye(num_frames, dtype=bool)]
    return {
        "cosine_mean": float(cosine.mean()),
        "cosine_min": float(cosine.min()),
        "cosine_of_different_frames": float(others.mean()),
        "rank_correlation_mean": float(np.mean(ranks)),
        "rank_correlation_min": float(np.min(ranks)),
    }


def playroom_frames(num_frames: int) -> NDArray[np.uint8]:
    """Draw frames in which something happens."""
    config = PlayroomConfig()
    state = draw_states(config, num_frames, np.random.default_rng(TEST_SEED))
    return PlayroomRenderer(config)(state).numpy()


def show(accuracy: Mapping[str, Any], agreement: Mapping[str, Mapping[str, float]]) -> None:
    """Print what was measured as two tables."""
    columns = (*PRECISIONS, "difference")
    table = Table("average precision", "goals", *columns, "95 % interval")
    for group, found in accuracy.items():
        values = [f"{found[name]['value']:.4f}" for name in columns]
        interval = "{low:+.4f} to {high:+.4f}".format(**found["difference"])
        table.add_row(group, str(found["num_goals"]), *values, interval)
    Console().print(table)
    names = list(next(iter(agreement.values())))
    table = Table("agreement of int8 with fp32", *(name.replace("_", " ") for name in names))
    for encoder, measures in agreement.items():
        table.add_row(encoder, *(f"{measures[name]:.4f}" for name in names))
    Console().print(table)


if __name__ == "__main__":
    tyro.cli(main)
