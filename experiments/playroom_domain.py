"""What the experiments share about the Playroom: its frames with captions, and its goals."""

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vlmreward import Goal, ImageTextEncoder, RewardModel, SoftmaxHead
from vlmreward.pretraining import CaptionedFrames
from vlmreward_envs.playroom import (
    Action,
    Family,
    PlayroomConfig,
    PlayroomRenderer,
    PlayroomState,
    all_goals,
    describe,
    goal_reached,
    parse_goal,
    reset_rooms,
    step_rooms,
)
from vlmreward_envs.playroom.dynamics import goal_tensor
from vlmreward_envs.playroom.language import (
    HOLDING_NOTHING,
    NEXT_TO_NOTHING,
    NUM_OBJECT_KINDS,
    OBJECT_NAMES,
    alone_sentence,
    put_sentence,
)

# No training sentence names these: each colour once, each shape once.
HELD_OUT_NAMES = ("red key", "green star", "blue cup", "yellow ball", "purple box", "white cone")
HELD_OUT_KINDS = tuple(OBJECT_NAMES.index(name) for name in HELD_OUT_NAMES)
NAMED_KINDS = tuple(k for k in range(NUM_OBJECT_KINDS) if k not in HELD_OUT_KINDS)

_NULL_SENTENCE = {Family.FIND: NEXT_TO_NOTHING, Family.LIFT: HOLDING_NOTHING}
_NUM_UNIFORM = 30
_BESIDE = torch.tensor([(1, 0), (-1, 0), (0, 1), (0, -1)])


def draw_states(
    config: PlayroomConfig,
    num_rooms: int,
    rng: np.random.Generator,
    required_kinds: Tensor | None = None,
) -> PlayroomState:
    """Draw rooms in which something happens.

    In three rooms of ten the second object is moved beside the first. Half of the persons are moved
    beside an object (half of these beside the first), two in five then pick it up, and everybody
    takes one random step, so that many stand just beside an object and many just not. Nothing is
    moved into a cell that is taken. Required kinds are the first objects, in their order.
    """
    seeds = torch.from_numpy(rng.integers(2**62, size=num_rooms))
    state = reset_rooms(config, seeds, torch.zeros_like(seeds), required_kinds)
    cell, is_free = _cell_beside(config, state, torch.zeros_like(seeds), rng)
    moves = is_free & torch.from_numpy(rng.random(num_rooms) < 0.3)
    object_cell = state.object_cell.clone()
    object_cell[moves, 1] = cell[moves]
    state = replace(state, object_cell=object_cell)
    chosen = rng.integers(config.num_objects, size=num_rooms) * rng.integers(2, size=num_rooms)
    cell, is_free = _cell_beside(config, state, torch.from_numpy(chosen), rng)
    moves = is_free & torch.from_numpy(rng.random(num_rooms) < 0.5)
    state = replace(state, position=torch.where(moves[:, None], cell, state.position))
    lifts = torch.from_numpy(rng.random(num_rooms) < 0.4)
    state = step_rooms(config, state, torch.where(lifts, int(Action.PICK_UP), int(Action.STAY)))
    return step_rooms(config, state, torch.from_numpy(rng.integers(7, size=num_rooms)))


def _cell_beside(
    config: PlayroomConfig, state: PlayroomState, index: Tensor, rng: np.random.Generator
) -> tuple[Tensor, Tensor]:
    """Draw a cell beside one object of each room; tell whether it lies inside and is free."""
    rows = torch.arange(len(state))
    step = _BESIDE[torch.from_numpy(rng.integers(len(_BESIDE), size=len(state)))]
    cell = state.object_cell[rows, index] + step
    is_inside = ((cell >= 0) & (cell < config.grid_size)).all(dim=1)
    is_taken = (state.object_cell == cell[:, None]).all(dim=2).any(dim=1)
    return cell, is_inside & ~is_taken & ~(state.position == cell).all(dim=1)


