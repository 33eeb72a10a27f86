"""The two domains of the scaling trend: captions to train on, goals, and labelled trajectories.

Axis letters: ``M`` frames, ``G`` goals, ``H W`` pixels.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from launcher_domain import HELD_OUT_APPS, LauncherCaptions, draw_phones, launcher_goals
from playroom_domain import HELD_OUT_KINDS, PlayroomCaptions, draw_states, family_goals
from vlmreward import Goal
from vlmreward.pretraining import CaptionedFrames, CaptionSource
from vlmreward_envs.launcher import (
    APP_NAMES,
    Gesture,
    LauncherConfig,
    LauncherRenderer,
    optimal_gestures,
)
from vlmreward_envs.launcher.phones import step_gesture
from vlmreward_envs.playroom import (
    Family,
    PlayroomConfig,
    PlayroomRenderer,
    PlayroomState,
    step_rooms,
)
from vlmreward_envs.playroom.dynamics import next_to_person
from vlmreward_envs.playroom.language import (
    HOLDING_NOTHING,
    NUM_OBJECT_KINDS,
    find_sentence,
    lift_sentence,
)

EPISODE_LENGTH = 16
_RANDOM_GESTURES = 0.3


@dataclass(frozen=True)
class LabelledTrajectories:
    """Trajectories, one after the other, with the ground truth of every goal.

    Attributes:
        frames: uint8 RGB ``[M, H, W, 3]``.
        labels: Which goals are true ``[M, G]``.
    """

    frames: NDArray[np.uint8]
    labels: NDArray[np.bool_]


@dataclass(frozen=True)
class Domain:
    """An environment with goals in words.

    Attributes:
        name: For files and figures.
        title: For people.
        captions: What CLIPs are trained on.
        goals: Goals with their fixed negatives ``[G]``.
        is_held_out: Goals that no training sentence names ``[G]``.
        draw: Draws labelled trajectories: their number, and a random generator.
    """

    name: str
    title: str
    captions: CaptionSource
    goals: tuple[Goal, ...]
    is_held_out: NDArray[np.bool_]
    draw: Callable[[int, np.random.Generator], LabelledTrajectories]


class MixedCaptions:
    """Draws each batch from several sources, in equal shares.

    Batches of one domain each would be normalised by that domain's statistics in training, and by
    those of all domains in use: average precision then jumps from step to step and stays low.
    """

    def __init__(self, *sources: CaptionSource) -> None:
        self._sources = sources

    def __call__(self, num_frames: int, rng: np.random.Generator) -> CaptionedFrames:
        """Draw a batch; see :class:`vlmreward.pretraining.CaptionSource`."""
        shares = [len(share) for share in np.array_split(range(num_frames), len(self._sources))]
        parts = [source(share, rng) for source, share in zip(self._sources, shares, strict=True)]
        return CaptionedFrames(
            torch.cat([part.frames for part in parts]),
            [captions for part in parts for captions in part.captions],
            [misses for part in parts for misses in part.near_misses],
        )


class PlayroomVerbs:
    """Playroom's captions, and "pick up the red ball" of who holds it or stands beside it.

    As with the Launcher's "Open", a verb is said of what has been done and of what is to be done.
    Only persons whose hands are empty can pick up what they stand beside.
    """

    def __init__(self) -> None:
        self._captions = PlayroomCaptions()

    def __call__(self, num_frames: int, rng: np.random.Generator) -> CaptionedFrames:
        """Draw a batch; see :class:`vlmreward.pretraining.CaptionSource`."""
        batch = self._captions(num_frames, rng)
        said = [
            _say_verbs(list(true), list(wrong))
            for true, wrong in zip(batch.captions, batch.near_misses, strict=True)
        ]
        return CaptionedFrames(
            batch.frames, [true for true, _ in said], [wrong for _, wrong in said]
        )


def verb_sentence(sentence: str) -> str | None:
    """Return what tells to lift the object that a FIND or LIFT sentence is about, if it is one."""
    for beginning in (find_sentence(""), lift_sentence("")):
        if sentence.startswith(beginning):
            return f"pick up the {sentence.removeprefix(beginning)}"
    return None


def _say_verbs(
    true: list[str], wrong: list[Sequence[str]]
) -> tuple[list[str], list[Sequence[str]]]:
    can_lift = HOLDING_NOTHING in true
    found = {
        verb: misses
        for sentence, misses in zip(true, wrong, strict=True)
        if (verb := verb_sentence(sentence))
        and (can_lift or sentence.startswith(lift_sentence("")))
    }
    for verb, misses in found.items():
        rivals = {verb_sentence(miss) for miss in misses} - {None, *found}
        true.append(verb)
        wrong.append(tuple(sorted(str(rival) for rival in rivals)))
    return true, wrong


def draw_playroom(num_episodes: int, rng: np.random.Generator) -> LabelledTrajectories:
    """Let persons walk at random, from rooms in which something happens."""
    config = PlayroomConfig()
    renderer = PlayroomRenderer(config)
    state = draw_states(config, num_episodes, rng)
    frames, labels = [], []
    for _ in range(EPISODE_LENGTH):
        frames.append(renderer(state))
        labels.append(_found_and_lifted(state))
        state = step_rooms(config, state, torch.from_numpy(rng.integers(7, size=num_episodes)))
    return _in_order(frames, labels)


def _found_and_lifted(state: PlayroomState) -> torch.Tensor:
    """Tell of every kind of object whether the person is beside it, and whether it is in hand."""
    slot = torch.arange(state.object_kind.shape[1])
    is_held = slot == state.held[:, None]
    columns = []
    for relation in (next_to_person(state), is_held):
        of_kind = torch.zeros(len(state), NUM_OBJECT_KINDS, dtype=torch.bool)
        columns.append(of_kind.scatter(1, state.object_kind, relation))  # kinds differ in a room
    return torch.cat(columns, dim=1)


def draw_launcher(num_episodes: int, rng: np.random.Generator) -> LabelledTrajectories:
    """Open one app after the other, with every third gesture at random."""
    config = LauncherConfig()
    renderer = LauncherRenderer(config.num_pages)
    state = draw_phones(config, num_episodes, rng)
    frames, labels = [], []
    for _ in range(EPISODE_LENGTH):
        frames.append(renderer(state))
        labels.append(state.app[:, None] == torch.arange(len(APP_NAMES)))
        installed = torch.cat((state.places, state.folders.flatten(1)), dim=1)
        draw = torch.from_numpy(rng.random(installed.shape))
        is_app = (installed >= 0) & (installed < len(APP_NAMES))
        wanted = installed.gather(1, draw.masked_fill(~is_app, -1).argmax(dim=1, keepdim=True))
        gesture = optimal_gestures(state, wanted[:, 0])
        at_random = torch.from_numpy(rng.random(num_episodes) < _RANDOM_GESTURES)
        other = torch.from_numpy(rng.integers(len(Gesture), size=num_episodes))
        state = step_gesture(config, state, torch.where(at_random, other, gesture))
    return _in_order(frames, labels)


def _in_order(frames: list[torch.Tensor], labels: list[torch.Tensor]) -> LabelledTrajectories:
    """Put each trajectory's frames in a row."""
    return LabelledTrajectories(
        torch.stack(frames, dim=1).flatten(0, 1).numpy(),
        torch.stack(labels, dim=1).flatten(0, 1).numpy(),
    )


def domains() -> tuple[Domain, Domain]:
    """Return Playroom, with its goals to find and to lift, and Launcher, with every app's."""
    kinds = np.isin(np.arange(NUM_OBJECT_KINDS), HELD_OUT_KINDS)
    rng = np.random.default_rng(0)  # unused: FIND and LIFT draw nothing
    playroom = Domain(
        "playroom",
        "Playroom",
        PlayroomVerbs(),
        (*family_goals(Family.FIND, rng), *family_goals(Family.LIFT, rng)),
        np.tile(kinds, 2),
        draw_playroom,
    )
    launcher = Domain(
        "launcher",
        "Launcher",
        LauncherCaptions(),
        launcher_goals(),
        np.isin(np.arange(len(APP_NAMES)), HELD_OUT_APPS),
        draw_launcher,
    )
    return playroom, launcher
