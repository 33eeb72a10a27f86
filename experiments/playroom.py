"""The whole job in the Playroom: goals in words, reward from pixels, agents that learn in context.

    python experiments/playroom.py --preset demo
    python experiments/playroom.py --preset full

1. ``speed``, ``encoder``: measure the shipped encoder's speed, and its reward on fresh frames.
2. ``agent_*``: train an SB3 agent from pixels on VLM reward only; the same on the true reward.
3. ``sources``: train many source learners on VLM reward, each on its own hidden goal.
4. ``distil_*``: distil their learning histories into a transformer.
5. ``in_context``: let the frozen transformer loose on goals and layouts it never saw.
6. Draw ``report.html`` and write ``summary.json``.

Every stage writes its result once; a run that was killed goes on with the stage it was in (and,
within distillation, from its last checkpoint).
"""

import time
from functools import partial
from pathlib import Path
from typing import Literal

import numpy as np
import torch
import tyro

from algdistill.agents import InContextAgent, RandomAgent
from algdistill.evaluation import evaluate_in_context
from algdistill.models import load_model
from algdistill.tasks import TaskSpace
from hidden_goal_learning import (
    TASK_SETS,
    Rooms,
    best_model,
    distil,
    draw_task_set,
    tasks_in,
    train_sources,
)
from hidden_goals import (
    EPISODE_LENGTH,
    NUM_MOVES,
    HiddenGoalRooms,
    WatchedTasks,
)
from language_agent import GOAL, train_agent
from playroom_domain import family_goals, labelled_scores
from playroom_presets import PRESETS, Preset
from playroom_report import LIMITATIONS, figures, overview
from playroom_summary import ENCODER_COLUMNS, Agents, Results, summarise
from report import write_report
from reward_agents import PAID_BY, PaidBy
from run_folder import Arrays, RunFolder, write_atomically, write_json
from vlmreward import RewardModel, ThresholdHead, load_encoder
from vlmreward_envs.playroom import Family, PlayroomRooms

NUM_WATCHED_ROOMS = 4
NUM_SPEED_ROOMS, NUM_SPEED_CALLS = 1024, 8
FRESH_FRAMES_SEED = 2_000_001


def main(
    preset: Literal["debug", "demo", "full"] = "demo",
    run_name: str | None = None,
    num_threads: int = 2,
) -> None:
    """Run the experiment and write its report.

    Args:
        preset: ``debug`` to see that everything runs, ``demo`` for a quarter of an hour, ``full``
            for the numbers of the README.
        run_name: Folder under ``runs/``; ``playroom_<preset>`` if not given.
        num_threads: Of torch.
    """
    torch.set_num_threads(num_threads)
    settings = PRESETS[preset]
    run = RunFolder(Path("runs") / (run_name or f"playroom_{preset}"), settings)
    reward_model = find_rewards()

    speed = run.stage("speed", partial(measure_speed, reward_model))
    encoder = run.stage("encoder", partial(measure_encoder, reward_model, settings))
    agents: Agents = {
        (paid_by, seed): run.stage(
            f"agent_{paid_by}_{seed}",
            partial(train_language_agent, reward_model, paid_by, seed, settings, run.path),
        )
        for seed in range(settings.agent_seeds)
        for paid_by in PAID_BY
    }
    rooms = {
        name: HiddenGoalRooms.from_arrays(
            run.stage(f"rooms_{name}", partial(draw_task_set, name, reward_model, settings))
        )
        for name in TASK_SETS
    }
    sources = run.stage("sources", partial(train_sources, tasks_in(rooms), settings, run.path))
    for seed in range(settings.distil_seeds):
        run.stage(f"distil_{seed}", partial(distil, tasks_in(rooms), seed, settings, run.path))
    in_context = run.stage("in_context", partial(learn_in_context, rooms, settings, run.path))

    results = Results(paid_above(reward_model), speed, encoder, agents, sources, in_context)
    summary = summarise(run, results)
    write_json(run.path / "summary.json", summary)
    drawn = figures(results, summary, rooms["test"])
    for number, figure in enumerate(drawn, start=1):
        figure.save(run.path / "figures", number)
    write_atomically(run.path / "figures" / "overview.png", overview(drawn))
    report = write_report(run.path, summary, drawn, limitations=LIMITATIONS)
    print(f"report: {report}")


