"""Agents trained on what is seen, heard and told, by a backbone, by frames alone, by the truth.

    python experiments/playroom_sound.py

For each group of goals, agents of several seeds are trained on the reward of the multimodal
backbone, on that of the CLIP of the silent Playroom, which sees frames only, and on the ground
truth. All rewards are calibrated alike, on the same labelled episodes in rooms like the agents'.
Reported is the true return of each goal: steps of an episode at which it is true; and what the
backbone pays in the trained agents' episodes when a sensor fails halfway.

Goes on where it was killed. Ends with ``summary.json`` and a picture under
``runs/playroom_sound/``.

Axis letters: ``S`` seeds, ``G`` goals, ``K`` points of a curve, ``E`` episodes, ``T`` their length.
"""

import shlex
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
import tyro
from numpy.typing import NDArray

from algdistill.sources import ActorCritic
from jobs import Job, run_all_jobs
from playroom_sound_calibration import calibrate
from playroom_sound_domain import SENTENCES, draw_episodes, sound_goals
from playroom_sound_figures import LearningCurve, learning_curves
from playroom_sound_memory import encode_streams
from playroom_sound_sensors import CUTS, cut_name, rates, watch_with_cuts
from playroom_sound_streams import CONFIG, FRAME_CLIP
from playroom_sound_tasks import SOUND_ROOM_STEPS, sound_rooms, sound_tasks
from run_folder import Arrays, RunFolder, machine, versions, write_atomically, write_json
from trend_online import NUM_TASKS, act, learner_config
from vlmreward import (
    Goal,
    ImageTextEncoder,
    RewardModel,
    SoftmaxHead,
    ThresholdHead,
    load_encoder,
)
from vlmreward.backbone import MultimodalEncoder, load_backbone
from vlmreward_envs.playroom_sound import GoalKind

CALIBRATION_SEED, EVALUATION_SEED = 7_000_001, 7_000_002
_SEEDS_APART, _RESAMPLES = 10_000, 2000
TRUTH, FRAMES, BACKBONE = "true reward", "frame CLIP", "backbone"
PAYERS = (BACKBONE, FRAMES, TRUTH)
Group = Literal["heard", "seen", "told"]
GROUPS: dict[Group, tuple[str, ...]] = {
    "heard": (
        "there are footsteps",
        "there is a bump",
        "something is being picked up",
        "something is being put down",
    ),
    "seen": (
        "the person is holding the red ball",
        "the person is holding the blue key",
        "the person is holding the green cup",
        "the person is holding the yellow star",
    ),
    "told": (
        "the person has held something for ten steps",
        "something was picked up and put down again",
    ),
}
"""Goals that are in the person's hands."""
_STREAM: dict[Group, Literal["fusion", "episode"]] = {
    "heard": "fusion", "seen": "fusion", "told": "episode"
}  # fmt: skip
_KIND: dict[Group, GoalKind] = {
    "heard": GoalKind.HEARD, "seen": GoalKind.SEEN, "told": GoalKind.TOLD
}  # fmt: skip


@dataclass(frozen=True)
class Preset:
    """How much of everything.

    Attributes:
        num_steps: Environment steps of each agent.
        num_points: Of each learning curve.
        num_evaluated: Episodes at each of them.
        num_episodes: Labelled episodes to calibrate on, as long as the agents'.
        num_watched: Episodes of a trained agent in which sensors fail.
    """

    num_steps: int
    num_points: int
    num_evaluated: int
    num_episodes: int
    num_watched: int


PRESETS = {"full": Preset(100_000, 10, 256, 320, 64), "debug": Preset(64, 1, 8, 32, 4)}


@dataclass(frozen=True)
class SoundOptions:
    """Options of the command line.

    Attributes:
        backbone: A shipped backbone, or the card of one.
        seeds: Agents trained on each reward.
        preset: ``debug`` does as little as runs through.
        workers: Processes at a time; with 0, agents are trained one by one in this one.
        run_name: Folder under ``runs/``.
    """

    backbone: str = "playroom_sound"
    seeds: tuple[int, ...] = (0, 1, 2, 3, 4)
    preset: Literal["full", "debug"] = "full"
    workers: int = 2
    run_name: str = "playroom_sound"


