"""Algorithm Distillation of UCB in the Adversarial Bandit (Laskin et al. 2022).

    python experiments/adversarial_bandit.py

In bandits trained on, the best arm is odd in 95 of 100 cases; in those reported on, it is even.
A model that learned which arms are good has learned the wrong thing; one that learned how UCB finds
out does as well as UCB.
"""

import shlex
import sys
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
import tyro

from algdistill.agents import Agent, InContextAgent, RandomAgent
from algdistill.evaluation import Interval, bootstrap_interval
from algdistill.models import load_model
from algdistill.sources import (
    UCB1,
    ThompsonSampling,
    ThompsonSamplingConfig,
    UCB1Config,
)
from algdistill.tasks import TaskSpace
from algdistill.training import TrainingConfig
from in_context_learning import Options, distilled_model, method_folder, run_folder, shortened
from in_context_summary import curve
from in_context_task import Ids, InContextTask, Method, Split
from plots import BLACK, GREY, LINES, drawing, png
from report import Figure, table, write_page
from run_folder import (
    Arrays,
    RunFolder,
    machine,
    seconds_of,
    versions,
    write_atomically,
    write_json,
)
from vlmreward_envs.adversarial_bandit import (
    EPISODE_LENGTH,
    AdversarialBanditTasks,
    draw_arm_probabilities,
    no_adaptation_return,
)

NUM_TRAIN, NUM_VALIDATION, NUM_TEST = 20_000, 256, 1000
TRAINING = TrainingConfig(num_updates=2000, evaluate_every=500, log_every=100)
PLACES = {"test": "best arm even: out of distribution", "train": "best arm odd: as trained on"}


def make_tasks(ids: Ids, streams: Ids, split: str = "train") -> AdversarialBanditTasks:
    """Bandits that the ids name; their luck is drawn from the streams."""
    return AdversarialBanditTasks(ids, streams, draw_arm_probabilities(ids, split))


_IDS = torch.arange(NUM_TRAIN + NUM_VALIDATION + NUM_TEST)
TASK = InContextTask(
    name="adversarial_bandit",
    title="Adversarial Bandit",
    split=Split(*_IDS.split([NUM_TRAIN, NUM_VALIDATION, NUM_TEST])),
    make_tasks=make_tasks,
    methods={
        "ad": Method("AD of UCB1", UCB1, UCB1Config(num_episodes=1), 1, TRAINING),
        "thompson": Method(
            "AD of Thompson sampling",
            ThompsonSampling,
            ThompsonSamplingConfig(num_episodes=1),
            1,
            TRAINING,
        ),
    },
    model={
        "context_length": 100,
        "embed_dim": 64,
        "num_layers": 4,
        "num_heads": 4,
        "mlp_dim": 256,
    },
    num_episodes=1,
    repeats=1,
    no_adaptation=no_adaptation_return("test"),
)
ALGORITHMS = {"ad": "UCB1", "thompson": "Thompson sampling"}
"""Names of the source algorithms, by method."""


def run(options: Options) -> Path:
    """Run all stages and return the run's folder."""
    torch.set_num_threads(1)
    task = shortened(TASK) if options.preset == "debug" else TASK
    folder = run_folder(task, options)
    chosen = options.methods or tuple(task.methods)
    folders = {name: method_folder(folder, task, name) for name in ALGORITHMS}
    regrets = {
        (name, seed): folders[name].stage(
            f"regret_{seed}",
            partial(_agent_regret, task, seed, distilled_model(folders[name], task, name, seed)),
        )
        for seed in options.seeds
        for name in chosen
    }
    sources = {
        title: folders[name].stage("source", partial(_source_regret, task, task.methods[name]))
        for name, title in ALGORITHMS.items()
    }
    sources["random actions"] = folder.stage("random", partial(_random_regret, task))
    if options.summarise:
        _report(folder, folders, task, regrets, sources)
    return folder.path


def _bandits(task: InContextTask, place: str) -> AdversarialBanditTasks:
    ids = task.split.test
    return make_tasks(ids, ids + 1_000_000, place)


def _agent_regret(task: InContextTask, seed: int, best: Path) -> Arrays:
    model = load_model(best)
    return {
        f"{place}{suffix}": play(
            InContextAgent(model, drop_length=task.model["context_length"], greedy=greedy),
            _bandits(task, place),
            seed,
        )
        for place in PLACES
        for suffix, greedy in (("", False), ("_greedy", True))
    }


def _random_regret(task: InContextTask) -> Arrays:
    return {
        place: play(RandomAgent(TaskSpace.of(_bandits(task, place))), _bandits(task, place), 0)
        for place in PLACES
    }


def _source_regret(task: InContextTask, method: Method) -> Arrays:
    regrets = {}
    for place in PLACES:
        bandits = _bandits(task, place)
        histories = method.learners(bandits, task.split.test).train()
        actions = np.stack([history.actions for history in histories])
        regrets[place] = regret_of(bandits, torch.from_numpy(actions.astype(np.int64)))
    return regrets


def play(agent: Agent, bandits: AdversarialBanditTasks, seed: int) -> np.ndarray:
    """Expected regret of each trial: what the best arm pays on average less what the arm does."""
    agent.reset(bandits.num_tasks, torch.Generator().manual_seed(seed))
    obs, actions = bandits.reset(), []
    for _ in range(bandits.episode_length):
        actions.append(agent.act(obs))
        result = bandits.step(actions[-1])
        agent.observe(actions[-1], result.reward, result.terminated | result.truncated)
        obs = result.obs
    return regret_of(bandits, torch.stack(actions, dim=1))


