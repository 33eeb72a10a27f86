"""The words of the Playroom: colours, shapes, and the sentences that name its goals.

A goal *is* its sentence: environments take it as a string, :func:`parse_goal` turns it into
numbers for the batched dynamics, :meth:`PlayroomGoal.sentence` turns it back.
"""

import difflib
from dataclasses import dataclass
from enum import IntEnum
from itertools import permutations

COLOURS = ("red", "green", "blue", "yellow", "purple", "white")
SHAPES = ("ball", "box", "key", "cup", "star", "cone")
NUM_OBJECT_KINDS = len(COLOURS) * len(SHAPES)
DIRECTIONS = ("left of", "right of", "above", "below")
REGIONS = tuple(
    f"{row} {column}"
    for row in ("top", "middle", "bottom")
    for column in ("left", "centre", "right")
)

NEXT_TO_NOTHING = "the person is next to nothing"
HOLDING_NOTHING = "the person is holding nothing"


class Family(IntEnum):
    """The three task families, after Playhouse (Abramson et al. 2020; Baumli et al. 2023)."""

    FIND = 0
    LIFT = 1
    PUT = 2


def object_name(kind: int) -> str:
    """Return the words of an object kind, e.g. ``"red ball"``; kind = colour * 6 + shape."""
    colour, shape = divmod(kind, len(SHAPES))
    return f"{COLOURS[colour]} {SHAPES[shape]}"


OBJECT_NAMES = tuple(object_name(kind) for kind in range(NUM_OBJECT_KINDS))


def find_sentence(name: str) -> str:
    """Return the sentence that holds when the person stands beside the object."""
    return f"the person is next to the {name}"


def lift_sentence(name: str) -> str:
    """Return the sentence that holds when the person carries the object."""
    return f"the person is holding the {name}"


def put_sentence(name: str, other: str) -> str:
    """Return the sentence that holds when two objects stand beside each other."""
    return f"the {name} is next to the {other}"


def alone_sentence(name: str) -> str:
    """Return the sentence that holds when an object stands beside no other, or is in hand."""
    return f"the {name} is next to nothing"


def direction_sentence(name: str, direction: str) -> str:
    """Return the sentence that says on which side of the person an object is."""
    return f"the {name} is {direction} the person"


def region_sentence(region: str) -> str:
    """Return the sentence that says in which ninth of the room the person is."""
    return f"the person is in the {region} of the room"


@dataclass(frozen=True)
class PlayroomGoal:
    """A goal as numbers.

    Attributes:
        family: Which task family.
        kind: Object kind in 0..35, the object to find, lift, or put.
        other_kind: The second object of a PUT goal, else -1.
    """

    family: Family
    kind: int
    other_kind: int = -1

    @property
    def kinds(self) -> tuple[int, ...]:
        """The object kinds that a room must contain for the goal to be achievable."""
        return (self.kind, self.other_kind) if self.family is Family.PUT else (self.kind,)

    @property
    def sentence(self) -> str:
        """The goal in words."""
        name = OBJECT_NAMES[self.kind]
        if self.family is Family.FIND:
            return find_sentence(name)
        if self.family is Family.LIFT:
            return lift_sentence(name)
        return put_sentence(name, OBJECT_NAMES[self.other_kind])


def all_goals(family: Family) -> tuple[PlayroomGoal, ...]:
    """Return every goal of a family: 36 FIND, 36 LIFT, 1,260 PUT (ordered pairs)."""
    if family is Family.PUT:
        pairs = permutations(range(NUM_OBJECT_KINDS), 2)
        return tuple(PlayroomGoal(family, kind, other) for kind, other in pairs)
    return tuple(PlayroomGoal(family, kind) for kind in range(NUM_OBJECT_KINDS))


def parse_goal(sentence: str) -> PlayroomGoal:
    """Turn a goal sentence into numbers.

    Raises:
        ValueError: The sentence is not one of the grammar; the nearest ones are named.

    Example:
        >>> parse_goal("the person is holding the red ball")
        PlayroomGoal(family=<Family.LIFT: 1>, kind=0, other_kind=-1)
    """
    words = " ".join(sentence.lower().split())
    for family in Family:
        for goal in all_goals(family):
            if goal.sentence == words:
                return goal
    known = [goal.sentence for family in Family for goal in all_goals(family)]
    nearest = difflib.get_close_matches(words, known, n=3, cutoff=0.0)
    raise ValueError(
        f"got the goal {sentence!r}, which is not a Playroom sentence; did you mean one of "
        f"{nearest}? Colours are {COLOURS}, shapes are {SHAPES}."
    )