def main(options: SoundOptions) -> Path:
    """Run what is not yet done, write ``summary.json`` and a picture, and return the folder.

    Raises:
        ValueError: If the backbone is unknown, or the folder belongs to other settings.
        RuntimeError: If jobs failed twice.
    """
    load_backbone(options.backbone, device="cpu")  # before anything is computed
    run = RunFolder(Path("runs") / options.run_name, PRESETS[options.preset], options.backbone)
    calibrations: dict[str, Job] = {
        f"calibration {group} {payer}": partial(run_calibration, run, group, payer, options)
        for group in GROUPS
        for payer in PAYERS
        if payer != TRUTH and not run.is_finished(calibration_name(group, payer))
    }
    run_all_jobs(calibrations, num_workers=options.workers)
    agents: dict[str, Job] = {
        f"{group} {payer} {seed}": partial(run_agent, run, group, payer, seed, options)
        for seed in options.seeds
        for group in GROUPS
        for payer in PAYERS
        if not run.is_finished(agent_name(group, payer, seed))
    }
    run_all_jobs(agents, num_workers=options.workers)
    write_json(
        run.path / "summary.json",
        {
            "command": shlex.join(["python", *sys.argv]),
            "versions": versions(),
            "machine": machine(),
            "seconds": run.seconds(),
            "seeds": list(options.seeds),
            "groups": {group: summarise(run, group, options.seeds) for group in GROUPS},
        },
    )
    curves = {group: read_curves(run, group, options.seeds) for group in GROUPS}
    write_atomically(run.path / "learning.png", learning_curves(curves))
    print(run.path / "summary.json")
    return run.path


def calibration_name(group: Group, payer: str) -> str:
    """Return what the file of a calibration is called."""
    return f"calibration_{group}_{payer}".replace(" ", "_")


def agent_name(group: Group, payer: str, seed: int) -> str:
    """Return what the file of an agent is called."""
    return f"{group}_{payer}_{seed}".replace(" ", "_")


def load_payer(payer: str, group: Group, backbone: str) -> ImageTextEncoder:
    """Load what pays, unless it is the ground truth."""
    if payer == FRAMES:
        return load_encoder(FRAME_CLIP, device="cpu")
    return load_backbone(backbone, stream=_STREAM[group], device="cpu")


def goals_of(group: Group) -> tuple[Goal, ...]:
    """Return the goals of a group, with what may hold in their place."""
    known = {goal.prompts[0]: goal for goal in sound_goals(_KIND[group])}
    return tuple(known[sentence] for sentence in GROUPS[group])


def run_calibration(run: RunFolder, group: Group, payer: str, options: SoundOptions) -> None:
    """Calibrate a reward on labelled episodes."""
    torch.set_num_threads(1)

    def compute() -> Arrays:
        preset: Preset = run.settings
        mel = CONFIG.log_mel
        rng = np.random.default_rng(CALIBRATION_SEED)
        rooms = sound_rooms(preset.num_episodes, GROUPS[group])
        episodes = draw_episodes(rooms, SOUND_ROOM_STEPS, mel, rng)
        encoder = load_payer(payer, group, options.backbone)
        if isinstance(encoder, MultimodalEncoder):
            embedded = encode_streams(encoder.backbone, episodes)[encoder.stream].flatten(0, 1)
        else:
            embedded = encoder.encode_obs({"pixels": episodes.frames.flatten(0, 1)})
        columns = [SENTENCES.index(sentence) for sentence in GROUPS[group]]
        is_true = episodes.is_true.flatten(0, 1)[:, columns]
        found = calibrate(encoder, embedded, is_true, goals_of(group), 1 / encoder.logit_scale)
        return {
            "temperature": np.array(found.temperature), "threshold": np.array(found.threshold)
        }  # fmt: skip

    run.stage(calibration_name(group, payer), compute)


def run_agent(run: RunFolder, group: Group, payer: str, seed: int, options: SoundOptions) -> None:
    """Train an agent, and evaluate it by the ground truth."""
    torch.set_num_threads(1)

    def compute() -> Arrays:
        reward_model = None
        if payer != TRUTH:
            encoder = load_payer(payer, group, options.backbone)
            reward_model = RewardModel(encoder, goals_of(group), calibrated_head(run, group, payer))
        learner, curves = train(group, reward_model, run.settings, seed)
        if payer != BACKBONE:
            return curves
        robust = robust_reward(run, group, options.backbone)
        make_tasks = partial(
            sound_tasks, run.settings.num_watched, GROUPS[group], EVALUATION_SEED, robust
        )
        return curves | watch_with_cuts(learner, make_tasks)

    run.stage(agent_name(group, payer, seed), compute)


def calibrated_head(run: RunFolder, group: Group, payer: str) -> ThresholdHead:
    """Return the head that a calibration found."""
    found = run.finished(calibration_name(group, payer))
    return ThresholdHead(SoftmaxHead(float(found["temperature"])), float(found["threshold"]))


def robust_reward(run: RunFolder, group: Group, backbone: str) -> RewardModel:
    """Return the backbone's reward for sensors that may fail.

    Of a step it is the stream that is there, with the head of the card; of what is told, which only
    the memory knows, what agents are paid by.
    """
    if group == "told":
        encoder, head = load_payer(BACKBONE, group, backbone), calibrated_head(run, group, BACKBONE)
        return RewardModel(encoder, goals_of(group), head)
    return RewardModel(load_backbone(backbone, stream="present", device="cpu"), goals_of(group))


