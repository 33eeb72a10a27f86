"""Train a backbone that sees, hears and remembers on the Playroom with sound.

    python experiments/playroom_sound_encoder.py

First its steps: frames and sound with sentences about them, true and nearly true. Then, on the
tokens of whole episodes, its memory; all else stays as it is, so that memories can be compared:
``--memories`` and ``--memory-seeds`` name several, which are trained side by side. Goes on where it
was killed. Ends with the weights of each, and with how right they are on other episodes by kind of
goal, ``summary.json``, under ``runs/playroom_sound_encoder/``.

Axis letters: ``E`` episodes, ``T`` their length, ``G`` sentences.
"""

import shlex
import sys
from functools import partial
from pathlib import Path
from typing import Any

import torch
import tyro

from jobs import Job, run_all_jobs
from playroom_sound_accuracy import best_single, difference, of_each_goal, table
from playroom_sound_fusion import FUSIONS
from playroom_sound_presets import PRESETS, SoundEncoderOptions
from playroom_sound_stages import (
    measure_streams,
    memory_name,
    run_fusion,
    run_memory,
    tokens_of,
    train_steps,
)
from playroom_sound_streams import FRAME_CLIP
from run_folder import RunFolder, machine, versions, write_json
from vlmreward_envs.playroom_sound import GoalKind

_OF_STEP = (GoalKind.SEEN, GoalKind.HEARD, GoalKind.SEEN_AND_HEARD)


def main(options: SoundEncoderOptions) -> Path:
    """Train, measure and save, and return the run folder.

    Raises:
        ValueError: If the folder belongs to other settings.
        RuntimeError: If memories could not be trained.
    """
    run = RunFolder(Path("runs") / options.run_name, PRESETS[options.preset], options.streams)
    torch.set_num_threads(options.num_threads)
    steps = train_steps(run, options)
    for name in ("train", "progress", "test"):
        run.stage(f"tokens_{name}", partial(tokens_of, run, steps, name))
    run.stage("precision", partial(measure_streams, run, steps))
    jobs: dict[str, Job] = {
        f"fusion_{kind}": partial(run_fusion, run, kind, options) for kind in FUSIONS
    }
    jobs |= {
        f"memory_{memory_name(memory, seed, options)}": partial(
            run_memory, run, memory, seed, options
        )
        for memory in options.memories
        for seed in options.memory_seeds
    }
    jobs = {name: job for name, job in jobs.items() if not run.is_finished(name)}
    run_all_jobs(jobs, num_workers=options.workers)
    write_json(run.path / "summary.json", summarise(run, options))
    print(run.path / "summary.json")
    return run.path


def summarise(run: RunFolder, options: SoundEncoderOptions) -> dict[str, Any]:
    """Put everything that is reported into one mapping, ready for JSON."""
    of_streams = run.finished("precision")
    of_memories = {
        memory: [
            run.finished(f"memory_{memory_name(memory, seed, options)}")
            for seed in options.memory_seeds
        ]
        for memory in options.memories
    }
    precision = {memory: [of["precision"] for of in found] for memory, found in of_memories.items()}
    fusions = {kind: run.finished(f"fusion_{kind}")["precision"] for kind in FUSIONS}
    everything = {**{name: [of] for name, of in (of_streams | fusions).items()}, **precision}
    compared: dict[str, Any] = {
        "video_minus_frame_clip_seen": difference(
            [of_streams["video"]], [of_streams["frame CLIP"]], [GoalKind.SEEN]
        ),
        "fusion_minus_video_seen": difference(
            [of_streams["fusion"]], [of_streams["video"]], [GoalKind.SEEN]
        ),
        "fusion_minus_best_single": difference(
            [of_streams["fusion"]], [best_single(of_streams, _OF_STEP)], _OF_STEP
        ),
    }
    for kind, of in fusions.items():
        compared[f"fusion_minus_{kind}"] = difference([of_streams["fusion"]], [of], _OF_STEP)
    for memory in options.memories:
        if memory != "mean" and "mean" in options.memories:
            told = partial(difference, precision[memory], precision["mean"], [GoalKind.TOLD])
            compared[f"{memory}_minus_mean_told"] = told()
            if len(options.memory_seeds) > 1:
                compared[f"{memory}_minus_mean_told_seeds"] = told(resample_goals=False)
    return {
        "command": shlex.join(["python", *sys.argv]),
        "versions": versions(),
        "machine": machine(),
        "seconds": run.seconds(),
        "streams": options.streams or FRAME_CLIP,
        "time_stamps": options.time_stamps,
        "memory_seeds": list(options.memory_seeds),
        "average_precision": table(everything),
        "heard": of_each_goal(everything, GoalKind.HEARD),
        "told": of_each_goal(everything, GoalKind.TOLD),
        "differences": compared,
        "dropout": {
            name.removeprefix("dropout "): float(value)
            for name, value in of_memories[options.memories[0]][0].items()
            if name.startswith("dropout ")
        },
    }


if __name__ == "__main__":
    main(tyro.cli(SoundEncoderOptions))
