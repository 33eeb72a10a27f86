"""Describes Playrooms with sound in words: true sentences, and false ones that are nearly true.

This is the training and evaluation text of encoders that see, hear and remember. The four kinds are
kept apart, because a frame alone, a sound alone, both, or a history is what tells if they are true.
Every true sentence of the grammar is listed, so that "not listed" means "false".
"""

from collections.abc import Collection, Iterable

import torch
from jaxtyping import Bool
from torch import Tensor

from vlmreward_envs import playroom
from vlmreward_envs.description import Description
from vlmreward_envs.playroom_sound.dynamics import PlayroomSoundConfig, PlayroomSoundState
from vlmreward_envs.playroom_sound.ground_truth import heard_now, told_so_far, voice_counts
from vlmreward_envs.playroom_sound.language import (
    COUNTED,
    HEARD_SENTENCES,
    HELD_LONG,
    HUMMED_LONG,
    MOST_COUNTED,
    NO_VOICE,
    NOT_HEARD_SENTENCES,
    NOT_HELD_LONG,
    NOT_HUMMED_LONG,
    NOTHING_PUT_BACK,
    ORDERS,
    PUT_BACK,
    TOLD_SENTENCES,
    GoalKind,
    Voice,
    count_sentence,
    order_sentence,
    while_sentence,
)

_VOICE_SENTENCES = HEARD_SENTENCES[: len(Voice)]
_OF_THE_PERSON = "the person is "
_ORDER_SENTENCES = tuple(order_sentence(first, second) for first, second in ORDERS)
_COUNT_SENTENCES = tuple(
    count_sentence(voice, count) for voice in COUNTED for count in range(MOST_COUNTED + 1)
)
_NEVER_HUMMED = count_sentence(Voice.HUM, 0)
_LASTING_SENTENCES = (
    HUMMED_LONG,
    HELD_LONG,
    PUT_BACK,
    _NEVER_HUMMED,
    NOT_HUMMED_LONG,
    NOT_HELD_LONG,
    NOTHING_PUT_BACK,
)
_TOLD_GROUPS = (_ORDER_SENTENCES, _COUNT_SENTENCES, _LASTING_SENTENCES)
TOLD_CAPTIONS = tuple(sentence for group in _TOLD_GROUPS for sentence in group)
"""Everything that can be told of an episode: ``TOLD_SENTENCES``, and what holds in their place."""


def describe(
    config: PlayroomSoundConfig, state: PlayroomSoundState, unnamed_kinds: Collection[int] = ()
) -> list[dict[GoalKind, Description]]:
    """Describe every room of a batch.

    What is seen is said in all sentences of :func:`vlmreward_envs.playroom.describe`; those about
    the person are joined with what is heard.

    Args:
        config: What the rooms have in common.
        state: The rooms.
        unnamed_kinds: Object kinds that no sentence may name, true or false.

    Returns:
        For each room a description of each kind, with at least one true sentence.
    """
    seen = playroom.describe(config.playroom, state, unnamed_kinds)
    heard = heard_now(state).tolist()
    told = told_captions(state).tolist()
    return [
        {
            GoalKind.SEEN: seen[room],
            GoalKind.HEARD: _describe_heard(heard[room]),
            GoalKind.SEEN_AND_HEARD: _join(seen[room], heard[room]),
            GoalKind.TOLD: _describe_told(told[room]),
        }
        for room in range(len(state))
    ]


def told_captions(state: PlayroomSoundState) -> Bool[Tensor, "B 23"]:
    """Return which of ``TOLD_CAPTIONS`` is true of the episode up to this step."""
    told = dict(zip(TOLD_SENTENCES, told_so_far(state).unbind(dim=1), strict=True))
    counts = voice_counts(state)
    for voice in COUNTED:
        for count in range(MOST_COUNTED):
            told[count_sentence(voice, count)] = counts[:, voice] == count
        told[count_sentence(voice, MOST_COUNTED)] = counts[:, voice] >= MOST_COUNTED
    told[_NEVER_HUMMED] = counts[:, Voice.HUM] == 0
    told[NOT_HUMMED_LONG] = ~told[HUMMED_LONG]
    told[NOT_HELD_LONG] = ~told[HELD_LONG]
    told[NOTHING_PUT_BACK] = ~told[PUT_BACK]
    return torch.stack([told[sentence] for sentence in TOLD_CAPTIONS], dim=1)


def _contrast(groups: Iterable[Collection[str]], true: Collection[str]) -> Description:
    """Say what is true; the near misses of a sentence are the false ones of its group."""
    sentences: list[str] = []
    near_misses: list[tuple[str, ...]] = []
    for group in groups:
        wrong = tuple(sentence for sentence in group if sentence not in true)
        right = [sentence for sentence in group if sentence in true]
        sentences += right
        near_misses += [wrong] * len(right)
    return Description(tuple(sentences), tuple(near_misses))


def _true_heard(heard: list[bool]) -> set[str]:
    pairs = zip(heard, HEARD_SENTENCES, NOT_HEARD_SENTENCES, strict=True)
    true = {positive if holds else negative for holds, positive, negative in pairs}
    if not any(heard[: len(Voice)]):
        true.add(NO_VOICE)
    return true


def _describe_heard(heard: list[bool]) -> Description:
    group = (*HEARD_SENTENCES, *NOT_HEARD_SENTENCES, NO_VOICE)
    return _contrast([group], _true_heard(heard))


def _join(seen: Description, heard: list[bool]) -> Description:
    """Join each true sentence about the person with each voice that sounds, or with none."""
    voices = (*_VOICE_SENTENCES, NO_VOICE)
    true_heard = _true_heard(heard)
    sounding = [voice for voice in voices if voice in true_heard]
    silent = [voice for voice in voices if voice not in true_heard]
    true: list[str] = []
    near_misses: list[tuple[str, ...]] = []
    for sentence, misses in zip(seen.true, seen.near_misses, strict=True):
        if not sentence.startswith(_OF_THE_PERSON):
            continue
        for voice in sounding:
            true.append(while_sentence(sentence, voice))
            other_voice = [while_sentence(sentence, other) for other in silent]
            other_sight = [while_sentence(miss, voice) for miss in misses]
            near_misses.append((*other_voice, *other_sight))
    return Description(tuple(true), tuple(near_misses))


def _describe_told(told: list[bool]) -> Description:
    true = {sentence for sentence, holds in zip(TOLD_CAPTIONS, told, strict=True) if holds}
    return _contrast(_TOLD_GROUPS, true)
