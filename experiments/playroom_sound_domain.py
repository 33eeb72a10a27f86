"""What the experiments share about the Playroom with sound: captioned steps, and labelled episodes.

Axis letters: ``B`` steps, ``E`` episodes, ``T`` their length, ``N`` texts, ``G`` goals, ``H W``
pixels, ``R`` log-mel frames of a step, ``M`` mel bands, ``L`` tokens of a text, ``C`` captions that
are told.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice

import numpy as np
import torch
from jaxtyping import Bool, Float, Int64, UInt8
from torch import Tensor

from playroom_domain import (
    HELD_OUT_KINDS,
    HELD_OUT_NAMES,
    NAMED_KINDS,
    draw_states,
    family_goals,
)
from vlmreward import Goal
from vlmreward.backbone.audio import LogMelConfig, log_mel
from vlmreward.encoders.open_clip import Tokenizer
from vlmreward.pretraining import CaptionedFrames
from vlmreward.pretraining.captions import draw_texts
from vlmreward_envs.playroom import Family, PlayroomRenderer
from vlmreward_envs.playroom_sound import (
    STEP_SAMPLES,
    TOLD_CAPTIONS,
    GoalKind,
    PlayroomSoundConfig,
    PlayroomSoundRooms,
    PlayroomSoundState,
    PlayroomSynthesiser,
    Voice,
    all_goals,
    alternatives,
    describe,
    give_voices,
    goal_reached,
    goal_tensor,
    heard_now,
    step_sound_rooms,
    told_captions,
)

_STAYS = 0.5  # of all actions: so that what is beside or in hand often still is a step later
_LONGEST_WAIT = 40


@dataclass(frozen=True)
class SoundBatch:
    """Single steps, with sentences about them.

    Attributes:
        frames: What is seen.
        log_mel: What is heard, the past that it reaches back to included.
        tokens: Every sentence once.
        is_true: Which sentence is true of which step.
        kind: The `GoalKind` of every sentence.
        told: Which of `TOLD_CAPTIONS` is true of the episode of which step, drawn or not.
    """

    frames: UInt8[Tensor, "B H W 3"]
    log_mel: Float[Tensor, "B R M"]
    tokens: Int64[Tensor, "N L"]
    is_true: Bool[Tensor, "B N"]
    kind: Int64[Tensor, " N"]
    told: Bool[Tensor, "B C"]


@dataclass(frozen=True)
class SoundBatchConfig:
    """How much a batch holds.

    Attributes:
        num_steps: B.
        captions_per_kind: True sentences of each `GoalKind`, in its order, drawn for each step.
        near_misses_per_caption: False ones of each of these.
    """

    num_steps: int = 128
    captions_per_kind: tuple[int, int, int, int] = (6, 2, 2, 2)
    near_misses_per_caption: int = 2


class SoundBatches:
    """The batch of each training step: a function of the step alone.

    No sentence names the held-out kinds of object, and no frame shows them.

    Args:
        config: How much a batch holds.
        mel: How sound is read.
        tokenizer: The text tower's own.
        seed: Of all batches.
    """

    def __init__(
        self, config: SoundBatchConfig, mel: LogMelConfig, tokenizer: Tokenizer, seed: int
    ) -> None:
        self._config = config
        self._mel = mel
        self._tokenizer = tokenizer
        self._seed = seed
        self._rooms = PlayroomSoundConfig()
        self._renderer = PlayroomRenderer(self._rooms.playroom)
        self._synthesiser = PlayroomSynthesiser(self._rooms)

    def __call__(self, step: int) -> SoundBatch:
        """Draw a batch."""
        rng = np.random.default_rng((self._seed, step))
        before, state = self._draw(rng)
        sound = torch.cat([self._synthesiser(before), self._synthesiser(state)], dim=1)
        mels = log_mel(sound, self._mel)[:, -STEP_SAMPLES // self._mel.hop :]
        frames = self._renderer(state)
        texts, is_true, kinds = self._describe(state, frames, rng)
        told = told_captions(state)
        return SoundBatch(frames, mels, self._tokenizer(texts), is_true, kinds, told)

    def _draw(self, rng: np.random.Generator) -> tuple[PlayroomSoundState, PlayroomSoundState]:
        """Draw rooms at any time of their episodes, and what they were a step before."""
        number = self._config.num_steps
        order = rng.random((number, len(NAMED_KINDS))).argsort(axis=1)
        kinds = np.array(NAMED_KINDS)[order[:, : self._rooms.playroom.num_objects]]
        room = draw_states(self._rooms.playroom, number, rng, torch.from_numpy(kinds))
        seeds = torch.from_numpy(rng.integers(2**62, size=number))
        state = before = give_voices(self._rooms, room, seeds)
        until = torch.from_numpy(rng.integers(1, _LONGEST_WAIT, size=number))
        rolled = islice(roll(self._rooms, state, rng), _LONGEST_WAIT)
        for time, after in enumerate(rolled, start=1):
            goes_on = until >= time
            before = state.where(goes_on, before)
            state = after.where(goes_on, state)
        return before, state

    def _describe(
        self, state: PlayroomSoundState, frames: Tensor, rng: np.random.Generator
    ) -> tuple[list[str], Bool[Tensor, "B N"], Int64[Tensor, " N"]]:
        """Draw true and nearly true sentences of every kind, each once."""
        described = describe(self._rooms, state, HELD_OUT_KINDS)
        texts: list[str] = []
        is_true, kinds = [], []
        for kind in GoalKind:
            said = [of_step[kind] for of_step in described]
            rows = CaptionedFrames(
                frames, [one.true for one in said], [one.near_misses for one in said]
            )
            config = self._config
            number = config.captions_per_kind[kind]
            drawn = draw_texts(rows, number, config.near_misses_per_caption, rng)
            texts += drawn.texts
            is_true.append(drawn.is_true)
            kinds += [int(kind)] * len(drawn.texts)
        return texts, torch.cat(is_true, dim=1), torch.tensor(kinds)


def roll(
    config: PlayroomSoundConfig, state: PlayroomSoundState, rng: np.random.Generator
) -> Iterator[PlayroomSoundState]:
    """Let persons do this and that for ever, and half of the time nothing; yield every state."""
    while True:
        action = torch.from_numpy(rng.integers(7, size=len(state)))
        stays = torch.from_numpy(rng.random(len(state)) < _STAYS)
        state = step_sound_rooms(config, state, action.masked_fill(stays, 0))
        yield state


@dataclass(frozen=True)
class LabelledEpisodes:
    """Episodes of persons who do this and that, with the truth of every sentence in `SENTENCES`.

    Attributes:
        frames: What is seen.
        log_mel: What is heard.
        is_true: Which sentence is true when.
    """

    frames: UInt8[Tensor, "E T H W 3"]
    log_mel: Float[Tensor, "E T R M"]
    is_true: Bool[Tensor, "E T G"]


_NOT_TOLD = (GoalKind.SEEN, GoalKind.HEARD, GoalKind.SEEN_AND_HEARD)
SENTENCES = (*(goal.sentence for kind in _NOT_TOLD for goal in all_goals(kind)), *TOLD_CAPTIONS)
"""Every goal, and what else can be told of an episode in place of one."""
GOALS_OF_KIND = {
    kind: np.array([SENTENCES.index(goal.sentence) for goal in all_goals(kind)])
    for kind in GoalKind
}
"""Where in `SENTENCES` the goals of each kind are."""
IS_HELD_OUT = np.array([any(name in text for name in HELD_OUT_NAMES) for text in SENTENCES])
"""Which of `SENTENCES` are never trained on: those that name a held-out kind of object."""


def sound_goals(kind: GoalKind) -> tuple[Goal, ...]:
    """Return the goals of a kind that is seen, heard or told, with what may hold in their place.

    Raises:
        ValueError: Another kind.
    """
    if kind is GoalKind.SEEN_AND_HEARD:
        raise ValueError(f"expected goals that are seen, heard or told, got {kind!r}")
    if kind is GoalKind.SEEN:
        unused = np.random.default_rng(0)
        return (*family_goals(Family.FIND, unused), *family_goals(Family.LIFT, unused))
    return tuple(
        Goal(goal.sentence, negative_prompts=list(alternatives(goal))) for goal in all_goals(kind)
    )


def draw_episodes(
    rooms: PlayroomSoundRooms, length: int, mel: LogMelConfig, rng: np.random.Generator
) -> LabelledEpisodes:
    """Draw whole episodes, one in each room, from what their first action led to.

    Args:
        rooms: They are reset.
        length: Of each.
        mel: How sound is read.
        rng: Random generator.
    """
    rooms.reset(torch.from_numpy(rng.integers(2**62, size=rooms.num_envs)))
    frames, sounds, labels = [], [], []
    for state in islice(roll(rooms.config, rooms.state, rng), length):
        rooms.state = state
        frames.append(rooms.render())
        sounds.append(rooms.listen())
        labels.append(_truth(state))
    mels = log_mel(torch.cat(sounds, dim=1), mel)
    return LabelledEpisodes(
        torch.stack(frames, dim=1), mels.unflatten(1, (length, -1)), torch.stack(labels, dim=1)
    )


def _truth(state: PlayroomSoundState) -> Bool[Tensor, "B G"]:
    """Return which of `SENTENCES` is true of every room."""
    goals = goal_tensor(all_goals(GoalKind.SEEN), state.position.device)
    rooms = torch.arange(len(state)).repeat_interleave(len(goals))
    seen = goal_reached(state[rooms], goals.repeat(len(state), 1)).view(len(state), -1)
    heard = heard_now(state)
    both = seen[:, :, None] & heard[:, None, : len(Voice)]
    return torch.cat([seen, heard, both.flatten(1), told_captions(state)], dim=1)
