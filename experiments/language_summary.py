"""What a run of a language task found, as numbers with intervals: ``summary.json``."""

import shlex
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from algdistill.evaluation import Interval, bootstrap_interval, interquartile_mean
from language_task import LanguageTask
from reward_agents import PAID_BY, PaidBy
from run_folder import Arrays, RunFolder, machine, versions
from vlmreward import Head, SoftmaxHead, ThresholdHead
from vlmreward.evaluation import (
    bootstrap,
    epic_distance,
    evaluate_reward,
    spearman_correlation,
    threshold_for_false_positive_rate,
)
from vlmreward.heads import head_config

FALSE_POSITIVE_RATE = 0.005
_NUM_RESAMPLES = 300


@dataclass(frozen=True)
class Results:
    """The arrays of every stage, and the heads that were measured; ``head`` pays the agents."""

    task: LanguageTask
    heads: Mapping[str, Head]
    head: Head
    offline: Arrays
    agents: Mapping[tuple[str, PaidBy, int], Arrays]
    random: Arrays

    @property
    def measure(self) -> str:
        """The array of an agent's episodes that says how good they were."""
        return "success" if self.task.pays == "binary" else "env_returns"


def choose_head(heads: Mapping[str, Head], offline: Arrays, *, binary: bool) -> Head:
    """Choose what pays, on the calibration frames alone.

    A binary reward's threshold is calibrated for a false-positive rate by split-conformal
    prediction; among dense ones, that of the smallest EPIC distance to the environment's reward is
    taken.
    """
    if binary:
        (head,) = heads.values()
        assert isinstance(head, SoftmaxHead)
        negatives = offline["calibration_score_softmax"][~offline["calibration_success"]]
        return ThresholdHead(
            head, threshold_for_false_positive_rate(negatives, FALSE_POSITIVE_RATE)
        )
    distance = {
        name: epic_distance(offline[f"calibration_score_{name}"], offline["calibration_env_reward"])
        for name in heads
    }
    return heads[min(distance, key=distance.__getitem__)]


def summarise(run: RunFolder, results: Results) -> dict[str, Any]:
    """Return what the run found, as plain numbers with intervals."""
    return {
        "command": shlex.join(["python", *sys.argv]),
        "versions": versions(),
        "machine": machine(),
        "seconds": run.seconds(),
        "settings": asdict(run.settings),
        "goals": [goal.config() for goal in results.task.goals[:3]],
        "num_goals": len(results.task.goals),
        "head": head_config(results.head),
        "offline": offline_summary(results),
        "agents": agents_summary(results),
    }


def offline_summary(results: Results) -> dict[str, Any]:
    """Return how right each head is on frames that nothing was chosen on."""
    offline = results.offline
    labels, reward = offline["test_success"], offline["test_env_reward"]
    found: dict[str, Any] = {"num_frames": len(labels), "positive_rate": float(labels.mean())}
    threshold = results.head.threshold if isinstance(results.head, ThresholdHead) else 0.0
    for name in results.heads:
        scores = offline[f"test_score_{name}"]
        rng = np.random.default_rng(0)
        accuracy = evaluate_reward(
            labels, scores, offline["test_goal_index"], threshold=threshold, generator=rng
        )
        found[name] = {
            "average_precision": accuracy.average_precision.to_dict(),
            "epic_distance": bootstrap(
                epic_distance, scores, reward, generator=rng, num_resamples=_NUM_RESAMPLES
            ).to_dict(),
            "spearman": bootstrap(
                spearman_correlation, scores, reward, generator=rng, num_resamples=_NUM_RESAMPLES
            ).to_dict(),
        }
        if results.task.pays == "binary":
            found[name] |= {
                "threshold": threshold,
                "false_positive_rate": accuracy.false_positive_rate.to_dict(),
                "recall": accuracy.recall.to_dict(),
            }
    return found


def agents_summary(results: Results) -> dict[str, Any]:
    """Return the ground truth that agents reach after training, and random actions.

    With fewer than four seeds the interquartile mean is the mean.
    """
    measure = results.measure
    found: dict[str, Any] = {
        "measure": "ground-truth " + ("success" if measure == "success" else "return"),
        "random": float(results.random[measure].mean()),
    }
    for algorithm in dict.fromkeys(name for name, _, _ in results.agents):
        found[algorithm] = {}
        for paid_by in PAID_BY:
            runs = [
                run
                for (name, by, _), run in results.agents.items()
                if (name, by) == (algorithm, paid_by)
            ]
            of_seeds = np.array([run[measure].mean() for run in runs], dtype=np.float64)
            found[algorithm][paid_by] = {
                # Episodes of one agent share its luck: seeds are drawn anew, not episodes.
                "interquartile_mean": _as_dict(
                    bootstrap_interval(of_seeds[:, None, None], interquartile_mean, seed=0)
                ),
                "of_seeds": of_seeds.tolist(),
                "vlm_return": float(np.mean([run["vlm_returns"] for run in runs])),
            }
    return found


def _as_dict(interval: Interval) -> dict[str, float]:
    return {name: float(getattr(interval, name)[0]) for name in ("value", "low", "high")}
