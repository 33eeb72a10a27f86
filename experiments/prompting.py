"""Prompt agents with a part of somebody else's learning history (Laskin et al. 2022, Figure 7).

    python experiments/dark_room.py && python experiments/prompting.py

The context of an agent from ``dark_room.py`` is filled with episodes of a source that is learning
a test task, early or late in its learning. Then the agent acts in that task. Distilled from whole
histories, it should go on improving wherever the source stood; distilled from experts' episodes
only, it can but keep what it was shown.
"""

import shlex
import sys
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
import tyro

from algdistill.agents import InContextAgent
from algdistill.evaluation import bootstrap_interval, evaluate_in_context, mean_between
from algdistill.models import load_model
from dark_room import TASK
from plots import BLACK, GREY, LINES, drawing, png
from run_folder import Arrays, RunFolder, machine, versions, write_atomically, write_json

PROGRESS = (0.05, 0.25, 0.5, 0.75, 0.95)
NUM_EPISODES = 50
LAST_EPISODES = 10
METHODS = {"ad": "AD of Q-learning", "expert": "Expert Distillation"}


@dataclass(frozen=True)
class Options:
    """Options of the command line.

    Attributes:
        run: Folder of a finished run of ``dark_room.py``.
        seeds: Its training runs to prompt.
        repeats: Prompts for each test task, each of a source of its own.
    """

    run: Path = Path("runs/dark_room")
    seeds: tuple[int, ...] = (0, 1, 2)
    repeats: int = 10


def main(options: Options) -> Path:
    """Prompt every model at every point of progress; write ``summary.json`` and the picture."""
    torch.set_num_threads(1)
    finished = [
        (name, seed)
        for name in METHODS
        for seed in options.seeds
        if (options.run / name / f"distil_{seed}.npz").exists()
    ]
    if not finished:
        raise SystemExit(f"no finished models in {options.run}: run dark_room.py first")
    folder = RunFolder(options.run / "prompting", PromptSettings(options.repeats))
    found = {
        (name, seed): folder.stage(
            f"{name}_{seed}",
            partial(prompt, options.run / name / f"distil_{seed}", options.repeats, seed),
        )
        for name, seed in finished
    }
    write_json(folder.path / "summary.json", _summary(folder, found))
    image = prompted_curves(found)
    write_atomically(folder.path / "prompting.png", image)
    print(folder.path / "prompting.png")
    return folder.path


@dataclass(frozen=True)
class PromptSettings:
    """What the folder of prompted returns belongs to."""

    repeats: int


def prompt(folder: Path, repeats: int, seed: int) -> Arrays:
    """Returns after each prompt, and of the episodes that were its prompt."""
    model = load_model(folder / "best.safetensors")
    tasks = TASK.test_tasks(TASK.split.test, repeats)
    histories = TASK.methods["ad"].learners(tasks, torch.arange(tasks.num_tasks)).train()
    num_shown = model.config.context_length // tasks.episode_length
    arrays = {}
    for progress in PROGRESS:
        end = prompt_end(progress, len(histories[0].episode_starts), num_shown)
        rows = slice((end - num_shown) * tasks.episode_length, end * tasks.episode_length)
        agent = InContextAgent(model, drop_length=tasks.episode_length)
        result = evaluate_in_context(
            agent,
            tasks,
            num_episodes=NUM_EPISODES,
            generator=torch.Generator().manual_seed(seed),
            prepare=partial(agent.prompt, histories, rows),
        )
        name = f"{progress:.2f}"
        arrays[f"after_{name}"] = result.env_returns
        shown = [history.episode_returns[end - num_shown : end] for history in histories]
        arrays[f"prompt_{name}"] = np.stack(shown)
    return arrays


def prompt_end(progress: float, num_episodes: int, num_shown: int) -> int:
    """Number of the episode that a prompt ends before, ``progress`` of the way."""
    return min(num_episodes, max(num_shown, round(progress * num_episodes)))


def prompted_curves(found: dict[tuple[str, int], Arrays]) -> bytes:
    """Draw what agents earn after each prompt, one panel for each method, as PNG."""
    names = list(dict.fromkeys(name for name, _ in found))
    with drawing((4.4 * len(names) + 0.4, 3.8)) as figure:
        panels = figure.subplots(1, len(names), sharey=True, squeeze=False)[0]
        for axes, name in zip(panels, names, strict=True):
            for index, progress in enumerate(PROGRESS):
                shown, after = (
                    _stacked(found, name, part, progress) for part in ("prompt", "after")
                )
                episodes = np.arange(1 - shown.shape[-1], after.shape[-1] + 1)
                mean = np.concatenate([shown, after], axis=-1).mean(axis=(0, 1))
                color, line, _ = (*LINES, (BLACK, "-", ""))[index]
                axes.plot(
                    episodes, mean, color=color, linestyle=line, label=f"{progress:.0%} of the way"
                )
            axes.axvline(0.5, color=GREY, linewidth=0.8)
            axes.set(title=METHODS[name], xlabel="episode after the prompt", ylim=(0, None))
        panels[0].set_ylabel("return")
        panels[-1].legend(title="prompt ends", alignment="left")
        return png(figure)


def _stacked(
    found: dict[tuple[str, int], Arrays], name: str, part: str, progress: float
) -> np.ndarray:
    return np.stack(
        [
            arrays[f"{part}_{progress:.2f}"]
            for (method, _), arrays in found.items()
            if method == name
        ]
    )


def _summary(folder: RunFolder, found: dict[tuple[str, int], Arrays]) -> dict[str, object]:
    last = mean_between(NUM_EPISODES - LAST_EPISODES + 1, NUM_EPISODES)
    methods: dict[str, dict[str, object]] = {}
    for name in dict.fromkeys(name for name, _ in found):
        methods[name] = {}
        for progress in PROGRESS:
            after = bootstrap_interval(_stacked(found, name, "after", progress), last, seed=0)
            methods[name][f"{progress:.2f}"] = {
                "prompt": float(_stacked(found, name, "prompt", progress).mean()),
                "after": {
                    "value": float(after.value[0]),
                    "low": float(after.low[0]),
                    "high": float(after.high[0]),
                },
            }
    return {
        "command": shlex.join(["python", *sys.argv]),
        "versions": versions(),
        "machine": machine(),
        "seconds": folder.seconds(),
        "seeds": sorted({seed for _, seed in found}),
        "num_episodes_after": NUM_EPISODES,
        "mean_of_last": LAST_EPISODES,
        "methods": methods,
    }


if __name__ == "__main__":
    main(tyro.cli(Options))
