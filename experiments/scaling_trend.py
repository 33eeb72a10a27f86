"""Larger VLM, more accurate reward, more capable agent (Baumli et al. 2023), at one's own scale.

    python experiments/encoder_family.py
    python experiments/scaling_trend.py

For each model: how accurate its reward is on fixed, labelled trajectories of Playroom and Launcher;
what agents can do that were trained on it alone, by the ground truth of goals that they were not
trained on; and what a transformer learns in context of goals that nobody tells it, distilled from
learners that the model paid.

``--models`` takes sizes of the family, model cards (``.json``), and open_clip's models with a tag
or a checkpoint: ``ViT-B-32:laion2b_s34b_b79k``, ``ViT-B-32:weights.safetensors``.

Each job keeps its result in a file; a run that was killed goes on where it was. A job that fails is
tried once more; what fails twice is named in the end, and the summary waits for it.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
import tyro

from algdistill.sources import TabularQLearningConfig
from encoder_family import CPU_SIZES, SIZES
from hidden_goal_learning import HiddenGoalPreset, Rooms
from jobs import Backend, Job, run_all_jobs
from run_folder import Arrays, RunFolder, write_atomically, write_json
from trend_domains import domains
from trend_figures import (
    accuracy_and_ability,
    accuracy_by_size,
    choices,
    in_context_curves,
    paid_and_reached,
    two_panels,
    wrong_frames,
)
from trend_in_context import collect_histories, find_rewards, learn_in_context
from trend_offline import draw_labelled, measure_offline
from trend_online import online_domain, train_agent
from trend_summary import Results, summarise
from trend_tensorboard import write_events
from vlmreward import RewardModel, load_encoder
from vlmreward.encoders import OpenCLIPEncoder, shipped_encoders

TRUTH = "true reward"
"""What stands for a model where the ground truth pays."""


@dataclass(frozen=True)
class Preset:
    """How much of everything.

    Attributes:
        num_episodes: Labelled trajectories of each domain, to calibrate on and to test on.
        num_steps: Environment steps of each agent.
        num_points: Of each learning curve.
        num_evaluated: Episodes at each of them, of each kind of goals.
        in_context: How much is learned of hidden goals.
        in_context_seeds: Distillations of each model's histories.
    """

    num_episodes: int
    num_steps: int
    num_points: int
    num_evaluated: int
    in_context: HiddenGoalPreset
    in_context_seeds: int


_SOURCE = TabularQLearningConfig()
_FEW = TabularQLearningConfig(num_episodes=12, exploration_episodes=6)
PRESETS = {
    "full": Preset(1024, 50_000, 10, 256, HiddenGoalPreset(1500, 96, _SOURCE, 1600, 30, 64), 2),
    "quick": Preset(256, 20_000, 4, 256, HiddenGoalPreset(300, 32, _SOURCE, 300, 20, 64), 1),
    "debug": Preset(16, 64, 2, 8, HiddenGoalPreset(8, 8, _FEW, 4, 6, 8), 1),
}


@dataclass(frozen=True)
class TrendOptions:
    """Options of the command line.

    Attributes:
        models: What to compare, from small to large.
        seeds: Agents trained on each reward, in each domain.
        preset: ``quick`` does less of everything, ``debug`` as little as runs through.
        workers: Processes at a time, on this machine; with 0, jobs run one by one in this one.
        backend: Run jobs in processes of this machine, or on a Ray cluster.
        family: Folder of the family's model cards; of sizes that it does not have, those that ship
            are taken.
        run_name: Folder under ``runs/``.
    """

    models: tuple[str, ...] = CPU_SIZES
    seeds: tuple[int, ...] = (0, 1, 2, 3, 4)
    preset: Literal["full", "quick", "debug"] = "full"
    workers: int = 2
    backend: Backend = "processes"
    family: Path = Path("runs/encoder_family")
    run_name: str = "scaling_trend"


def main(options: TrendOptions) -> Path:
    """Run what is not yet done, write ``summary.json`` and the figure, and return the folder.

    Raises:
        ValueError: If a model is unknown, or the folder belongs to other settings.
        RuntimeError: If jobs failed twice.
    """
    for model in options.models:
        load_model(model, options.family)  # before anything is computed
    preset = PRESETS[options.preset]
    run = RunFolder(Path("runs") / options.run_name, preset)
    run_all = partial(run_all_jobs, num_workers=options.workers, backend=options.backend)
    offline = {
        f"offline {model}": partial(run_offline, run, model, options.family)
        for model in options.models
        if not run.is_finished(f"offline_{file_name(model)}")
    }
    run_all(offline)
    online: dict[str, Job] = {
        f"{domain.name} {model} {seed}": partial(
            run_online, run, domain.name, model, options.family, seed
        )
        for seed in options.seeds
        for domain in domains()
        for model in (*options.models, TRUTH)
        if not run.is_finished(f"{domain.name}_{file_name(model)}_{seed}")
    }
    run_all(online)
    everything = (*options.models, TRUTH)
    histories: dict[str, Job] = {
        f"histories {model}": partial(run_histories, run, model, options)
        for model in everything
        if not in_context_folder(run, model).is_finished("sources")
    }
    run_all(histories)
    in_context: dict[str, Job] = {
        f"in context {model} {seed}": partial(run_in_context, run, model, options, seed)
        for seed in range(preset.in_context_seeds)
        for model in everything
        if not in_context_folder(run, model).is_finished(f"returns_{seed}")
    }
    run_all(in_context)
    results = collect(run, options)
    summary = summarise(run, results)
    write_json(run.path / "summary.json", summary)
    write_events(run.path / "tensorboard", results)
    for name, picture in pictures(summary, results).items():
        write_atomically(run.path / f"{name}.png", picture)
    print(run.path / "scaling_trend.png")
    return run.path


def pictures(summary: Mapping[str, Any], results: Results) -> dict[str, bytes]:
    """Draw every figure, as PNG by name."""
    of_summary = (
        accuracy_by_size, accuracy_and_ability, choices, in_context_curves, paid_and_reached,
    )  # fmt: skip
    drawn = {draw.__name__: draw(summary) for draw in of_summary}
    for domain in domains():
        goals = [goal.prompts[0] for goal in online_domain(domain).test_goals]
        shown = {}
        for model in results.models:
            runs = results.online[domain.name, model]
            index = np.concatenate([found["wrong_goals"] for found in runs])
            frames = np.concatenate([found["wrong_frames"] for found in runs])
            shown[model] = (frames, [goals[goal] for goal in index])
        drawn[f"wrong_frames_{domain.name}"] = wrong_frames(shown)
    return {"scaling_trend": two_panels(summary), **drawn}


def load_model(model: str, family: Path) -> OpenCLIPEncoder:
    """Load a model by what ``--models`` calls it.

    A size is read from its card in the family's folder; where there is none, the one that ships is
    taken.

    Raises:
        ValueError: If it is unknown; the nearest names are given.
        CheckpointError: If its weights cannot be read or are another model's.
    """
    if model in SIZES:
        card, shipped = family / f"{model}.json", f"playroom_launcher_{model}"
        if card.exists():
            return load_encoder(str(card))
        if shipped in shipped_encoders():
            return load_encoder(shipped)
        raise ValueError(
            f"got model {model!r}, which does not ship, and whose card {card} is not there: train "
            f"it with `python experiments/encoder_family.py --sizes {model}`"
        )
    name, _, weights = model.partition(":")
    if not weights:
        return load_encoder(name)
    if Path(weights).is_file():
        return load_encoder(name, checkpoint=weights)
    return load_encoder(name, pretrained=weights)


def file_name(model: str) -> str:
    """Return what a model's files are called."""
    return model.replace("/", "_").replace(":", "_").replace(" ", "_")