def measure_speed(reward_model: RewardModel) -> Arrays:
    """Measure frames drawn, and frames scored, per second on this machine as it is now."""
    rooms = PlayroomRooms(NUM_SPEED_ROOMS)
    actions = torch.randint(
        0, NUM_MOVES, (NUM_SPEED_ROOMS,), generator=torch.Generator().manual_seed(0)
    )
    frames = rooms.render()

    def step_and_draw() -> None:
        rooms.step(actions)
        rooms.render()

    rates = {}
    for name, work in (
        ("playroom_frames_per_second", step_and_draw),
        ("encoder_frames_per_second", lambda: reward_model.encoder.encode_obs({"pixels": frames})),
    ):
        work()
        started = time.perf_counter()
        for _ in range(NUM_SPEED_CALLS):
            work()
        rates[name] = NUM_SPEED_CALLS * NUM_SPEED_ROOMS / (time.perf_counter() - started)
    return {name: np.array(rate) for name, rate in rates.items()}


def measure_encoder(reward_model: RewardModel, settings: Preset) -> Arrays:
    """Score fresh frames against goals of all families, beside the ground truth."""
    found = labelled_scores(
        reward_model.encoder,
        1 / reward_model.encoder.logit_scale,
        np.random.default_rng(FRESH_FRAMES_SEED),
        settings.frames_per_goal,
    )
    return {name: getattr(found, name) for name in ENCODER_COLUMNS}


def train_language_agent(
    finder: RewardModel, paid_by: PaidBy, seed: int, settings: Preset, run_dir: Path
) -> Arrays:
    """Train one SB3 agent on the goal in words."""
    reward_model = lift_reward(finder)
    return train_agent(
        reward_model, paid_by, num_steps=settings.agent_steps, seed=seed, log_dir=run_dir
    )


def learn_in_context(rooms: Rooms, settings: Preset, run_dir: Path) -> Arrays:
    """Let every distilled agent, frozen, and a random one act in the test rooms."""
    test = WatchedTasks(rooms["test"])
    results, greedy = [], []
    for seed in range(settings.distil_seeds):
        model = load_model(best_model(run_dir, seed))
        for is_greedy, into in ((True, greedy), (False, results)):
            test.positions.clear()
            agent = InContextAgent(model, drop_length=EPISODE_LENGTH, greedy=is_greedy)
            generator = torch.Generator().manual_seed(seed)
            into.append(
                evaluate_in_context(
                    agent, test, num_episodes=settings.num_episodes, generator=generator
                )
            )
    watched = torch.stack(test.positions).numpy()
    random = evaluate_in_context(
        RandomAgent(TaskSpace.of(test)),
        test,
        num_episodes=settings.num_episodes,
        generator=torch.Generator().manual_seed(0),
    )
    return {
        "returns": np.stack([result.env_returns for result in results]),
        "vlm_returns": np.stack([result.returns for result in results]),
        "greedy_returns": np.stack([result.env_returns for result in greedy]),
        "random_returns": random.env_returns,
        "optimum": rooms["test"].optimum.numpy(),
        "positions": watched[:, :NUM_WATCHED_ROOMS],
    }


def find_rewards() -> RewardModel:
    """Return the shipped encoder's reward for every FIND sentence, goal k naming object kind k."""
    return RewardModel(
        load_encoder("playroom", device="cpu"),
        family_goals(Family.FIND, np.random.default_rng(0)),
    )


def paid_above(reward_model: RewardModel) -> float:
    """Return the threshold of the shipped encoder's head."""
    assert isinstance(reward_model.head, ThresholdHead)
    return reward_model.head.threshold


def lift_reward(finder: RewardModel) -> RewardModel:
    """Return the reward of the SB3 agent's goal."""
    goals = family_goals(Family.LIFT, np.random.default_rng(0))
    return RewardModel(finder.encoder, next(goal for goal in goals if goal.prompts == (GOAL,)))


if __name__ == "__main__":
    tyro.cli(main)
