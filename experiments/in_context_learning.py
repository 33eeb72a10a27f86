"""One experiment for every environment: distil learning, and let it learn tasks it never saw.

For each method and seed:

1. ``histories_*``: source learners learn the training tasks; their histories go into a store.
2. ``distil_*``: train a transformer on them; the one that learns validation tasks best is kept.
3. ``returns_*``: with frozen weights it acts in test tasks, episode after episode, and in some of
   the tasks it was trained on.

Beside them ``source_*`` (a method's source algorithm itself, learning the test tasks from nothing)
and ``random``. Then write ``summary.json`` and ``report.html``. A run that was killed goes on where
it was; several processes may share a run folder if each is given other ``--seeds``.
"""

from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Literal

import numpy as np
import torch

from algdistill.agents import InContextAgent, RandomAgent
from algdistill.evaluation import evaluate_in_context
from algdistill.histories import HistoryStore, WindowSampler
from algdistill.models import ADTransformer, ADTransformerConfig, load_model
from algdistill.tasks import BatchedTasks, TaskSpace
from algdistill.training import SELECTION_METRIC, Trainer, TrainingConfig
from in_context_report import figures, write_in_context_report
from in_context_summary import Results, summarise
from in_context_task import InContextTask, Method
from run_folder import Arrays, RunFolder, write_atomically, write_json

_VALIDATION_EPISODES = 50
_VALIDATION_RETURNS = 20  # the last of them choose the model
_TRAIN_TASKS_SHOWN = 64


@dataclass(frozen=True)
class Options:
    """Options of the command line.

    Attributes:
        preset: ``full`` is what is reported; ``debug`` runs through everything in seconds.
        seeds: Training runs of each method.
        methods: Which methods; all by default.
        run_name: Folder under ``runs/``; that of the environment by default.
        summarise: Whether to write the summary and the report; needs every seed and method.
    """

    preset: Literal["full", "debug"] = "full"
    seeds: tuple[int, ...] = (0, 1, 2)
    methods: tuple[str, ...] = ()
    run_name: str | None = None
    summarise: bool = True


@dataclass(frozen=True)
class Settings:
    """What a run folder belongs to."""

    preset: str
    model: dict[str, int]
    training: dict[str, TrainingConfig]


def run_experiment(task: InContextTask, options: Options) -> Path:
    """Run all stages and return the run's folder.

    Raises:
        ValueError: If a method is unknown.
    """
    torch.set_num_threads(1)
    if unknown := set(options.methods) - set(task.methods):
        raise ValueError(f"got methods {sorted(unknown)}, expected some of {list(task.methods)}")
    if options.preset == "debug":
        task = shortened(task)
    chosen = options.methods or tuple(task.methods)
    run = run_folder(task, options)
    returns = {
        (name, seed): _learn_and_act(run, task, name, seed)
        for seed in options.seeds
        for name in chosen
    }
    sources = {
        name: run.stage(f"source_{name}", partial(_source_learns, task, name)) for name in chosen
    }
    random = run.stage("random", partial(_random_acts, task))
    if options.summarise:
        results = Results(task, returns, sources, random)
        summary = summarise(run, results)
        write_json(run.path / "summary.json", summary)
        drawn = figures(results)
        (run.path / "figures").mkdir(exist_ok=True)
        for index, figure in enumerate(drawn):
            write_atomically(run.path / "figures" / f"{index}.png", figure.image)
        print(write_in_context_report(run.path, task, summary, drawn))
    return run.path


def run_folder(task: InContextTask, options: Options) -> RunFolder:
    """The run's folder, which belongs to its settings."""
    settings = Settings(
        options.preset,
        dict(task.model),
        {name: method.training for name, method in task.methods.items()},
    )
    return RunFolder(Path("runs") / (options.run_name or task.name), settings)


def _learn_and_act(run: RunFolder, task: InContextTask, name: str, seed: int) -> Arrays:
    model = distilled_model(run, task, name, seed)
    return run.stage(f"returns_{name}_{seed}", partial(_act, task, seed, model))


def distilled_model(run: RunFolder, task: InContextTask, name: str, seed: int) -> Path:
    """Collect a method's histories, distil them, and return the file of the best model."""
    method = task.methods[name]
    store = run.path / f"histories_{name}_{seed}"
    folder = run.path / f"distil_{name}_{seed}"
    run.stage(f"histories_{name}_{seed}", partial(_collect, task, method, seed, store))
    run.stage(f"distil_{name}_{seed}", partial(_distil, task, method, seed, store, folder))
    return folder / "best.safetensors"


