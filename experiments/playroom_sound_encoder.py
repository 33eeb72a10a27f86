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
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
import tyro

from jobs import Job, run_all_jobs
from playroom_sound_accuracy import (
    base_rates,
    best_single,
    difference,
    frame_precision,
    goal_precision,
    mean_by_kind,
    of_each_goal,
    table,
)
from playroom_sound_calibration import FALSE_POSITIVE_RATE, calibrate_streams, present_head
from playroom_sound_domain import (
    IS_HELD_OUT,
    LabelledEpisodes,
    SoundBatchConfig,
    SoundBatches,
    draw_episodes,
)
from playroom_sound_dropout import measure_dropout
from playroom_sound_memory import (
    ContrastiveMemory,
    EpisodeBatches,
    encode_streams,
    measure_memory,
    memory_precision,
    with_memory,
)
from playroom_sound_streams import (
    ContrastiveSteps,
    embed_sentences,
    encode_episodes,
    measure_steps,
)
from run_folder import Arrays, RunFolder, machine, versions, write_json
from vlmreward import load_encoder
from vlmreward.backbone.encoder import MultimodalEncoder
from vlmreward.backbone.files import save_backbone, tokenizer_of
from vlmreward.backbone.model import PURE_AND_FUSED, BackboneConfig, MemoryKind
from vlmreward.backbone.optimisers import OptimiserConfig
from vlmreward.backbone.training import BackboneTrainingConfig, train_backbone
from vlmreward_envs.playroom_sound import GoalKind

EPISODES_SEEDS = {
    "train": 6_000_001, "progress": 6_000_002, "calibration": 6_000_004, "test": 6_000_003
}  # fmt: skip
"""Memories are trained on the first episodes and looked at on the second."""
_OF_STEP = (GoalKind.SEEN, GoalKind.HEARD, GoalKind.SEEN_AND_HEARD)


@dataclass(frozen=True)
class Preset:
    """How much of everything.

    Attributes:
        num_steps: Gradient steps of the streams.
        batch: Of each.
        num_memory_steps: Gradient steps of a memory.
        memory_batch: Episodes of each.
        num_described: Steps of each of these episodes that are described.
        num_episodes: Of each kind in `EPISODES_SEEDS`, in its order.
        episode_length: Their steps.
        calibrate_every: Steps between those calibrated on; neighbours are much alike.
    """

    num_steps: int
    batch: SoundBatchConfig
    num_memory_steps: int
    memory_batch: int
    num_described: int
    num_episodes: tuple[int, int, int, int]
    episode_length: int
    calibrate_every: int


PRESETS = {
    "full": Preset(5000, SoundBatchConfig(), 600, 8, 100, (384, 16, 32, 64), 200, 5),
    "debug": Preset(2, SoundBatchConfig(8, 1, 1), 2, 2, 4, (3, 2, 4, 4), 100, 3),
}


@dataclass(frozen=True)
class SoundEncoderOptions:
    """Options of the command line.

    Attributes:
        memories: What goes over the steps of an episode; one or several, to compare.
        memory_seeds: Of the memories' weights and batches.
        time_stamps: Whether memories are told the number of each step; a mean never is.
        preset: ``debug`` runs through everything in little time.
        seed: Of the streams' weights and batches.
        num_threads: Of torch, for the streams; another number gives other rounding, so other
            bytes. A memory has one.
        num_workers: Processes that draw batches ahead.
        workers: Memories trained at a time; with 0, they are trained one by one in this process.
        device: Where to train.
        run_name: Folder under ``runs/``.
    """

    memories: tuple[MemoryKind, ...] = ("transformer",)
    memory_seeds: tuple[int, ...] = (0,)
    time_stamps: bool = False
    preset: Literal["full", "debug"] = "full"
    seed: int = 0
    num_threads: int = 2
    num_workers: int = 0
    workers: int = 2
    device: str = "cpu"
    run_name: str = "playroom_sound_encoder"