def train(
    group: Group, reward_model: RewardModel | None, preset: Preset, seed: int
) -> tuple[ActorCritic, Arrays]:
    """Train an agent on a reward, or on the ground truth where there is none.

    Returns:
        The agent, and ``steps`` ``[K]`` and ``returns`` ``[K, G]``: the true return of each goal in
        episodes of evaluation; ``paid`` and ``true`` ``[K]``, what a training step earned and
        should have.
    """
    tasks = sound_tasks(NUM_TASKS, GROUPS[group], seed * _SEEDS_APART, reward_model)
    config = learner_config(preset.num_steps, tasks.episode_length)
    learner = ActorCritic(tasks, config, seed * _SEEDS_APART + tasks.task_ids)
    total = config.num_episodes * tasks.episode_length
    ends = np.linspace(0, total, preset.num_points + 1).round().astype(int)[1:] - 1
    earned, curves, returns = [], [], []
    for step, (_, _, result) in enumerate(learner.steps()):
        earned.append((float(result.reward.mean()), float(result.env_reward.mean())))
        if step in ends:
            curves.append(((step + 1) * NUM_TASKS, *np.mean(earned, axis=0)))
            returns.append(true_returns(learner, group, preset.num_evaluated))
            earned.clear()
    columns = zip(("steps", "paid", "true"), np.array(curves).T, strict=True)
    return learner, {**dict(columns), "returns": np.array(returns)}


def true_returns(learner: ActorCritic, group: Group, num_episodes: int) -> NDArray[np.float64]:
    """Return the mean true return of each goal, in rooms that nobody has trained in."""
    tasks = sound_tasks(num_episodes, GROUPS[group], EVALUATION_SEED)
    total, goals = torch.zeros(num_episodes), tasks.goal_index.clone()
    for result in act(learner, tasks):
        total += result.env_reward
    return np.array([float(total[goals == goal].mean()) for goal in range(len(GROUPS[group]))])


def summarise(run: RunFolder, group: Group, seeds: Sequence[int]) -> dict[str, Any]:
    """Return what a group's agents learned, and the last returns' share of the truth's agents'.

    The share is the mean over the goals that the ground truth teaches at all; None if it teaches
    none. Seeds are resampled for the intervals, those of the ground truth apart.
    """
    agents = {
        payer: [run.finished(agent_name(group, payer, seed)) for seed in seeds] for payer in PAYERS
    }
    last = {payer: np.stack([of["returns"][-1] for of in found]) for payer, found in agents.items()}
    reached = last[TRUTH].mean(axis=0) > 0
    summary: dict[str, Any] = {
        "goals": list(GROUPS[group]), "steps": agents[TRUTH][0]["steps"].tolist()
    }  # fmt: skip
    for payer, found in agents.items():
        summary[payer] = {
            "returns": last[payer].tolist(),
            "curves": [of["returns"].mean(axis=1).tolist() for of in found],
            "paid": [of["paid"].tolist() for of in found],
            "true": [of["true"].tolist() for of in found],
        }
        if payer != TRUTH:
            of_payer = run.finished(calibration_name(group, payer))
            summary[payer]["calibration"] = {key: float(of_payer[key]) for key in of_payer}
            summary[payer]["share"] = (
                share(last[payer][:, reached], last[TRUTH][:, reached]) if reached.any() else None
            )
    summary["sensor_fails"] = {
        str(sensor or "none"): rates([of[cut_name(sensor)] for of in agents[BACKBONE]])
        for sensor in CUTS
    }
    return summary


def read_curves(run: RunFolder, group: Group, seeds: Sequence[int]) -> dict[str, LearningCurve]:
    """Return the true returns over training, mean over a group's goals, by who pays."""
    curves = {}
    for payer in PAYERS:
        found = [run.finished(agent_name(group, payer, seed)) for seed in seeds]
        returns = np.stack([of["returns"].mean(axis=1) for of in found])
        curves[payer] = LearningCurve(found[0]["steps"], returns)
    return curves


def share(returns: NDArray[np.float64], truth: NDArray[np.float64]) -> dict[str, float]:
    """Return the mean over goals of the share of the true agents' return, with its interval.

    Args:
        returns: ``[S, G]``.
        truth: ``[S, G]``, of agents that the truth paid; no goal's mean is 0.
    """
    rng = np.random.default_rng(0)
    drawn = rng.integers(len(truth), size=(2, _RESAMPLES, len(truth)))

    def mean_share(of: NDArray[np.float64], best: NDArray[np.float64]) -> NDArray[np.float64]:
        own, most = of.mean(axis=-2), best.mean(axis=-2)
        ratio = np.divide(own, most, out=np.full_like(own, np.nan), where=most > 0)
        means: NDArray[np.float64] = np.nanmean(ratio, axis=-1)
        return means

    low, high = np.nanpercentile(mean_share(returns[drawn[0]], truth[drawn[1]]), [2.5, 97.5])
    value = float(mean_share(returns, truth))
    return {"value": value, "low": float(low), "high": float(high)}


if __name__ == "__main__":
    main(tyro.cli(SoundOptions))