def run_offline(run: RunFolder, model: str, family: Path) -> None:
    """Measure a model's rewards on labelled trajectories."""
    torch.set_num_threads(1)

    def compute() -> Arrays:
        encoder = load_model(model, family)
        parameters = sum(p.numel() for p in encoder.model.visual.parameters())
        found: Arrays = {"image_tower_parameters": np.array(parameters)}
        for domain in domains():
            labelled = draw_labelled(domain, run.settings.num_episodes)
            measured = measure_offline(encoder, domain, *labelled)
            found |= {f"{domain.name}_{name}": value for name, value in measured.items()}
            found[f"{domain.name}_labels"] = labelled[1].labels
        return found

    run.stage(f"offline_{file_name(model)}", compute)


def run_online(run: RunFolder, domain_name: str, model: str, family: Path, seed: int) -> None:
    """Train an agent on a model's reward, or on the true one."""
    torch.set_num_threads(1)

    def compute() -> Arrays:
        encoder, threshold = None, 0.0
        if model != TRUTH:
            encoder = load_model(model, family)
            offline = run.finished(f"offline_{file_name(model)}")
            threshold = float(offline[f"{domain_name}_threshold"])
        (domain,) = (one for one in domains() if one.name == domain_name)
        return train_agent(
            online_domain(domain),
            encoder,
            threshold,
            num_steps=run.settings.num_steps,
            num_points=run.settings.num_points,
            num_evaluated=run.settings.num_evaluated,
            seed=seed,
        )

    run.stage(f"{domain_name}_{file_name(model)}_{seed}", compute)


def in_context_folder(run: RunFolder, model: str) -> RunFolder:
    """Return where histories and what was distilled from them are kept."""
    return RunFolder(run.path / f"in_context_{file_name(model)}", run.settings)


def run_histories(run: RunFolder, model: str, options: TrendOptions) -> tuple[RunFolder, Rooms]:
    """Let sources learn hidden goals on a model's reward; return where, and their rooms."""
    torch.set_num_threads(1)
    folder = in_context_folder(run, model)
    # The ground truth needs a model as well, whose scores are not used, to draw the same rooms.
    scorer = options.models[0] if model == TRUTH else model

    def load() -> RewardModel:
        offline = run.finished(f"offline_{file_name(scorer)}")
        threshold = float(offline["playroom_threshold"])
        return find_rewards(load_model(scorer, options.family), threshold)

    rooms = collect_histories(folder, run.settings.in_context, load, truth=model == TRUTH)
    return folder, rooms


def run_in_context(run: RunFolder, model: str, options: TrendOptions, seed: int) -> None:
    """Distil what sources have learned on a model's reward, and let it learn new goals."""
    folder, rooms = run_histories(run, model, options)
    settings = run.settings.in_context
    folder.stage(f"returns_{seed}", partial(learn_in_context, folder, rooms, settings, seed))


def collect(run: RunFolder, options: TrendOptions) -> Results:
    """Read what the jobs have kept."""
    return Results(
        offline={model: run.finished(f"offline_{file_name(model)}") for model in options.models},
        online={
            (domain.name, model): [
                run.finished(f"{domain.name}_{file_name(model)}_{seed}") for seed in options.seeds
            ]
            for domain in domains()
            for model in (*options.models, TRUTH)
        },
        in_context={
            model: [
                in_context_folder(run, model).finished(f"returns_{seed}")
                for seed in range(run.settings.in_context_seeds)
            ]
            for model in (*options.models, TRUTH)
        },
        truth=TRUTH,
        seeds=options.seeds,
        is_held_out={domain.name: domain.is_held_out for domain in domains()},
    )


if __name__ == "__main__":
    main(tyro.cli(TrendOptions))
