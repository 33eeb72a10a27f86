"""Whether sentences of the Playroom with sound are true: for logging, captions and tests.

Axis letters: ``B`` rooms, ``E`` objects with a voice, ``V`` voices.
"""

from collections.abc import Sequence

import torch
from jaxtyping import Bool, Int64
from torch import Tensor

from vlmreward_envs import playroom
from vlmreward_envs.playroom_sound.dynamics import NEVER, Event, PlayroomSoundState
from vlmreward_envs.playroom_sound.language import (
    LONG,
    ORDERS,
    REPETITIONS,
    PlayroomSoundGoal,
    Voice,
)

_NO_GOAL_OF_THE_PLAYROOM = (0, -1, -1)


def heard_now(state: PlayroomSoundState) -> Bool[Tensor, "B 7"]:
    """Return which of ``HEARD_SENTENCES`` is true in this step."""
    sounding = (state.sounding_for > 0)[:, :, None]
    voices = (_has_voice(state) & sounding).any(dim=1)
    events = torch.arange(Event.FOOTSTEP, len(Event), device=state.event.device)
    return torch.cat((voices, state.event[:, None] == events), dim=1)


def voice_counts(state: PlayroomSoundState) -> Int64[Tensor, "B V"]:
    """Return how often each voice has begun to sound in this episode."""
    return (_has_voice(state) * state.num_onsets[:, :, None]).sum(dim=1)


def told_so_far(state: PlayroomSoundState) -> Bool[Tensor, "B 13"]:
    """Return which of ``TOLD_SENTENCES`` is true of the episode up to this step."""
    of_voice = _has_voice(state)
    never = torch.iinfo(torch.int64).max
    began = state.first_onset.masked_fill(state.first_onset == NEVER, never)[:, :, None]
    first = torch.where(of_voice, began, never).amin(dim=1)
    counts = voice_counts(state)
    long_hum = (of_voice[:, :, Voice.HUM] & (state.sounding_for >= LONG)).any(dim=1)
    columns = [
        *((first[:, one] < first[:, other]) & (first[:, other] != never) for one, other in ORDERS),
        *(counts[:, voice] == count for voice, count in REPETITIONS),
        long_hum,
        state.held_for >= LONG,
        state.put_back,
    ]
    return torch.stack(columns, dim=1)


def goal_tensor(goals: Sequence[PlayroomSoundGoal], device: torch.device) -> Int64[Tensor, "B 6"]:
    """Return goals as rows (kind, the three numbers of a Playroom goal, heard, told)."""
    rows = []
    for goal in goals:
        seen = goal.seen
        numbers = (
            _NO_GOAL_OF_THE_PLAYROOM
            if seen is None
            else (int(seen.family), seen.kind, seen.other_kind)
        )
        rows.append((int(goal.kind), *numbers, int(goal.heard or 0), goal.told or 0))
    return torch.tensor(rows, dtype=torch.int64, device=device).reshape(-1, 6)


def goal_reached(state: PlayroomSoundState, goal: Int64[Tensor, "B 6"]) -> Bool[Tensor, " B"]:
    """Return the ground truth: is each room's goal true now?"""
    kind, heard_index, told_index = goal[:, :1], goal[:, 4:5], goal[:, 5:6]
    seen = playroom.goal_reached(state, goal[:, 1:4])
    heard = heard_now(state).gather(1, heard_index)[:, 0]
    told = told_so_far(state).gather(1, told_index)[:, 0]
    return torch.stack((seen, heard, seen & heard, told), dim=1).gather(1, kind)[:, 0]


def _has_voice(state: PlayroomSoundState) -> Bool[Tensor, "B E V"]:
    return state.voice[:, :, None] == torch.arange(len(Voice), device=state.voice.device)
