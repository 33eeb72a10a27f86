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

import shutil
import time
from functools import partial
from pathlib import Path
from typing import Literal

import numpy as np
import torch
import tyro

from algdistill.agents import InContextAgent, RandomAgent
from algdistill.evaluation import evaluate_in_context
from algdistill.histories import HistoryStore, WindowSampler
from algdistill.models import ADTransformer, ADTransformerConfig, load_model
from algdistill.sources import TabularQLearning
from algdistill.tasks import TaskSpace
from algdistill.training import SELECTION_METRIC, Trainer, TrainingConfig
from hidden_goals import (
    EPISODE_LENGTH,
    NUM_MOVES,
    ROOM_CONFIG,
    HiddenGoalRooms,
    HiddenGoalTasks,
    WatchedTasks,
    draw_rooms,
)
from language_agent import GOAL, train_agent
from playroom_domain import NAMED_KINDS, family_goals, labelled_scores
from playroom_presets import PRESETS, Preset
from playroom_report import LIMITATIONS, figures, overview
from playroom_summary import ENCODER_COLUMNS, Agents, Results, summarise
from report import write_report
from reward_agents import PAID_BY, PaidBy
from run_folder import Arrays, RunFolder, write_atomically, write_json
from vlmreward import RewardModel, ThresholdHead, load_encoder
from vlmreward_envs.playroom import Family, PlayroomRooms

TASK_SETS = ("train", "validation", "test")
NUM_VALIDATION_CELLS, NUM_TEST_CELLS, NUM_VALIDATION_TASKS = 6, 8, 64
NUM_WATCHED_ROOMS = 4
NUM_SPEED_ROOMS, NUM_SPEED_CALLS = 1024, 8
CONTEXT_LENGTH = 5 * EPISODE_LENGTH
FRESH_FRAMES_SEED, ROOMS_SEED = 2_000_001, 2_000_002

Rooms = dict[str, HiddenGoalRooms]


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
    sources = run.stage("sources", partial(train_sources, rooms, settings, run.path))
    for seed in range(settings.distil_seeds):
        run.stage(f"distil_{seed}", partial(distil, rooms, seed, settings, run.path))
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


def draw_task_set(name: str, reward_model: RewardModel, settings: Preset) -> Arrays:
    """Draw rooms with hidden goals: objects of other cells are hidden in each task set."""
    cells = np.random.default_rng(ROOMS_SEED).permutation(ROOM_CONFIG.grid_size**2)
    ends = np.cumsum([NUM_TEST_CELLS, NUM_VALIDATION_CELLS])
    test_cells, validation_cells, train_cells = np.split(cells, ends)
    num_rooms, target_cells = {
        "train": (settings.num_train_tasks, train_cells),
        "validation": (NUM_VALIDATION_TASKS, validation_cells),
        "test": (settings.num_test_tasks, test_cells),
    }[name]
    rng = np.random.default_rng((ROOMS_SEED, TASK_SETS.index(name)))
    return draw_rooms(num_rooms, target_cells.tolist(), NAMED_KINDS, reward_model, rng).to_arrays()


def train_sources(rooms: Rooms, settings: Preset, run_dir: Path) -> Arrays:
    """Train one source learner per room on VLM reward, and store its whole learning history."""
    train = HiddenGoalTasks(rooms["train"])
    fleet = TabularQLearning(train, settings.source, train.task_ids)
    folder = run_dir / "histories"
    shutil.rmtree(folder, ignore_errors=True)  # what a killed stage left half-written
    num_steps = settings.source.num_episodes * EPISODE_LENGTH
    store = HistoryStore.create(
        folder, TaskSpace.of(train), num_steps=num_steps, reward_dtype="uint8"
    )
    histories = fleet.train()
    store.append(histories)
    test = HiddenGoalTasks(rooms["test"], first_task_id=len(histories))
    on_test = TabularQLearning(test, settings.source, test.task_ids).train()
    return {
        "train_returns": np.stack([history.env_episode_returns for history in histories]),
        "test_returns": np.stack([history.env_episode_returns for history in on_test]),
    }


def distil(rooms: Rooms, seed: int, settings: Preset, run_dir: Path) -> Arrays:
    """Train a transformer on the learning histories; keep the best by in-context return."""
    histories = HistoryStore.open(run_dir / "histories").read()
    validation = HiddenGoalTasks(rooms["validation"])

    def evaluate(model: ADTransformer) -> dict[str, float]:
        generator = torch.Generator().manual_seed(seed)
        result = evaluate_in_context(
            InContextAgent(model, drop_length=EPISODE_LENGTH),
            validation,
            num_episodes=settings.num_episodes,
            generator=generator,
        )
        return {
            SELECTION_METRIC: float(result.returns[:, -10:].mean()),
            "eval/first_return": float(result.returns[:, 0].mean()),
        }

    generator = torch.Generator().manual_seed(seed)
    model = ADTransformer(
        ADTransformerConfig(TaskSpace.of(validation), context_length=CONTEXT_LENGTH), generator
    )
    sampler = WindowSampler(
        histories,
        window_length=CONTEXT_LENGTH,
        start_fraction=0.2,
        generator=np.random.default_rng(seed),
    )
    config = TrainingConfig(num_updates=settings.num_updates, evaluate_every=400)
    result = Trainer(
        model, sampler, config, run_dir / f"distil_{seed}", evaluate=evaluate, generator=generator
    ).train()
    return {
        "validation_return": np.array(result.best_metric),
        "update": np.array(result.best_update),
    }


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


def best_model(run_dir: Path, seed: int) -> Path:
    """Return the file of a distillation's best model."""
    return run_dir / f"distil_{seed}" / "best.safetensors"


if __name__ == "__main__":
    tyro.cli(main)