def _collect(task: InContextTask, method: Method, seed: int, folder: Path) -> Arrays:
    """Let the sources learn; returns how well they did, episode by episode."""
    tasks, learner_seeds = task.training_tasks(method, seed)
    histories = method.histories(tasks, learner_seeds)
    if not folder.exists():  # else a process killed right after writing it left it whole or short
        store = HistoryStore.create(
            folder,
            TaskSpace.of(tasks),
            num_steps=max(len(history) for history in histories),
            reward_dtype="uint8",
            metadata=dict(histories[0].metadata),
        )
    else:
        store = HistoryStore.open(folder, read_only=False)
    store.append(histories[len(store) :])
    returns = np.stack([history.env_episode_returns for history in histories])
    return {"source_returns": returns.mean(axis=0)}


def _distil(task: InContextTask, method: Method, seed: int, store: Path, folder: Path) -> Arrays:
    """Train a model on the histories and keep the one that learns validation tasks best."""
    generator = torch.Generator().manual_seed(seed)
    histories = HistoryStore.open(store).read()
    context_length = task.model["context_length"]
    sampler = WindowSampler(
        histories,
        window_length=context_length,
        start_fraction=0.2,
        generator=np.random.default_rng(seed),
    )
    model = ADTransformer(ADTransformerConfig(sampler.space, **task.model), generator)
    tasks = task.validation_tasks(repeats=max(1, 64 // len(task.split.validation)))

    def evaluate(model: ADTransformer) -> dict[str, float]:
        returns = _returns(model, tasks, min(_VALIDATION_EPISODES, task.num_episodes), seed=0)
        return {
            SELECTION_METRIC: float(returns[:, -_VALIDATION_RETURNS:].mean()),
            "eval/first_episodes": float(returns[:, :5].mean()),
        }

    result = Trainer(
        model, sampler, method.training, folder, evaluate=evaluate, generator=generator
    ).train()
    return {
        "best_metric": np.float64(result.best_metric),
        "best_update": np.int64(result.best_update),
    }


def _act(task: InContextTask, seed: int, best: Path) -> Arrays:
    """Returns of a frozen model in test tasks and in tasks it was trained on, one row a task."""
    model = load_model(best)
    train_ids = task.split.train[:_TRAIN_TASKS_SHOWN]
    return {
        "test": _of_each_task(
            _returns(
                model,
                task.test_tasks(task.split.test, task.repeats),
                task.num_episodes,
                seed=seed + 1,
            ),
            task.repeats,
        ),
        "greedy": _returns(
            model, task.test_tasks(task.split.test, 1), task.num_episodes, seed=seed, greedy=True
        ),
        "train": _returns(
            model,
            task.make_tasks(train_ids, torch.arange(len(train_ids))),
            task.num_episodes,
            seed=seed + 1,
        ),
    }


def _returns(
    model: ADTransformer,
    tasks: BatchedTasks,
    num_episodes: int,
    *,
    seed: int,
    greedy: bool = False,
) -> np.ndarray:
    agent = InContextAgent(
        model,
        drop_length=min(tasks.episode_length, model.config.context_length),
        greedy=greedy,
    )
    generator = torch.Generator().manual_seed(seed)
    return evaluate_in_context(
        agent, tasks, num_episodes=num_episodes, generator=generator
    ).env_returns


def _of_each_task(returns: np.ndarray, repeats: int) -> np.ndarray:
    """Mean over the evaluations of each task."""
    return returns.reshape(-1, repeats, returns.shape[1]).mean(axis=1)


def _source_learns(task: InContextTask, name: str) -> Arrays:
    """Returns of a method's source algorithm, learning each test task from nothing."""
    tasks = task.test_tasks(task.split.test, task.repeats)
    seeds = torch.arange(tasks.num_tasks)
    histories = task.methods[name].source(tasks, seeds).train()
    returns = np.stack([history.env_episode_returns for history in histories])
    optimum = tasks.optimal_returns().numpy()  # type: ignore[attr-defined]
    return {
        "test": _of_each_task(returns, task.repeats),
        "optimum": _of_each_task(optimum[:, None], task.repeats)[:, 0],
    }


def _random_acts(task: InContextTask) -> Arrays:
    """Returns of uniformly random actions in the test tasks."""
    tasks = task.test_tasks(task.split.test, task.repeats)
    returns = evaluate_in_context(
        RandomAgent(TaskSpace.of(tasks)),
        tasks,
        num_episodes=task.num_episodes,
        generator=torch.Generator().manual_seed(0),
    ).env_returns
    return {"test": _of_each_task(returns, task.repeats)}


def shortened(task: InContextTask) -> InContextTask:
    """The same, with as little of everything as runs through."""
    short = {
        name: replace(
            method,
            histories_per_task=1,
            training=replace(method.training, num_updates=4, evaluate_every=2, batch_size=4),
        )
        for name, method in task.methods.items()
    }
    return replace(
        task,
        methods=short,
        model={**task.model, "embed_dim": 16, "num_layers": 1, "mlp_dim": 16},
        num_episodes=6,
        repeats=2,
        split=replace(
            task.split,
            train=task.split.train[:8],
            validation=task.split.validation[:4],
            test=task.split.test[:4],
        ),
    )
