"""The words of the Playroom with sound: what is seen, what is heard, and what has happened.

A goal *is* its sentence, as in :mod:`vlmreward_envs.playroom.language`, whose *Find* and *Lift*
sentences are the goals about what is seen. Sentences that are no goals make the alternatives of
the captions: silence, a count that no goal asks for.
"""

import difflib
import functools
from dataclasses import dataclass
from enum import IntEnum
from itertools import permutations, product

from vlmreward_envs import playroom
from vlmreward_envs.playroom import Family, PlayroomGoal


class Voice(IntEnum):
    """How an object sounds."""

    BELL = 0
    HUM = 1
    BEEP = 2


class Heard(IntEnum):
    """What can be heard in a step: a voice, of the same number, or what the person does."""

    RINGING = 0
    HUMMING = 1
    BEEPING = 2
    FOOTSTEPS = 3
    BUMP = 4
    PICKING_UP = 5
    PUTTING_DOWN = 6


class GoalKind(IntEnum):
    """What must be looked at, listened to, or remembered to judge a goal."""

    SEEN = 0
    HEARD = 1
    SEEN_AND_HEARD = 2
    TOLD = 3


LONG = 10
"""Steps that a sound or a grip must last to be told of."""

HEARD_SENTENCES = (
    "a bell is ringing",
    "something is humming",
    "something is beeping",
    "there are footsteps",
    "there is a bump",
    "something is being picked up",
    "something is being put down",
)
NOT_HEARD_SENTENCES = (
    "no bell is ringing",
    "nothing is humming",
    "nothing is beeping",
    "there are no footsteps",
    "there is no bump",
    "nothing is being picked up",
    "nothing is being put down",
)
NO_VOICE = "nothing is ringing, humming or beeping"

HUMMED_LONG = "something has hummed for ten steps"
NOT_HUMMED_LONG = "nothing has hummed for ten steps"
HELD_LONG = "the person has held something for ten steps"
NOT_HELD_LONG = "the person has held nothing for ten steps"
PUT_BACK = "something was picked up and put down again"
NOTHING_PUT_BACK = "nothing was put down"

_PAST = ("a bell rang", "something hummed", "something beeped")
_PERFECT = ("a bell has rung", "something has hummed", "something has beeped")
_NEVER = ("no bell has rung", "nothing has hummed", "nothing has beeped")
_TIMES = ("once", "twice", "three times", "more than three times")

ORDERS = tuple(permutations(Voice, 2))
COUNTED = (Voice.BELL, Voice.BEEP)
REPETITIONS = tuple(product(COUNTED, (2, 3)))
MOST_COUNTED = len(_TIMES)


def while_sentence(seen: str, heard: str) -> str:
    """Return the sentence that holds when both do."""
    return f"{seen} while {heard}"


def order_sentence(first: Voice, second: Voice) -> str:
    """Return the sentence that holds once both began, the first before the second."""
    return f"{_PAST[first]} before {_PAST[second]}"


def count_sentence(voice: Voice, count: int) -> str:
    """Return the sentence that says how often a voice began: never to "more than three times"."""
    if count == 0:
        return _NEVER[voice]
    return f"{_PERFECT[voice]} {_TIMES[min(count, MOST_COUNTED) - 1]}"


_OPPOSITE = {
    HUMMED_LONG: NOT_HUMMED_LONG,
    HELD_LONG: NOT_HELD_LONG,
    PUT_BACK: NOTHING_PUT_BACK,
}

TOLD_SENTENCES = (
    *(order_sentence(first, second) for first, second in ORDERS),
    *(count_sentence(voice, count) for voice, count in REPETITIONS),
    HUMMED_LONG,
    HELD_LONG,
    PUT_BACK,
)


