"""The Playroom with sound as batched tensors: the Playroom, and what can be heard in it.

A few objects have a voice: they ring, hum or beep for some steps, then pause. Which ones, and when,
is drawn from a stream of its own, so that nothing that can be seen tells of it. Nothing here makes
a sound (see :mod:`.synthesis`) or speaks (see :mod:`.language` and :mod:`.captions`).

Axis letters: ``B`` rooms, ``K`` objects in a room, ``E`` objects with a voice.
"""

from dataclasses import dataclass, field, fields, replace
from enum import IntEnum

import torch
from jaxtyping import Bool, Int64
from torch import Tensor

from vlmreward_envs import counter_rng
from vlmreward_envs.playroom import Action, PlayroomConfig, PlayroomState, reset_rooms, step_rooms
from vlmreward_envs.playroom.dynamics import NOTHING_HELD
from vlmreward_envs.playroom_sound.language import Voice

NEVER = -1
NUM_VARIANTS = 8
MIN_PAUSE = 2
# The fewest and the most steps that each voice sounds, in Voice's order.
SOUND_STEPS = ((4, 6), (8, 30), (2, 3))

_SOUND_STREAM = 13
# Streams of a room's sound seed; synthesis has others.
_VOICE_STREAM, _OBJECT_STREAM, _VARIANT_STREAM, _TIMING_STREAM = range(4)


class Event(IntEnum):
    """What the person's last action did, and how it therefore sounds."""

    NOTHING = 0
    FOOTSTEP = 1
    BUMP = 2
    PICK_UP = 3
    PUT_DOWN = 4


@dataclass(frozen=True)
class PlayroomSoundConfig:
    """What every room of a batch has in common.

    Attributes:
        playroom: The rooms themselves.
        num_voiced_objects: Objects that have a voice, at least one of each voice.
        mean_pause: Mean number of steps between two sounds of one object.
    """

    playroom: PlayroomConfig = field(default_factory=PlayroomConfig)
    num_voiced_objects: int = len(Voice)
    mean_pause: int = 20

    def __post_init__(self) -> None:
        if not len(Voice) <= self.num_voiced_objects <= self.playroom.num_objects:
            raise ValueError(
                f"num_voiced_objects must be in {len(Voice)}..{self.playroom.num_objects}, from "
                f"one of each voice to all objects of a room, got {self.num_voiced_objects}"
            )
        if self.mean_pause < MIN_PAUSE:
            raise ValueError(f"mean_pause must be at least {MIN_PAUSE}, got {self.mean_pause}")


@dataclass(frozen=True)
class PlayroomSoundState(PlayroomState):
    """A Playroom, the state of its voices, and what sentences about the past need to know.

    Attributes:
        sound_seed: The random stream of all that is heard.
        clock: Steps since the episode began.
        voice: Voice of each voiced object.
        voiced_object: Index of each voiced object among the objects of the room.
        variant: Which of the pitches of its voice each voiced object has.
        steps_left: Steps until the sound or pause of each voiced object ends, this one included.
        sounding_for: Steps that each has been sounding, this one included; 0 in a pause.
        num_onsets: How often each has begun to sound.
        first_onset: When each first began to sound, or -1.
        heard_from: Distance to each before the last action, from which its loudness glides.
        event: The :class:`Event` of the last action.
        held_for: Steps that something has been in hand without a break.
        put_back: Whether anything has been put down.
    """

    sound_seed: Int64[Tensor, " B"]
    clock: Int64[Tensor, " B"]
    voice: Int64[Tensor, "B E"]
    voiced_object: Int64[Tensor, "B E"]
    variant: Int64[Tensor, "B E"]
    steps_left: Int64[Tensor, "B E"]
    sounding_for: Int64[Tensor, "B E"]
    num_onsets: Int64[Tensor, "B E"]
    first_onset: Int64[Tensor, "B E"]
    heard_from: Int64[Tensor, "B E"]
    event: Int64[Tensor, " B"]
    held_for: Int64[Tensor, " B"]
    put_back: Bool[Tensor, " B"]


def reset_sound_rooms(
    config: PlayroomSoundConfig,
    seed: Int64[Tensor, " B"],
    episode: Int64[Tensor, " B"],
    required_kinds: Int64[Tensor, "B R"] | None = None,
) -> PlayroomSoundState:
    """Draw rooms, as :func:`~vlmreward_envs.playroom.reset_rooms` does, and their voices.

    The voices are drawn anew in every episode, even where ``fixed_room`` keeps the room.
    """
    room = reset_rooms(config.playroom, seed, episode, required_kinds)
    sound_seed = counter_rng.fold(counter_rng.fold(seed, episode), _SOUND_STREAM)
    return give_voices(config, room, sound_seed)


