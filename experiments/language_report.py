"""The report of a language task: pictures and a table, drawn from a run's arrays."""

from pathlib import Path
from typing import Any

import numpy as np

import reward_plots
from language_summary import Results
from language_task import LanguageTask
from report import Figure, Summary, table, write_page
from reward_agents import PAID_BY

_NAMES = {"vlm": "trained on VLM reward", "env": "trained on the true reward"}
_LIMITATIONS = (
    "An in-domain CLIP reads the sentences that it was trained on and little else.",
    "Offline figures are of frames drawn as the description says; a policy that searches for the "
    "errors of a reward finds other frames.",
)


def figures(results: Results, summary: Summary) -> list[Figure]:
    """Draw everything the report shows."""
    first = next(iter(results.agents))[0]
    shown = results.agents[first, "vlm", 0]
    prompt = results.task.goals[0].prompts[0]
    return [
        Figure(
            "One episode of the agent trained on VLM reward",
            f"{first.upper()} in an evaluation episode: frames, what the reward model says of "
            "them, and what the environment pays.",
            reward_plots.episode_rewards(
                shown["frames"], shown["scores"], shown["env_rewards"], title=_say(results, prompt)
            ),
        ),
        _training(results),
        Figure(
            "What each frame is paid, against the truth",
            "The paying head's score on test frames, over the environment's reward of the same "
            "state.",
            reward_plots.score_by_reward(
                results.offline[f"test_score_{_paying_name(results)}"],
                results.offline["test_env_reward"],
            ),
        ),
    ]


def _training(results: Results) -> Figure:
    binary = results.task.pays == "binary"
    curve = "success_rate" if binary else "env_return"
    what = "Share of training episodes with ground-truth success" if binary else "True return"
    return Figure(
        "Ground truth over training",
        f"{what} while the agents explore. Thick lines are means over seeds, thin ones the seeds.",
        reward_plots.truth_over_training(
            {
                f"{algorithm.upper()}, {_NAMES[paid_by]}": (
                    _runs(results, algorithm, paid_by)[0]["steps"],
                    np.stack([run[curve] for run in _runs(results, algorithm, paid_by)]),
                )
                for algorithm in _algorithms(results)
                for paid_by in PAID_BY
            },
            random=float(results.random[results.measure].mean()),
            label="success" if binary else "true return per episode",
        ),
    )


def write_language_report(
    run_dir: Path, task: LanguageTask, summary: dict[str, Any], drawn: list[Figure]
) -> Path:
    """Write ``report.html`` and return its path."""
    agents, offline = summary["agents"], summary["offline"]
    rows = [
        [
            f"{algorithm.upper()}, {_NAMES[paid_by]}",
            _interval(found[paid_by]["interquartile_mean"]),
            " ".join(f"{value:.3g}" for value in found[paid_by]["of_seeds"]),
        ]
        for algorithm, found in agents.items()
        if isinstance(found, dict)
        for paid_by in PAID_BY
    ]
    rows.append(["random actions", f"{agents['random']:.3g}", ""])
    heads = [
        [
            name,
            _interval(found["average_precision"]),
            _interval(found["epic_distance"]),
            _interval(found["spearman"]),
        ]
        for name, found in offline.items()
        if isinstance(found, dict)
    ]
    numbers = table([f"Agent: {agents['measure']}", "IQM of seeds (95 %)", "seeds"], rows)
    numbers += table(["Head, on test frames", "average precision", "EPIC", "Spearman"], heads)
    first = next(row for row in rows if row[0].endswith("VLM reward"))
    lead = (
        f"{task.title}. The goal was given in words and nothing else: "
        f"“{task.goals[0].prompts[0]}”{' and others' if len(task.goals) > 1 else ''}. "
        f"{first[0]}: {agents['measure']} {first[1]}; random actions reach {agents['random']:.3g}."
    )
    return write_page(
        run_dir,
        summary,
        drawn,
        title=f"{task.title}: agents trained on a sentence",
        lead=lead,
        numbers=numbers,
        limitations=(*task.limitations, *_LIMITATIONS),
    )


def _say(results: Results, prompt: str) -> str:
    return f"“{prompt}”" if len(results.task.goals) == 1 else results.task.title


def _paying_name(results: Results) -> str:
    for name, head in results.heads.items():
        if head == results.head:
            return name
    return next(iter(results.heads))  # a threshold around the only head


def _algorithms(results: Results) -> list[str]:
    return list(dict.fromkeys(name for name, _, _ in results.agents))


def _runs(results: Results, algorithm: str, paid_by: str) -> list[dict[str, Any]]:
    return [
        run for (name, by, _), run in results.agents.items() if (name, by) == (algorithm, paid_by)
    ]


def _interval(found: dict[str, float]) -> str:
    return f"{found['value']:.3g} ({found['low']:.3g} to {found['high']:.3g})"