@dataclass(frozen=True)
class PlayroomSoundGoal:
    """A goal as its parts: something seen, something heard, both, or something told.

    Attributes:
        seen: A FIND or LIFT goal of the Playroom.
        heard: What is to be heard in this step.
        told: Index into ``TOLD_SENTENCES``.

    Raises:
        ValueError: Parts that make no sentence.
    """

    seen: PlayroomGoal | None = None
    heard: Heard | None = None
    told: int | None = None

    def __post_init__(self) -> None:
        if self.told is not None:
            if self.seen is not None or self.heard is not None:
                raise ValueError(f"a told goal has no other part, got {self!r}")
            if not 0 <= self.told < len(TOLD_SENTENCES):
                raise ValueError(f"told must be in 0..{len(TOLD_SENTENCES) - 1}, got {self.told}")
        elif self.seen is None and self.heard is None:
            raise ValueError("got a goal without parts; give seen, heard, both, or told")
        if self.seen is not None and self.seen.family is Family.PUT:
            raise ValueError(f"expected a FIND or LIFT goal to see, got {self.seen.sentence!r}")
        if self.seen is not None and self.heard is not None and self.heard >= len(Voice):
            heard = HEARD_SENTENCES[self.heard]
            raise ValueError(f"expected a voice to hear while something is seen, got {heard!r}")

    @property
    def kind(self) -> GoalKind:
        """Which of the four kinds it is."""
        if self.told is not None:
            return GoalKind.TOLD
        if self.heard is None:
            return GoalKind.SEEN
        return GoalKind.HEARD if self.seen is None else GoalKind.SEEN_AND_HEARD

    @property
    def sentence(self) -> str:
        """The goal in words."""
        if self.told is not None:
            return TOLD_SENTENCES[self.told]
        parts = [] if self.seen is None else [self.seen.sentence]
        if self.heard is not None:
            parts.append(HEARD_SENTENCES[self.heard])
        return parts[0] if len(parts) == 1 else while_sentence(*parts)


def all_goals(kind: GoalKind) -> tuple[PlayroomSoundGoal, ...]:
    """Return every goal of a kind: 72 SEEN, 7 HEARD, 216 SEEN_AND_HEARD, 13 TOLD."""
    seen = (*playroom.all_goals(Family.FIND), *playroom.all_goals(Family.LIFT))
    if kind is GoalKind.SEEN:
        return tuple(PlayroomSoundGoal(seen=goal) for goal in seen)
    if kind is GoalKind.HEARD:
        return tuple(PlayroomSoundGoal(heard=heard) for heard in Heard)
    if kind is GoalKind.SEEN_AND_HEARD:
        pairs = product(seen, Voice)
        return tuple(PlayroomSoundGoal(seen=goal, heard=Heard(voice)) for goal, voice in pairs)
    return tuple(PlayroomSoundGoal(told=told) for told in range(len(TOLD_SENTENCES)))


@functools.cache
def _goals_by_sentence() -> dict[str, PlayroomSoundGoal]:
    return {goal.sentence: goal for kind in GoalKind for goal in all_goals(kind)}


def parse_goal(sentence: str) -> PlayroomSoundGoal:
    """Turn a goal sentence into its parts.

    Raises:
        ValueError: The sentence is not one of the grammar; the nearest ones are named.

    Example:
        >>> parse_goal("a bell is ringing")
        PlayroomSoundGoal(seen=None, heard=<Heard.RINGING: 0>, told=None)
    """
    words = " ".join(sentence.lower().split())
    known = _goals_by_sentence()
    if words not in known:
        nearest = difflib.get_close_matches(words, known, n=3, cutoff=0.0)
        raise ValueError(
            f"got the goal {sentence!r}, which is not a sentence of the Playroom with sound; did "
            f"you mean one of {nearest}?"
        )
    return known[words]


def alternatives(goal: PlayroomSoundGoal) -> tuple[str, ...]:
    """Return sentences that are false where a HEARD or TOLD goal is true; elsewhere one is true.

    Of an order more than one may be, and none is where both voices first began in the same step.

    Raises:
        ValueError: The goal is about something seen.
    """
    if goal.heard is not None and goal.seen is None:
        return (NOT_HEARD_SENTENCES[goal.heard],)
    if goal.told is None:
        raise ValueError(f"expected a goal that is heard or told, got {goal.sentence!r}")
    if goal.told < len(ORDERS):
        first, second = ORDERS[goal.told]
        return (order_sentence(second, first), _NEVER[first], _NEVER[second])
    if goal.told < len(ORDERS) + len(REPETITIONS):
        voice, count = REPETITIONS[goal.told - len(ORDERS)]
        others = (other for other in range(MOST_COUNTED + 1) if other != count)
        return tuple(count_sentence(voice, other) for other in others)
    return (_OPPOSITE[goal.sentence],)
