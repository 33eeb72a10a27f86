"""One experiment for every environment: distil learning, and let it learn tasks it never saw.

For each method and seed:

1. ``histories_<seed>``: source learners learn the training tasks; histories go into a store.
2. ``distil_<seed>``: train a transformer on them; the best in validation tasks is kept.
3. ``returns_<seed>``: with frozen weights it acts in test tasks, episode after episode, and in some
   of the tasks it was trained on.

For RL², ``train_<seed>`` takes the place of the first two: it learns in the training tasks online.

Beside them ``source`` (a method's source algorithm itself, learning the test tasks from nothing)
and ``random``. Each method has a folder of its own in that of the run. A run that was killed goes
on where it was; several processes may share a run folder if each is given other ``--seeds`` or
``--methods``. In the end ``summary.json`` and ``report.html`` are written, of all that the run's
folder then holds.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Literal

import numpy as np
import torch

from algdistill.agents import Agent, InContextAgent, RandomAgent
from algdistill.evaluation import evaluate_in_context
from algdistill.histories import HistoryStore, WindowSampler
from algdistill.models import ADTransformer, ADTransformerConfig, load_model
from algdistill.sources import optimal_targets
from algdistill.tasks import BatchedTasks, TaskSpace
from algdistill.training import SELECTION_METRIC, Trainer
from in_context_report import figures, write_in_context_report
from in_context_summary import Results, summarise
from in_context_task import RL2, InContextTask, Method
from rl2 import load_rl2, train_rl2
from run_folder import Arrays, RunFolder, write_atomically, write_json

_VALIDATION_EPISODES = 50
_VALIDATION_RETURNS = 20  # the last of them choose the model
_TRAIN_TASKS_SHOWN = 64

MakeAgent = Callable[..., Agent]
"""Makes an agent with the weights that were kept: ``make_agent(tasks, greedy=False)``."""


@dataclass(frozen=True)
class Options:
    """Options of the command line.

    Attributes:
        preset: ``full`` is what is reported; ``debug`` runs through everything in seconds.
        seeds: Training runs of each method.
        methods: Which methods; all by default, but RL² must be named.
        run_name: Folder under ``runs/``; that of the environment by default.
        summarise: Whether to write the summary and the report.
    """

    preset: Literal["full", "debug"] = "full"
    seeds: tuple[int, ...] = (0, 1, 2)
    methods: tuple[str, ...] = ()
    run_name: str | None = None
    summarise: bool = True


def run_experiment(task: InContextTask, options: Options) -> Path:
    """Run all stages and return the run's folder.

    Raises:
        ValueError: If a method is unknown, or there is nothing to compare RL² with.
    """
    torch.set_num_threads(1)
    if unknown := set(options.methods) - set(task.titles):
        raise ValueError(f"got methods {sorted(unknown)}, expected some of {list(task.titles)}")
    if options.preset == "debug":
        task = shortened(task)
    chosen = sorted(options.methods or task.methods, key=lambda name: name == RL2)
    run = run_folder(task, options)
    folders = {
        name: method_folder(run, task, name)
        for name in task.titles
        if name in chosen or (run.path / name).exists()
    }
    if options.summarise and set(folders) == {RL2}:
        raise ValueError("got RL² alone, expected another method to compare it with: name one")
    for seed in options.seeds:
        for name in chosen:
            _learn_and_act(folders[name], task, name, seed)
    if options.summarise:
        _report(run, task, folders)
    return run.path


def _report(run: RunFolder, task: InContextTask, folders: Mapping[str, RunFolder]) -> None:
    """Write the summary and the report of all seeds of all methods that are finished."""
    returns = {
        (name, seed): folder.finished(f"returns_{seed}")
        for name, folder in folders.items()
        for seed in _finished_seeds(folder)
    }
    folders = {name: folders[name] for name, _ in returns}
    sources = {
        name: folder.stage("source", partial(_source_learns, task, name))
        for name, folder in folders.items()
        if name in task.methods
    }
    random = run.stage("random", partial(_random_acts, task))
    results = Results(task, returns, sources, random)
    summary = summarise(run, folders, results)
    write_json(run.path / "summary.json", summary)
    drawn = figures(results)
    (run.path / "figures").mkdir(exist_ok=True)
    for index, figure in enumerate(drawn):
        write_atomically(run.path / "figures" / f"{index}.png", figure.image)
    print(write_in_context_report(run.path, task, summary, drawn))


def _finished_seeds(folder: RunFolder) -> list[int]:
    return sorted(int(file.stem.split("_")[1]) for file in folder.path.glob("returns_*.npz"))


def run_folder(task: InContextTask, options: Options) -> RunFolder:
    """The run's folder, which belongs to what all methods have in common."""
    return RunFolder(Path("runs") / (options.run_name or task.name), task.settings(options.preset))


def method_folder(run: RunFolder, task: InContextTask, name: str) -> RunFolder:
    """The folder of one method, which belongs to its settings."""
    return RunFolder(run.path / name, task.settings_of(name))


