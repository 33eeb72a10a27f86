"""What a Playroom run found, as numbers with intervals: the content of ``summary.json``."""

import shlex
import sys
from dataclasses import dataclass, fields
from typing import Any

import numpy as np

from algdistill.evaluation import (
    bootstrap_interval,
    improvement,
    interquartile_mean,
    mean_return,
)
from playroom_domain import LabelledScores
from reward_agents import PAID_BY, PaidBy
from run_folder import Arrays, RunFolder, machine, versions
from vlmreward.evaluation import evaluate_reward

ENCODER_COLUMNS = tuple(field.name for field in fields(LabelledScores))
Agents = dict[tuple[PaidBy, int], Arrays]


@dataclass(frozen=True)
class Results:
    """The arrays of every stage, and the threshold that the reward was paid at."""

    threshold: float
    speed: Arrays
    encoder: Arrays
    agents: Agents
    sources: Arrays
    in_context: Arrays


def summarise(run: RunFolder, results: Results) -> dict[str, Any]:
    """Return what the run found, as plain numbers with intervals."""
    sources, in_context = results.sources, results.in_context
    returns = in_context["returns"]
    mean = bootstrap_interval(returns, mean_return, seed=0)
    middle = bootstrap_interval(returns, interquartile_mean, seed=0)
    ratio = bootstrap_interval(returns, improvement(5), seed=0)
    return {
        "command": shlex.join(["python", *sys.argv]),
        "versions": versions(),
        "machine": machine(),
        "seconds": run.seconds(),
        "speed": {name: round(float(rate)) for name, rate in results.speed.items()},
        "encoder": encoder_summary(results.encoder, results.threshold),
        "agent": agent_summary(results.agents),
        "source": {
            "final_return": float(sources["test_returns"][:, -5:].mean()),
            "returns": sources["test_returns"].mean(axis=0).tolist(),
            "returns_on_train_tasks": sources["train_returns"].mean(axis=0).tolist(),
        },
        "in_context": {
            "num_seeds": len(returns),
            "num_tasks": returns.shape[1],
            "returns": mean.value.tolist(),
            "low": mean.low.tolist(),
            "high": mean.high.tolist(),
            "interquartile_mean": middle.value.tolist(),
            "vlm_returns": in_context["vlm_returns"].mean(axis=(0, 1)).tolist(),
            "greedy_returns": in_context["greedy_returns"].mean(axis=(0, 1)).tolist(),
            "returns_of_seeds": returns.mean(axis=1).tolist(),
            "last_ten": float(returns[..., -10:].mean()),
            "last_over_first": {
                name: float(getattr(ratio, name)[0]) for name in ("value", "low", "high")
            },
            "optimum": float(in_context["optimum"].mean()),
            "random": float(in_context["random_returns"].mean()),
        },
    }


def encoder_summary(encoder: Arrays, threshold: float) -> dict[str, Any]:
    """Return the accuracy of the reward, for objects that training text named and held out."""
    encoder = measurable(encoder)
    held_out = encoder["is_held_out"]
    groups = {"seen": ~held_out, "held_out": held_out}
    for family in np.unique(encoder["family"]):
        groups[f"{family}_seen"] = ~held_out & (encoder["family"] == family)
        groups[f"{family}_held_out"] = held_out & (encoder["family"] == family)
    accuracy = {
        name: evaluate_reward(
            encoder["labels"][rows],
            encoder["scores"][rows],
            encoder["goal_index"][rows],
            threshold=threshold,
            generator=np.random.default_rng(0),
        )
        for name, rows in groups.items()
    }
    return {
        "threshold": threshold,
        "num_goals": len(np.unique(encoder["goal_index"])),
        **{f"ap_{name}": found.average_precision.to_dict() for name, found in accuracy.items()},
        "false_positive_rate": accuracy["seen"].false_positive_rate.to_dict(),
        "false_positive_rate_held_out": accuracy["held_out"].false_positive_rate.to_dict(),
        "recall": accuracy["seen"].recall.to_dict(),
        "recall_held_out": accuracy["held_out"].recall.to_dict(),
    }


def measurable(encoder: Arrays) -> Arrays:
    """Return the rows of the goals that are true of some frames and false of others."""
    num_frames = np.bincount(encoder["goal_index"])
    num_true = np.bincount(encoder["goal_index"], encoder["labels"])
    rows = ((num_true > 0) & (num_true < num_frames))[encoder["goal_index"]]
    return {name: encoder[name][rows] for name in ENCODER_COLUMNS}


def agent_summary(agents: Agents) -> dict[str, Any]:
    """Return the ground-truth success after training, per seed and on average."""
    found: dict[str, Any] = {}
    for paid_by in PAID_BY:
        of_seed = [float(run["success"].mean()) for (by, _), run in agents.items() if by == paid_by]
        found[f"success_{paid_by}"] = float(np.mean(of_seed))
        found[f"success_{paid_by}_of_seeds"] = of_seed
    return found