def main(options: SoundEncoderOptions) -> Path:
    """Train, measure and save, and return the run folder.

    Raises:
        ValueError: If the folder belongs to other settings.
        RuntimeError: If memories could not be trained.
    """
    run = RunFolder(Path("runs") / options.run_name, PRESETS[options.preset])
    torch.set_num_threads(options.num_threads)
    steps = train_steps(run, options)
    for name in ("train", "progress", "test"):
        run.stage(f"tokens_{name}", partial(tokens_of, run, steps, name))
    run.stage("precision", partial(measure_streams, run, steps))
    jobs: dict[str, Job] = {
        memory_name(memory, seed, options): partial(run_memory, run, memory, seed, options)
        for memory in options.memories
        for seed in options.memory_seeds
    }
    run_all_jobs(jobs, num_workers=options.workers)
    write_json(run.path / "summary.json", summarise(run, options))
    print(run.path / "summary.json")
    return run.path


def train_steps(run: RunFolder, options: SoundEncoderOptions) -> ContrastiveSteps:
    """Train the streams of a step, or load them if an earlier run has."""
    config = BackboneConfig()
    tokenizer = tokenizer_of(config)
    preset: Preset = run.settings
    return train_backbone(
        ContrastiveSteps(config, options.seed).to(options.device),
        SoundBatches(preset.batch, config.log_mel, tokenizer, options.seed),
        _training(options, preset.num_steps, options.seed),
        run.path / "steps",
        evaluate=lambda model: measure_steps(model, draw(run, "progress"), tokenizer),
    )


def draw(run: RunFolder, name: str) -> LabelledEpisodes:
    """Draw the episodes of a kind in `EPISODES_SEEDS`."""
    preset: Preset = run.settings
    number = dict(zip(EPISODES_SEEDS, preset.num_episodes, strict=True))[name]
    rng = np.random.default_rng(EPISODES_SEEDS[name])
    return draw_episodes(number, preset.episode_length, BackboneConfig().log_mel, rng)


def tokens_of(run: RunFolder, steps: ContrastiveSteps, name: str) -> Arrays:
    """Return what a memory reads of some episodes, and what is true of them."""
    episodes = draw(run, name)
    tokens = encode_episodes(steps.backbone, episodes)["tokens"]
    return {"tokens": tokens.numpy(), "is_true": episodes.is_true.numpy()}


def measure_streams(run: RunFolder, steps: ContrastiveSteps) -> Arrays:
    """Return the average precision of every goal by every stream, by frames alone, by chance."""
    episodes = draw(run, "test")
    embedded = encode_episodes(steps.backbone, episodes)
    text = embed_sentences(steps.backbone, tokenizer_of(steps.backbone.config))
    found = {
        stream: goal_precision(episodes.is_true, embedded[stream], text)
        for stream in PURE_AND_FUSED
    }
    frames = load_encoder("playroom", device="cpu")
    found["frame CLIP"] = frame_precision(frames, episodes.frames, episodes.is_true)
    found["chance"] = base_rates(episodes.is_true)
    return found


def memory_name(memory: MemoryKind, seed: int, options: SoundEncoderOptions) -> str:
    """Return what a memory's files are called."""
    stamped = "_time_stamps" if options.time_stamps and memory != "mean" else ""
    return f"{memory}{stamped}_{seed}"


def run_memory(run: RunFolder, memory: MemoryKind, seed: int, options: SoundEncoderOptions) -> None:
    """Train a memory, measure it, and save the backbone that it makes whole."""
    if options.workers:
        torch.set_num_threads(1)
    name = memory_name(memory, seed, options)
    preset: Preset = run.settings

    def compute() -> Arrays:
        steps = train_steps(run, options)
        text = embed_sentences(steps.backbone, tokenizer_of(steps.backbone.config))
        config = replace(
            steps.backbone.config,
            memory=memory,
            time_stamps=options.time_stamps and memory != "mean",
        )
        named = torch.from_numpy(~IS_HELD_OUT)
        train, progress, test = (
            {key: torch.from_numpy(value) for key, value in run.finished(f"tokens_{of}").items()}
            for of in ("train", "progress", "test")
        )
        model = train_backbone(
            ContrastiveMemory(with_memory(steps.backbone, config, seed), text[named]).to(
                options.device
            ),
            EpisodeBatches(
                train["tokens"],
                train["is_true"][..., named],
                preset.memory_batch,
                preset.num_described,
                seed,
            ),
            _training(options, preset.num_memory_steps, seed),
            run.path / name,
            evaluate=partial(measure_memory, **progress, text=text),
        )
        precision = memory_precision(model, **test, text=text)
        dropout = save(run, steps, model, name, precision)
        return {"precision": precision, **dropout}

    run.stage(f"memory_{name}", compute)