def give_voices(
    config: PlayroomSoundConfig, room: PlayroomState, sound_seed: Int64[Tensor, " B"]
) -> PlayroomSoundState:
    """Draw who has which voice and when it is heard, from ``sound_seed`` and nothing else.

    Every episode begins with a pause of every voice.
    """
    num_rooms, num_voiced = len(room), config.num_voiced_objects
    any_voice = torch.ones(len(Voice), dtype=torch.bool, device=sound_seed.device)
    any_object = torch.ones(config.playroom.num_objects, dtype=torch.bool, device=sound_seed.device)
    stream = counter_rng.fold(sound_seed, _VOICE_STREAM)
    order = counter_rng.choose_distinct(stream, len(Voice), any_voice)
    voice = order.repeat(1, -(-num_voiced // len(Voice)))[:, :num_voiced]
    stream = counter_rng.fold(sound_seed, _OBJECT_STREAM)
    voiced_object = counter_rng.choose_distinct(stream, num_voiced, any_object)
    stream = counter_rng.fold(sound_seed, _VARIANT_STREAM)
    none = torch.zeros_like(voice)
    _, pause = _draw_steps(config, sound_seed, voice, none)
    return PlayroomSoundState(
        **_seen(room),
        sound_seed=sound_seed,
        clock=torch.zeros_like(sound_seed),
        voice=voice,
        voiced_object=voiced_object,
        variant=counter_rng.integers(stream, num_voiced, 0, NUM_VARIANTS),
        steps_left=pause,
        sounding_for=none,
        num_onsets=none,
        first_onset=torch.full_like(none, NEVER),
        heard_from=_distance(room, voiced_object),
        event=torch.full_like(sound_seed, Event.NOTHING),
        held_for=torch.zeros_like(sound_seed),
        put_back=torch.zeros(num_rooms, dtype=torch.bool, device=sound_seed.device),
    )


def step_sound_rooms(
    config: PlayroomSoundConfig, state: PlayroomSoundState, action: Int64[Tensor, " B"]
) -> PlayroomSoundState:
    """Apply one Playroom action per room, and let the voices go on by one step."""
    room = step_rooms(config.playroom, state, action)
    event = _event(state, room, action)
    clock = state.clock + 1

    sounded = state.sounding_for > 0
    steps_left = state.steps_left - 1
    starts, stops = (steps_left == 0) & ~sounded, (steps_left == 0) & sounded
    num_onsets = state.num_onsets + starts
    sound, pause = _draw_steps(config, state.sound_seed, state.voice, num_onsets)
    steps_left = torch.where(starts, sound, torch.where(stops, pause, steps_left))
    sounding = starts | (sounded & ~stops)
    first = starts & (state.first_onset == NEVER)
    return replace(
        state,
        **_seen(room),
        clock=clock,
        steps_left=steps_left,
        sounding_for=torch.where(sounding, state.sounding_for + 1, 0),
        num_onsets=num_onsets,
        first_onset=torch.where(first, clock[:, None], state.first_onset),
        heard_from=voice_distance(state),
        event=event,
        held_for=torch.where(room.held != NOTHING_HELD, state.held_for + 1, 0),
        put_back=state.put_back | (event == Event.PUT_DOWN),
    )


def voice_distance(state: PlayroomSoundState) -> Int64[Tensor, "B E"]:
    """Return how many cells the person would walk to each voiced object; 0 in hand."""
    return _distance(state, state.voiced_object)


def _seen(room: PlayroomState) -> dict[str, Tensor]:
    """Return all that is a Playroom in the state of a room."""
    return {part.name: getattr(room, part.name) for part in fields(PlayroomState)}


def _distance(room: PlayroomState, objects: Int64[Tensor, "B E"]) -> Int64[Tensor, "B E"]:
    distance = (room.object_cell - room.position[:, None]).abs().sum(dim=2)
    return distance.gather(1, objects)


def _event(
    before: PlayroomState, after: PlayroomState, action: Int64[Tensor, " B"]
) -> Int64[Tensor, " B"]:
    moves = (action >= Action.LEFT) & (action <= Action.DOWN)
    moved = (before.position != after.position).any(dim=1)
    held, holds = before.held != NOTHING_HELD, after.held != NOTHING_HELD
    event = torch.full_like(action, Event.NOTHING)
    for kind, happened in (
        (Event.FOOTSTEP, moved),
        (Event.BUMP, moves & ~moved),
        (Event.PICK_UP, ~held & holds),
        (Event.PUT_DOWN, held & ~holds),
    ):
        event = event.masked_fill(happened, kind)
    return event


def _draw_steps(
    config: PlayroomSoundConfig,
    sound_seed: Int64[Tensor, " B"],
    voice: Int64[Tensor, "B E"],
    num_onsets: Int64[Tensor, "B E"],
) -> tuple[Int64[Tensor, "B E"], Int64[Tensor, "B E"]]:
    """Return how long the sound that is the ``num_onsets``-th of its object lasts, and the pause.

    The pause follows the sound; that of number 0 begins the episode. Both are uniform over whole
    steps, the pause from ``MIN_PAUSE`` to as far beyond its mean.
    """
    num_rooms, num_voiced = voice.shape
    stream = counter_rng.fold(sound_seed, _TIMING_STREAM).repeat_interleave(num_voiced)
    stream = counter_rng.fold(
        stream, torch.arange(num_voiced, device=voice.device).repeat(num_rooms)
    )
    draws = counter_rng.uniform(counter_rng.fold(stream, num_onsets.flatten()), 2)
    for_sound, for_pause = draws.double().view(num_rooms, num_voiced, 2).unbind(dim=2)
    fewest, most = torch.tensor(SOUND_STEPS, device=voice.device)[voice].unbind(dim=2)
    sound = fewest + (for_sound * (most - fewest + 1)).long()
    pause = MIN_PAUSE + (for_pause * (2 * (config.mean_pause - MIN_PAUSE) + 1)).long()
    return sound, pause
