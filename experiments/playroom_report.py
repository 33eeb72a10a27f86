"""The pictures of a Playroom run's report, drawn from the arrays of its stages."""

from dataclasses import replace

import numpy as np
import torch

import plots
from hidden_goals import EPISODE_LENGTH, ROOM_CONFIG, HiddenGoalRooms
from language_agent import GOAL
from playroom_summary import Results
from report import Figure, Summary
from reward_agents import PAID_BY
from vlmreward.evaluation import operating_point, precision_recall_curve
from vlmreward_envs.playroom import PlayroomRenderer
from vlmreward_envs.playroom.language import OBJECT_NAMES, find_sentence

LIMITATIONS = (
    "The encoder knows this one domain and the words of its grammar; it is no general CLIP.",
    "Precision and false positives are measured on rooms drawn like the encoder's training rooms, "
    "in states of a random walk: a policy that searches for errors will find more of them.",
    "Source learners and the in-context agent see their position and the reward, not pixels; the "
    "reward alone comes from frames.",
    "Episodes of the in-context part have a fixed length and do not end on success.",
)
_AGENT_LABELS = {"vlm": "trained on VLM reward", "env": "trained on the true reward"}
_EPISODE_TITLE = "An episode as the reward model sees it"
_IN_CONTEXT_TITLE = "Learning in context, weights frozen"


def figures(results: Results, summary: Summary, rooms: HiddenGoalRooms) -> list[Figure]:
    """Draw everything the report shows."""
    return [
        _film_strip(results),
        _training(results),
        _precision_recall(results),
        _in_context(results, summary),
        _agent_gif(results),
        *(_in_context_gif(results, rooms, episode) for episode in _shown_episodes(results)),
    ]


def overview(drawn: list[Figure]) -> bytes:
    """Return the run in one picture: an episode, and learning in context."""
    by_title = {figure.title: figure.image for figure in drawn}
    return plots.stack(by_title[_EPISODE_TITLE], by_title[_IN_CONTEXT_TITLE])


def _film_strip(results: Results) -> Figure:
    agent = results.agents["vlm", 0]
    image = plots.film_strip(
        agent["frames"],
        agent["probability"],
        agent["reached"],
        prompt=GOAL,
        threshold=results.threshold,
    )
    return Figure(
        _EPISODE_TITLE,
        "Frames of one evaluation episode of the agent trained on VLM reward, and the probability "
        "of the goal's sentence at each. The reward is paid above the threshold.",
        image,
    )


def _training(results: Results) -> Figure:
    curves = []
    for paid_by in PAID_BY:
        runs = [run for (by, _), run in sorted(results.agents.items()) if by == paid_by]
        curves.append(
            plots.TrainingCurve(
                _AGENT_LABELS[paid_by],
                runs[0]["steps"],
                np.stack([run["vlm_return"] for run in runs]),
                np.stack([run["env_return"] for run in runs]),
            )
        )
    return Figure(
        "VLM return and ground-truth return over training",
        f"Return per episode of PPO on “{GOAL}”, one panel per agent. Where the VLM return rises "
        "and the ground truth does not, an agent fools its reward model. The left agent's episodes "
        "end when the VLM pays; where it misses a success they go on and the ground truth counts "
        "every further step, so that its return can exceed 1.",
        plots.training_returns(curves),
    )


def _precision_recall(results: Results) -> Figure:
    found = results.encoder
    curves = []
    for label, rows in (
        ("objects named in training", ~found["is_held_out"]),
        ("held-out colour–shape pairs", found["is_held_out"]),
    ):
        labels, scores = found["labels"][rows], found["scores"][rows]
        curve = precision_recall_curve(labels, scores)
        point = operating_point(labels, scores, results.threshold)
        at_threshold = (point.recall, point.precision)
        curves.append(
            plots.LabelledCurve(label, curve.precision, curve.recall, at_threshold=at_threshold)
        )
    return Figure(
        "Precision and recall of the reward",
        "Every threshold on fresh frames, all goals of the three families pooled; the marks are "
        "the shipped threshold.",
        plots.precision_recall(curves),
    )


def _in_context(results: Results, summary: Summary) -> Figure:
    in_context = summary["in_context"]
    image = plots.in_context_returns(
        np.array(in_context["returns"]),
        np.array(in_context["low"]),
        np.array(in_context["high"]),
        source=np.array(summary["source"]["returns"]),
        random=in_context["random"],
        optimum=in_context["optimum"],
        interval="95 % interval over tasks and seeds",
    )
    num_seeds, num_tasks, _ = results.in_context["returns"].shape
    return Figure(
        _IN_CONTEXT_TITLE,
        f"Ground-truth return of each episode on {num_tasks} rooms with goals in cells that no "
        f"training room had ({num_seeds} distillations). The agent is told nothing; it sees its "
        "position and the VLM's rewards. The source learner is trained from scratch on each of "
        "the same rooms.",
        image,
    )


def _agent_gif(results: Results) -> Figure:
    agent = results.agents["vlm", 0]
    rewarded = agent["probability"] > results.threshold
    return Figure(
        "The agent trained on VLM reward",
        f"“{GOAL}”. A green border marks frames that the reward model pays for.",
        plots.gif(agent["frames"], rewarded=rewarded),
    )


def _shown_episodes(results: Results) -> tuple[int, ...]:
    num_episodes = results.in_context["returns"].shape[-1]
    return (0, num_episodes // 4, num_episodes - 1)


def _watched_room(results: Results) -> int:
    """Return the watched room with the farthest goal that the last agent ended up finding."""
    num_watched = results.in_context["positions"].shape[1]
    optimum = results.in_context["optimum"][:num_watched]
    found = results.in_context["returns"][-1, :num_watched, -1] > optimum / 2
    return int(np.where(found, optimum, np.inf).argmin())


def _in_context_gif(results: Results, rooms: HiddenGoalRooms, episode: int) -> Figure:
    room = _watched_room(results)
    state = rooms.state[torch.full((EPISODE_LENGTH,), room)]
    steps = slice(episode * EPISODE_LENGTH, (episode + 1) * EPISODE_LENGTH)
    position = results.in_context["positions"][steps, room]
    frames = PlayroomRenderer(ROOM_CONFIG)(
        replace(state, position=torch.from_numpy(position))
    ).numpy()
    cell = position[:, 1] * ROOM_CONFIG.grid_size + position[:, 0]
    name = OBJECT_NAMES[int(rooms.goal[room, 1])]
    return Figure(
        f"In-context episode {episode + 1}",
        f"The hidden goal is “{find_sentence(name)}”. A green border marks paid steps. Of the few "
        "rooms that are watched, this has the farthest goal that the agent ended up finding.",
        plots.gif(frames, rewarded=rooms.rewards[room].numpy()[cell] > 0),
    )