def save(
    run: RunFolder,
    steps: ContrastiveSteps,
    model: ContrastiveMemory,
    name: str,
    precision: np.ndarray,
) -> Arrays:
    """Calibrate every stream, write the backbone with its card, and cut its sensors.

    Returns:
        What `measure_dropout` finds on the episodes of the test, one array for each number.
    """
    preset: Preset = run.settings
    backbone, path = model.backbone, run.path / f"{name}_backbone"
    tokenizer = tokenizer_of(backbone.config)
    trained = {
        stream: 1 / objectives.logit_scale(pair).item()
        for objectives, pair, stream in (
            (steps.objectives, "audio_text", "audio"),
            (steps.objectives, "image_text", "video"),
            (steps.objectives, "fusion_text", "fusion"),
            (model.objectives, "episode_text", "episode"),
        )
    }
    (embedded, is_true), test = (
        _some_steps(encode_streams(backbone, episodes), episodes, preset.calibrate_every)
        for episodes in (draw(run, "calibration"), draw(run, "test"))
    )
    encoder = MultimodalEncoder(backbone, tokenizer, name=name)
    calibrated = calibrate_streams(encoder, embedded, is_true, trained)
    temperatures = {stream: of.temperature for stream, of in calibrated.items()}
    heads = {stream: of.head for stream, of in calibrated.items()}
    present = partial(
        MultimodalEncoder,
        backbone,
        tokenizer,
        name=name,
        stream="present",
        temperatures=temperatures,
    )
    heads_with_present = {**heads, "present": present_head(present(), embedded, is_true)}
    save_backbone(
        backbone,
        path,
        temperatures=temperatures,
        heads=heads_with_present,
        training={
            "command": shlex.join(["python", *sys.argv]),
            "torch": torch.__version__,
            "calibrated_false_positive_rate": FALSE_POSITIVE_RATE,
            "average_precision": {
                **{
                    key: value
                    for stream in PURE_AND_FUSED
                    for key, value in mean_by_kind(
                        run.finished("precision")[stream], stream
                    ).items()
                },
                **mean_by_kind(precision, "episode"),
            },
        },
    )
    calibrated_encoder = present(calibrated_head=heads_with_present["present"])
    cut = measure_dropout(calibrated_encoder, *test, heads["fusion"])
    return {
        f"dropout {sensor} {variant} {key}": np.array(value)
        for sensor, variants in cut.items()
        for variant, numbers in variants.items()
        for key, value in numbers.items()
    }


def _some_steps(
    embedded: dict[str, torch.Tensor], episodes: LabelledEpisodes, every: int
) -> tuple[dict[str, torch.Tensor], torch.Tensor]:
    rows = {stream: of.flatten(0, 1)[::every] for stream, of in embedded.items()}
    return rows, episodes.is_true.flatten(0, 1)[::every]


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
    everything = {**{name: [of] for name, of in of_streams.items()}, **precision}
    compared: dict[str, Any] = {
        "video_minus_frame_clip_seen": difference(
            [of_streams["video"]], [of_streams["frame CLIP"]], [GoalKind.SEEN]
        ),
        "fusion_minus_best_single": difference(
            [of_streams["fusion"]], [best_single(of_streams, _OF_STEP)], _OF_STEP
        ),
    }
    for memory in options.memories:
        if memory != "mean" and "mean" in options.memories:
            compared[f"{memory}_minus_mean_told"] = difference(
                precision[memory], precision["mean"], [GoalKind.TOLD]
            )
    return {
        "command": shlex.join(["python", *sys.argv]),
        "versions": versions(),
        "machine": machine(),
        "seconds": run.seconds(),
        "config": BackboneConfig().to_dict(),
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


def _training(options: SoundEncoderOptions, num_steps: int, seed: int) -> BackboneTrainingConfig:
    return BackboneTrainingConfig(
        num_steps=num_steps,
        optimiser=OptimiserConfig(learning_rate=2e-3, warmup_steps=min(200, num_steps)),
        seed=seed,
        num_workers=options.num_workers,
        checkpoint_interval=100,
        evaluation_interval=500,
    )


if __name__ == "__main__":
    main(tyro.cli(SoundEncoderOptions))