class PlayroomCaptions:
    """Draws captioned Playroom frames for pretraining, without the held-out kinds.

    No sentence names the held-out kinds, and no frame shows them: a frame that shows an object
    whose sentence is missing would teach that everything like it is false.
    """

    def __init__(self, num_objects: Sequence[int] = (3, 4, 5, 6)) -> None:
        configs = [PlayroomConfig(num_objects=count) for count in num_objects]
        self._rooms = [(config, PlayroomRenderer(config)) for config in configs]

    def __call__(self, num_frames: int, rng: np.random.Generator) -> CaptionedFrames:
        """Draw a batch; see :class:`vlmreward.pretraining.CaptionSource`."""
        config, renderer = self._rooms[rng.integers(len(self._rooms))]
        order = rng.random((num_frames, len(NAMED_KINDS))).argsort(axis=1)
        kinds = np.array(NAMED_KINDS)[order[:, : config.num_objects]]
        state = draw_states(config, num_frames, rng, torch.from_numpy(kinds))
        descriptions = describe(config, state, HELD_OUT_KINDS)
        return CaptionedFrames(
            renderer(state),
            [description.true for description in descriptions],
            [description.near_misses for description in descriptions],
        )


def family_goals(family: Family, rng: np.random.Generator) -> tuple[Goal, ...]:
    """Return 36 goals of a family with their fixed negatives (Baumli et al. 2023).

    FIND and LIFT: every sentence of the family against all the others and the one that says
    "nothing". PUT: random pairs, each against every other partner of its first object, the
    sentences that say that either object is next to nothing, and 30 sentences drawn uniformly.
    """
    sentences = [goal.sentence for goal in all_goals(family)]
    if family is not Family.PUT:
        vocabulary = [*sentences, _NULL_SENTENCE[family]]
        return tuple(
            Goal(sentence, negative_prompts=[other for other in vocabulary if other != sentence])
            for sentence in sentences
        )
    goals = []
    for index in rng.permutation(len(sentences))[:NUM_OBJECT_KINDS]:
        first, second = sentences[index].removeprefix("the ").split(" is next to the ")
        said = (sentences[index], put_sentence(second, first))  # the same, either way round
        partners = [put_sentence(first, other) for other in OBJECT_NAMES if other != first]
        drawn = [sentences[other] for other in rng.permutation(len(sentences))]
        others = [text for text in drawn if text not in partners and text not in said]
        rivals = [text for text in partners if text not in said]
        alone = [alone_sentence(first), alone_sentence(second)]
        negatives = alone + rivals + others[:_NUM_UNIFORM]
        goals.append(Goal(sentences[index], negative_prompts=negatives))
    return tuple(goals)


@dataclass(frozen=True)
class LabelledScores:
    """Fresh frames scored against goals, with the ground truth; one row per (frame, goal).

    Attributes:
        labels: Is the goal true?
        scores: Its probability.
        goal_index: Which goal, numbered over all families.
        family: ``"find"``, ``"lift"`` or ``"put"``.
        is_held_out: Does the goal name an object that no training sentence named?
    """

    labels: NDArray[np.bool_]
    scores: NDArray[np.float64]
    goal_index: NDArray[np.int64]
    family: NDArray[np.str_]
    is_held_out: NDArray[np.bool_]

    @property
    def families(self) -> list[str]:
        """The names of the families."""
        return [family.name.lower() for family in Family]


def labelled_scores(
    encoder: ImageTextEncoder,
    temperature: float,
    rng: np.random.Generator,
    frames_per_goal: int = 256,
) -> LabelledScores:
    """Score fresh rooms against 36 goals of each family; each room contains its goal's objects."""
    config = PlayroomConfig()
    renderer = PlayroomRenderer(config)
    columns: dict[str, list[Any]] = {f.name: [] for f in fields(LabelledScores)}
    num_goals = 0
    for family in Family:
        goals = family_goals(family, rng)
        reward_model = RewardModel(encoder, goals, SoftmaxHead(temperature))
        for index, goal in enumerate(goals):
            parsed = parse_goal(goal.prompts[0])
            required = torch.tensor([parsed.kinds]).repeat(frames_per_goal, 1)
            state = draw_states(config, frames_per_goal, rng, required)
            rows = goal_tensor([parsed], torch.device("cpu")).repeat(frames_per_goal, 1)
            scores = reward_model.score(renderer(state), index)
            columns["labels"].append(goal_reached(state, rows).numpy())
            columns["scores"].append(scores.score.cpu().numpy().astype(np.float64))
            columns["goal_index"].append(np.full(frames_per_goal, num_goals))
            columns["family"].append(np.full(frames_per_goal, family.name.lower()))
            named = set(parsed.kinds) & set(HELD_OUT_KINDS)
            columns["is_held_out"].append(np.full(frames_per_goal, bool(named)))
            num_goals += 1
    return LabelledScores(**{name: np.concatenate(parts) for name, parts in columns.items()})
