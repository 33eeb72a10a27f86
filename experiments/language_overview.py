"""Draw the results of all language tasks in one picture, from `results/`.

    python experiments/language_overview.py

Writes ``docs/images/your_environment.png``.
"""

import json
from pathlib import Path

import babyai
import cartpole
import dm_control_reacher
import humanoid
import mountain_car
from language_task import LanguageTask
from reward_plots import AgentScore, agents_by_environment
from run_folder import write_atomically

_HERE = Path(__file__).parent
# A reward of 1 at every step, or success in every episode.
TASKS: tuple[tuple[LanguageTask, float], ...] = (
    (cartpole.TASK, cartpole.EPISODE_STEPS),
    (mountain_car.TASK, mountain_car.EPISODE_STEPS),
    (humanoid.TASK, humanoid.EPISODE_STEPS),
    (dm_control_reacher.TASK, dm_control_reacher.EPISODE_STEPS),
    (babyai.TASK, 1.0),
)


def main() -> None:
    """Read the results and draw them."""
    picture = agents_by_environment([score for task, best in TASKS for score in scores(task, best)])
    write_atomically(_HERE.parent / "docs" / "images" / "your_environment.png", picture)


def scores(task: LanguageTask, best: float) -> list[AgentScore]:
    """Return what each algorithm of a task reached."""
    agents = json.loads((_HERE / "results" / f"{task.name}.json").read_text())["agents"]
    return [
        AgentScore(
            f"{task.title.split(',')[0]}, {algorithm.upper()}",
            {paid_by: found["of_seeds"] for paid_by, found in agents[algorithm].items()},
            agents["random"],
            best,
        )
        for algorithm in task.agents
    ]


if __name__ == "__main__":
    main()