def _learn_and_act(folder: RunFolder, task: InContextTask, name: str, seed: int) -> None:
    make_agent: MakeAgent
    if name == RL2:
        make_agent = partial(_rl2_agent, task, trained_policy(folder, task, seed))
    else:
        make_agent = partial(_in_context_agent, distilled_model(folder, task, name, seed))
    folder.stage(f"returns_{seed}", partial(_act, task, seed, make_agent))


def distilled_model(folder: RunFolder, task: InContextTask, name: str, seed: int) -> Path:
    """Collect a method's histories, distil them, and return the file of the best model."""
    method = task.methods[name]
    store, run_dir = folder.path / f"histories_{seed}", folder.path / f"distil_{seed}"
    folder.stage(f"histories_{seed}", partial(_collect, task, method, seed, store))
    folder.stage(f"distil_{seed}", partial(_distil, task, method, seed, store, run_dir))
    return run_dir / "best.safetensors"


def trained_policy(folder: RunFolder, task: InContextTask, seed: int) -> Path:
    """Train RL² in the training tasks, and return the file of the best policy."""
    run_dir = folder.path / f"train_{seed}"
    folder.stage(f"train_{seed}", partial(_train_online, task, seed, run_dir))
    return run_dir / "best.safetensors"


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
    targets = None
    if method.predicts_optimal:
        targets = optimal_targets(histories, task.training_tasks(method, seed)[0])  # type: ignore[arg-type]
    sampler = WindowSampler(
        histories,
        window_length=task.model["context_length"],
        start_fraction=0.2,
        generator=np.random.default_rng(seed),
        targets=targets,
    )
    model = ADTransformer(ADTransformerConfig(sampler.space, **task.model), generator)
    tasks = _validation_tasks(task)

    def evaluate(model: ADTransformer) -> dict[str, float]:
        returns = _validation_returns(task, _agent_of(model, tasks), tasks)
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


def _train_online(task: InContextTask, seed: int, folder: Path) -> Arrays:
    """Train RL² and keep the policy that learns validation tasks best."""
    assert task.rl2 is not None
    tasks = _validation_tasks(task)

    def evaluate(agent: Agent) -> float:
        returns = _validation_returns(task, agent, tasks)
        return float(returns[:, -_VALIDATION_RETURNS:].mean())

    best_metric, best_update = train_rl2(
        task.make_tasks, task.split.train, task.rl2, folder, evaluate=evaluate, seed=seed
    )
    return {"best_metric": np.float64(best_metric), "best_update": np.int64(best_update)}


def _validation_tasks(task: InContextTask) -> BatchedTasks:
    return task.validation_tasks(repeats=max(1, 64 // len(task.split.validation)))


def _validation_returns(task: InContextTask, agent: Agent, tasks: BatchedTasks) -> np.ndarray:
    return _returns(agent, tasks, min(_VALIDATION_EPISODES, task.num_episodes), seed=0)


def _act(task: InContextTask, seed: int, make_agent: MakeAgent) -> Arrays:
    """Returns with frozen weights in test tasks and in tasks trained on, one row a task."""
    test, episodes = task.test_tasks(task.split.test, task.repeats), task.num_episodes
    once = task.test_tasks(task.split.test, 1)
    every = max(1, len(task.split.train) // _TRAIN_TASKS_SHOWN)
    train_ids = task.split.train[::every][:_TRAIN_TASKS_SHOWN]
    train = task.make_tasks(train_ids, torch.arange(len(train_ids)))
    returns = _returns(make_agent(test), test, episodes, seed=seed + 1)
    return {
        "test": _of_each_task(returns, task.repeats),
        "greedy": _returns(make_agent(once, greedy=True), once, episodes, seed=seed),
        "train": _returns(make_agent(train), train, episodes, seed=seed + 1),
    }


def _in_context_agent(best: Path, tasks: BatchedTasks, *, greedy: bool = False) -> InContextAgent:
    return _agent_of(load_model(best), tasks, greedy=greedy)


def _agent_of(model: ADTransformer, tasks: BatchedTasks, *, greedy: bool = False) -> InContextAgent:
    drop_length = min(tasks.episode_length, model.config.context_length)
    return InContextAgent(model, drop_length=drop_length, greedy=greedy)


def _rl2_agent(
    task: InContextTask, best: Path, tasks: BatchedTasks, *, greedy: bool = False
) -> Agent:
    assert task.rl2 is not None
    return load_rl2(best, TaskSpace.of(tasks), task.rl2, greedy=greedy)


def _returns(agent: Agent, tasks: BatchedTasks, num_episodes: int, *, seed: int) -> np.ndarray:
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
    histories = task.methods[name].learners(tasks, seeds).train()
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
    rl2 = task.rl2 and replace(
        task.rl2,
        num_updates=2,
        evaluate_every=1,
        num_trials=4,
        episodes_per_trial=2,
        hidden_size=16,
    )
    return replace(
        task,
        methods=short,
        rl2=rl2,
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