def regret_of(bandits: AdversarialBanditTasks, actions: torch.Tensor) -> np.ndarray:
    """Expected regret of each trial of each bandit."""
    pays = bandits.arm_probabilities
    return (pays.amax(dim=1, keepdim=True) - pays.gather(1, actions)).numpy()


def _report(
    folder: RunFolder,
    folders: dict[str, RunFolder],
    task: InContextTask,
    regrets: dict[tuple[str, int], Arrays],
    sources: dict[str, Arrays],
) -> None:
    summary: dict[str, Any] = {
        "command": shlex.join(["python", *sys.argv]),
        "versions": versions(),
        "machine": machine(),
        "seconds": seconds_of(folder, folders),
        "seeds": sorted({seed for _, seed in regrets}),
        "num_bandits": len(task.split.test),
        **_per_trial(task, regrets, sources),
        "regret": {},
        "regret_over_source": {},
    }
    curves: dict[str, dict[str, np.ndarray]] = {place: {} for place in PLACES}
    for place in PLACES:
        summary["regret"][place] = {}
        summary["regret_over_source"][place] = {}
        for title, arrays in sources.items():
            curves[place][title] = arrays[place][None]
        for name in dict.fromkeys(name for name, _ in regrets):
            own = [arrays for (method, _), arrays in regrets.items() if method == name]
            for suffix in ("", "_greedy"):
                stacked = np.stack([arrays[f"{place}{suffix}"] for arrays in own])
                title = task.methods[name].title + (", greedy" if suffix else "")
                curves[place][title] = stacked
                reference = sources[ALGORITHMS[name]][place]
                summary["regret_over_source"][place][title] = _plain(_ratio(stacked, reference))
        for title, values in curves[place].items():
            interval = bootstrap_interval(values.sum(-1, keepdims=True), _mean, seed=0)
            summary["regret"][place][title] = _plain(interval)
    write_json(folder.path / "summary.json", summary)
    image = regret_curves(curves)
    (folder.path / "figures").mkdir(exist_ok=True)
    write_atomically(folder.path / "figures" / "0.png", image)
    rows = [
        [title, *(_show(summary["regret"][place][title]) for place in PLACES)]
        for title in curves["test"]
    ]
    ratio = summary["regret_over_source"]["test"][task.methods["ad"].title]
    print(
        write_page(
            folder.path,
            {name: summary[name] for name in ("command", "seconds", "versions", "machine")},
            [
                Figure(
                    "Regret, added up over the trials",
                    "Expected regret: the best arm's probability of paying less that of the arm "
                    "pulled. Left: bandits of another kind than those trained on.",
                    image,
                )
            ],
            title="Adversarial Bandit: learning in context",
            lead=f"Out of distribution, the distilled agent's regret is {_show(ratio)} of UCB1's.",
            numbers=table(["Regret in 100 trials", *PLACES.values()], rows),
            limitations=(
                "The paper does not say what is drawn: here each arm pays with a probability of "
                "its own, and the best of ten changes places with an odd or an even arm.",
            ),
        )
    )


def _per_trial(
    task: InContextTask, regrets: dict[tuple[str, int], Arrays], sources: dict[str, Arrays]
) -> dict[str, Any]:
    """What a pull is worth, trial by trial, in the bandits reported on."""
    best = (_bandits(task, "test").optimal_returns() / EPISODE_LENGTH).numpy()[:, None]
    headline = next(iter(regrets))[0]
    own = np.stack([arrays["test"] for (name, _), arrays in regrets.items() if name == headline])
    return {
        "in_context": {"method": headline, "per": "trial", **curve(best - own)},
        "source": curve((best - sources[ALGORITHMS[headline]]["test"])[None]),
        "optimum": float(best.mean()),
        "no_adaptation": task.no_adaptation / EPISODE_LENGTH,
    }


def regret_curves(curves: dict[str, dict[str, np.ndarray]]) -> bytes:
    """Draw the regret added up over trials, one panel for each kind of bandits, as PNG."""
    with drawing((10.4, 3.8)) as figure:
        panels = figure.subplots(1, len(curves), sharey=True)
        for axes, (place, found) in zip(panels, curves.items(), strict=True):
            looks = iter(LINES)
            for title, values in found.items():
                total = values.mean(axis=(0, 1)).cumsum()
                if title.startswith("AD"):
                    color, line, _ = next(looks)
                else:
                    color = GREY if title.startswith("random") else BLACK
                    line = "--" if title.startswith("Thompson") else "-"
                trials = np.arange(1, len(total) + 1)
                axes.plot(trials, total, color=color, linestyle=line, label=title)
            axes.set(title=PLACES[place], xlabel="trial", ylim=(0, None))
        panels[0].set_ylabel("regret so far")
        panels[-1].legend(loc="center left", bbox_to_anchor=(1.01, 0.5))
        return png(figure)


def _mean(values: np.ndarray) -> np.ndarray:
    return values.mean(axis=(0, 1))


def _ratio(regret: np.ndarray, reference: np.ndarray) -> Interval:
    """Mean regret over the source's, bandits resampled for both together."""
    both = np.stack([regret.sum(-1), np.broadcast_to(reference.sum(-1), regret.shape[:2])], axis=-1)

    def statistic(pairs: np.ndarray) -> np.ndarray:
        ours, theirs = pairs.mean(axis=(0, 1))
        return np.array([ours / theirs])

    return bootstrap_interval(both, statistic, seed=0)


def _plain(found: Interval) -> dict[str, float]:
    return {name: round(float(getattr(found, name)[0]), 4) for name in ("value", "low", "high")}


def _show(found: dict[str, float]) -> str:
    return f"{found['value']:.3g} ({found['low']:.3g} to {found['high']:.3g})"


if __name__ == "__main__":
    run(tyro.cli(Options))
