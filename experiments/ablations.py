"""What Algorithm Distillation needs, one thing changed at a time (Laskin et al. 2022, Figures 5–9).

    python experiments/ablations.py --axes context_length num_tasks

Each point is the experiment of ``dark_room.py`` with shorter training and one setting changed. The
common point of all axes is trained once. A run that was killed goes on where it was.
"""

import json
import shlex
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import tyro

from dark_room import SHORTER, TASK
from in_context_learning import Options, run_experiment
from in_context_task import InContextTask, Split
from plots import BLUE, GREY, drawing, png
from run_folder import machine, versions, write_atomically, write_json

SHORT = replace(SHORTER, num_updates=600, evaluate_every=200)
RUNS = Path("runs")


def _context(length: int) -> InContextTask:
    # Windows keep 5,120 time steps a batch, so that every point sees as much.
    training = replace(SHORT, batch_size=SHORT.batch_size * TASK.model["context_length"] // length)
    return _variant(training=training, model={**TASK.model, "context_length": length})


def _tasks(number: int) -> InContextTask:
    # As many histories in all, of fewer tasks.
    histories = TASK.methods["search"].histories_per_task * len(TASK.split.train) // number
    split = TASK.split
    every = np.linspace(0, len(split.train) - 1, number).round().astype(int)
    chosen = Split(split.train[every], split.validation, split.test)
    return replace(_variant(histories_per_task=histories), split=chosen)


def _size(width_and_layers: tuple[int, int]) -> InContextTask:
    width, layers = width_and_layers
    model = {**TASK.model, "embed_dim": width, "mlp_dim": 4 * width, "num_layers": layers}
    return _variant(model=model)


def _mask(rate: float) -> InContextTask:
    return _variant(training=replace(SHORT, token_mask_rate=rate))


def _smoothing(mass: float) -> InContextTask:
    return _variant(training=replace(SHORT, label_smoothing=mass))


def _subsampling(interval: int) -> InContextTask:
    training = replace(SHORT, num_updates=1500)
    return _variant(method="slow", training=training, keep_every=interval)


def _variant(
    model: Mapping[str, Any] | None = None, method: str = "search", **changes: Any
) -> InContextTask:
    """The Dark Room experiment with one method, trained for a short time, and some changes."""
    one = replace(TASK.methods[method], **{"training": SHORT, **changes})
    return replace(
        TASK,
        methods={method: one},
        model=model or TASK.model,
        rl2=None,
        num_episodes=50,
        repeats=8,
    )


AXES: dict[str, tuple[str, Any, Sequence[Any]]] = {
    "context_length": ("time steps of context", _context, (10, 20, 40, 80, 160)),
    "num_tasks": ("training tasks", _tasks, (4, 16, 33, 65)),
    "model_size": ("width, layers", _size, ((16, 1), (32, 2), (64, 4), (128, 6))),
    "token_mask": ("share of tokens masked", _mask, (0.0, 0.15, 0.3, 0.5)),
    "label_smoothing": ("label smoothing", _smoothing, (0.0, 0.1, 0.2)),
    "subsampling": ("every so many episodes of slow learners", _subsampling, (1, 4, 8, 16)),
}
COMMON = {
    "context_length": 80,
    "num_tasks": 65,
    "model_size": (64, 4),
    "token_mask": 0.3,
    "label_smoothing": 0.0,
}
"""The value of each axis that changes nothing."""


@dataclass(frozen=True)
class AblationOptions:
    """Options of the command line.

    Attributes:
        axes: What to change; everything by default.
        seeds: Training runs of each point.
        preset: ``debug`` runs through everything in little time.
    """

    axes: tuple[str, ...] = tuple(AXES)
    seeds: tuple[int, ...] = (0,)
    preset: Literal["full", "debug"] = "full"


def main(options: AblationOptions) -> Path:
    """Train every point of every axis; write ``summary.json`` and the picture.

    Raises:
        ValueError: If an axis is unknown.
    """
    if unknown := set(options.axes) - set(AXES):
        raise ValueError(f"got axes {sorted(unknown)}, expected some of {list(AXES)}")
    folder = Path("dark_room_ablations")
    found: dict[str, dict[str, Any]] = {}
    for axis in options.axes:
        _, variant, values = AXES[axis]
        found[axis] = {}
        for value in values:
            name = "common" if value == COMMON.get(axis) else f"{axis}_{_label(value)}"
            run = run_experiment(
                variant(value),
                Options(options.preset, options.seeds, run_name=str(folder / name)),
            )
            found[axis][_label(value)] = _point(json.loads((run / "summary.json").read_text()))
    summary = {
        "command": shlex.join(["python", *sys.argv]),
        "versions": versions(),
        "machine": machine(),
        "seeds": list(options.seeds),
        "axes": found,
    }
    write_json(RUNS / folder / "summary.json", summary)
    write_atomically(RUNS / folder / "ablations.png", ablation_panels(found))
    print(RUNS / folder / "ablations.png")
    return RUNS / folder


def _label(value: Any) -> str:
    return "x".join(map(str, value)) if isinstance(value, tuple) else str(value)


def _point(summary: dict[str, Any]) -> dict[str, Any]:
    (method,) = summary["methods"].values()
    blocks = [name for name in method if name.startswith("episodes_") and name[9].isdigit()]
    return {
        **{name: method[name] for name in blocks},
        "train_tasks": method["train_tasks"],
        "optimum": summary["optimum"],
        "seconds": sum(summary["seconds"].values()),
    }


def ablation_panels(found: dict[str, dict[str, Any]]) -> bytes:
    """Draw the return of the last episodes over each axis, as PNG."""
    columns = min(3, len(found))
    rows = -(-len(found) // columns)
    with drawing((3.4 * columns, 2.9 * rows)) as figure:
        panels = figure.subplots(rows, columns, sharey=True, squeeze=False).flatten()
        for axes in panels[len(found) :]:
            axes.axis("off")
        for axes, (axis, points) in zip(panels, found.items(), strict=False):
            block = [name for name in next(iter(points.values())) if name.startswith("episodes_")]
            last = [point[block[-1]] for point in points.values()]
            train = [point["train_tasks"][block[-1]] for point in points.values()]
            value = np.array([interval["value"] for interval in last])
            low = value - [interval["low"] for interval in last]
            high = np.array([interval["high"] for interval in last]) - value
            x = np.arange(len(points))
            axes.errorbar(x, value, [low, high], color=BLUE, marker="o", capsize=3, label="new")
            axes.plot(x, train, color=GREY, linestyle="--", marker="s", label="trained on")
            axes.set_xticks(x, list(points))
            axes.set(xlabel=AXES[axis][0], ylim=(0, None), title=axis.replace("_", " "))
        for first in panels[::columns]:
            first_episode, last_episode = block[-1].split("_")[1:]
            first.set_ylabel(f"return, episodes {first_episode}–{last_episode}")
        panels[0].legend(title="tasks", alignment="left")
        figure.tight_layout()
        return png(figure)


if __name__ == "__main__":
    main(tyro.cli(AblationOptions))
