"""``algdistill evaluate``: let a trained model learn tasks in context, beside a random agent.

Axis letters: ``R`` = 1, ``N`` tasks, ``E`` in-context episodes, ``K`` blocks of episodes.
"""

from __future__ import annotations

import json
from dataclasses import asdict
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
from jaxtyping import Float
from rich.console import Console
from rich.table import Table
from tyro.conf import Positional, arg

from algdistill.agents import InContextAgent, RandomAgent
from algdistill.agents.base import Agent
from algdistill.cli.devices import check_device
from algdistill.cli.named_tasks import EVALUATING, Named, random_streams
from algdistill.cli.output import MESSAGES, write_json
from algdistill.evaluation import (
    EvaluationResult,
    Interval,
    bootstrap_interval,
    evaluate_in_context,
    mean_return,
)
from algdistill.models import load_model
from algdistill.tasks import TaskSpace


def evaluate(
    run: Positional[Path],
    named: Named,
    *,
    num_episodes: int = 50,
    episodes_per_block: int = 10,
    repeats: int = 1,
    greedy: bool = False,
    temperature: float = 1.0,
    seed: int = 0,
    device: str = "cpu",
    as_json: Annotated[bool, arg(name="json")] = False,
) -> None:
    """Let the best model of a run learn tasks in context, with frozen weights.

    Returns are sums of the ground truth, with 95 % intervals over tasks. Beside the table,
    `evaluation.json` and `evaluation.png` are written to the run's folder.

    Args:
        run: Folder that `train` wrote.
        named: Tasks to learn, best such as were not trained on.
        num_episodes: Episodes in a row.
        episodes_per_block: Episodes of each row of the table.
        repeats: How often each task is learned; its mean counts.
        greedy: Take the likeliest action instead of a sampled one.
        temperature: Of sampling.
        seed: Of sampled actions, of what is random in the tasks and of the intervals.
        device: Where the model and the tasks are.
        as_json: Print one JSON object instead of a table.
    """
    check_device(device)
    for name, value in (("episodes_per_block", episodes_per_block), ("repeats", repeats)):
        if value < 1:
            raise ValueError(f"got {name}={value}, expected at least 1")
    model = load_model(run / "best.safetensors", device)
    ids = named.ids(device).repeat_interleave(repeats)
    tasks = named.make(ids, random_streams(seed, EVALUATING, len(ids), device))
    agents: dict[str, Agent] = {
        "agent": InContextAgent(
            model,
            drop_length=min(tasks.episode_length, model.config.context_length),
            greedy=greedy,
            temperature=temperature,
        ),
        "random": RandomAgent(TaskSpace.of(tasks)),
    }
    found = {}
    for name, agent in agents.items():
        with MESSAGES.status(f"{name}: {num_episodes} episodes in {len(ids)} tasks"):
            generator = torch.Generator(device).manual_seed(seed)
            found[name] = evaluate_in_context(
                agent, tasks, num_episodes=num_episodes, generator=generator
            )
    summary = {
        "tasks": asdict(named),
        "num_tasks": len(ids) // repeats,
        "among_those_trained_on": _known(run, named.ids().tolist()),
        "repeats": repeats,
        "greedy": greedy,
        "temperature": temperature,
        "seed": seed,
        "blocks": _blocks(num_episodes, episodes_per_block),
        **{name: _figures(result, repeats, episodes_per_block, seed)
           for name, result in found.items()},
    }  # fmt: skip
    write_json(run / "evaluation.json", summary)
    if find_spec("matplotlib") is None:
        MESSAGES.print("No picture: matplotlib comes with pip install vlmreward[experiments]")
    else:
        from algdistill.cli.returns_plot import plot_returns  # noqa: PLC0415

        plot_returns(summary, run / "evaluation.png")
    if as_json:
        print(json.dumps(summary))
        return
    Console().print(_table(run, summary))


def _figures(
    result: EvaluationResult, repeats: int, episodes_per_block: int, seed: int
) -> dict[str, Any]:
    """Returns by block and by episode, and the share of episodes walked in circles."""
    returns = result.env_returns.reshape(1, -1, repeats, result.env_returns.shape[-1]).mean(axis=2)

    def statistic(resampled: Float[np.ndarray, "R N E"]) -> Float[np.ndarray, " K"]:
        curve = mean_return(resampled)
        return np.concatenate([_means(curve, episodes_per_block), curve])

    interval = bootstrap_interval(returns, statistic, seed=seed)
    loop_shares = _means(result.loop_share, episodes_per_block)
    num_blocks = len(loop_shares)
    return {
        "return_by_block": _listed(interval, slice(num_blocks)),
        "return_by_episode": _listed(interval, slice(num_blocks, None)),
        "loop_share_by_block": loop_shares.tolist(),
    }


def _means(curve: Float[np.ndarray, " E"], episodes_per_block: int) -> Float[np.ndarray, " K"]:
    starts = range(0, len(curve), episodes_per_block)
    return np.array([curve[start : start + episodes_per_block].mean() for start in starts])


def _blocks(num_episodes: int, episodes_per_block: int) -> list[str]:
    """Names of the blocks, episodes counted from 1."""
    return [
        f"{start + 1}-{min(start + episodes_per_block, num_episodes)}"
        for start in range(0, num_episodes, episodes_per_block)
    ]


def _listed(interval: Interval, figures: slice) -> dict[str, list[float]]:
    return {name: value[figures].tolist() for name, value in vars(interval).items()}


def _known(run: Path, ids: list[int]) -> list[int] | None:
    """Which ids were trained on; None where `train` left no settings."""
    settings = run / "settings.json"
    if not settings.exists():
        return None
    return sorted(set(ids) & set(json.loads(settings.read_text("utf-8"))["train_task_ids"]))


def _table(run: Path, summary: dict[str, Any]) -> Table:
    known = summary["among_those_trained_on"]
    title = f"{run}: {summary['num_tasks']} tasks"
    if known is not None:
        title += f", {len(known)} of them trained on"
    table = Table("episodes", "return", "random agent", "walks in circles", title=title)
    agent, random = (summary[name]["return_by_block"] for name in ("agent", "random"))
    loops = summary["agent"]["loop_share_by_block"]
    for row, block in enumerate(summary["blocks"]):
        table.add_row(block, _shown(agent, row), _shown(random, row), f"{loops[row]:.0%}")
    return table


def _shown(interval: dict[str, list[float]], row: int) -> str:
    value, low, high = (interval[name][row] for name in ("value", "low", "high"))
    return f"{value:.3g} ({low:.3g} to {high:.3g})"
