"""Describes Playroom states in words: true sentences, and false ones that are nearly true.

This is the training and evaluation text of CLIPs for the Playroom. Every true sentence about the
grammar's relations is listed, so that "not listed" means "false". Near misses differ in the colour,
in the shape, or in the relation: the wrong object of the room, or holding instead of beside.
"""

from collections.abc import Collection
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vlmreward_envs.description import Description
from vlmreward_envs.playroom.dynamics import (
    PlayroomConfig,
    PlayroomState,
    next_to_each_other,
    next_to_person,
)
from vlmreward_envs.playroom.language import (
    COLOURS,
    DIRECTIONS,
    HOLDING_NOTHING,
    NEXT_TO_NOTHING,
    OBJECT_NAMES,
    REGIONS,
    SHAPES,
    alone_sentence,
    direction_sentence,
    find_sentence,
    lift_sentence,
    put_sentence,
    region_sentence,
)


@dataclass(frozen=True)
class _Facts:
    """One room's relations, between object kinds."""

    kinds: tuple[int, ...]
    near: frozenset[int]
    held: frozenset[int]
    pairs: frozenset[tuple[int, int]]
    directions: dict[int, str]
    region: int


def describe(
    config: PlayroomConfig, state: PlayroomState, unnamed_kinds: Collection[int] = ()
) -> list[Description]:
    """Describe every room of a batch.

    Args:
        config: What the rooms have in common.
        state: The rooms.
        unnamed_kinds: Object kinds that no sentence may name, true or false: what is held out of
            a training text. Sentences about other objects of the same room remain.

    Returns:
        One description per room; the sentence about where the person is makes sure that at least
        one is true.
    """
    unnamed = frozenset(unnamed_kinds)
    return [_describe_room(facts, unnamed) for facts in _facts(state, config.grid_size)]


def _facts(state: PlayroomState, grid_size: int) -> list[_Facts]:
    kinds = state.object_kind.cpu().numpy()
    near = next_to_person(state).cpu().numpy()
    adjacent = next_to_each_other(state).cpu().numpy()
    held = state.held.cpu().numpy()
    direction = _direction((state.object_cell - state.position[:, None]).cpu().numpy())
    third = (state.position * 3 // grid_size).cpu().numpy()
    facts = []
    for room in range(len(state)):
        names = tuple(int(kind) for kind in kinds[room])
        first, second = np.nonzero(adjacent[room])
        facts.append(
            _Facts(
                kinds=names,
                near=frozenset(names[i] for i in np.nonzero(near[room])[0]),
                held=frozenset(names[i] for i in range(len(names)) if i == held[room]),
                pairs=frozenset((names[i], names[j]) for i, j in zip(first, second, strict=True)),
                directions={
                    names[i]: DIRECTIONS[direction[room, i]]
                    for i in range(len(names))
                    if i != held[room] and direction[room, i] >= 0
                },
                region=int(3 * third[room, 1] + third[room, 0]),
            )
        )
    return facts


def _direction(offset: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the index of the direction along the longer axis, or -1 on the diagonals."""
    x, y = offset[..., 0], offset[..., 1]
    horizontal = np.where(x < 0, 0, 1)
    vertical = np.where(y < 0, 2, 3)
    return np.where(abs(x) > abs(y), horizontal, np.where(abs(y) > abs(x), vertical, -1))


def _look_alikes(kind: int) -> list[int]:
    """Return the kinds that share the colour or the shape, but not both."""
    colour, shape = divmod(kind, len(SHAPES))
    same_shape = [c * len(SHAPES) + shape for c in range(len(COLOURS)) if c != colour]
    same_colour = [colour * len(SHAPES) + s for s in range(len(SHAPES)) if s != shape]
    return same_shape + same_colour


def _describe_room(facts: _Facts, unnamed: frozenset[int]) -> Description:
    true: list[str] = []
    near_misses: list[tuple[str, ...]] = []

    def name(kind: int) -> str:
        return OBJECT_NAMES[kind]

    def say(sentence: str, wrong: list[str]) -> None:
        true.append(sentence)
        near_misses.append(tuple(wrong))

    def confusable(kind: int, excluded: frozenset[int]) -> list[int]:
        """Kinds to mistake ``kind`` for: those in the room, and the look-alikes of ``kind``."""
        candidates = dict.fromkeys((*facts.kinds, *_look_alikes(kind)))
        return [k for k in candidates if k not in excluded and k not in unnamed]

    for kind in sorted(facts.near - unnamed):
        wrong = [find_sentence(name(k)) for k in confusable(kind, facts.near)]
        say(find_sentence(name(kind)), [*wrong, lift_sentence(name(kind))])
    for kind in sorted(facts.held - unnamed):
        wrong = [lift_sentence(name(k)) for k in confusable(kind, facts.held)]
        say(lift_sentence(name(kind)), [*wrong, find_sentence(name(kind))])
    for kind, other in sorted(facts.pairs):
        if kind in unnamed or other in unnamed:
            continue
        partners = frozenset(k for first, k in facts.pairs if first == kind) | {kind}
        wrong = [put_sentence(name(kind), name(k)) for k in confusable(other, partners)]
        say(put_sentence(name(kind), name(other)), [alone_sentence(name(kind)), *wrong])
    paired = frozenset(first for first, _ in facts.pairs)
    for kind in facts.kinds:
        if kind not in paired and kind not in unnamed:
            rivals = [k for k in facts.kinds if k != kind and k not in unnamed]
            say(alone_sentence(name(kind)), [put_sentence(name(kind), name(k)) for k in rivals])
    for kind, direction in facts.directions.items():
        if kind not in unnamed:
            others = [d for d in DIRECTIONS if d != direction]
            say(
                direction_sentence(name(kind), direction),
                [direction_sentence(name(kind), d) for d in others],
            )
    here = REGIONS[facts.region]
    say(
        region_sentence(here),
        [region_sentence(there) for there in REGIONS if there != here],
    )
    standing = [k for k in facts.kinds if k not in facts.held and k not in unnamed]
    if not facts.near:
        say(NEXT_TO_NOTHING, [find_sentence(name(kind)) for kind in standing])
    if not facts.held:
        say(HOLDING_NOTHING, [lift_sentence(name(kind)) for kind in standing])
    return Description(tuple(true), tuple(near_misses))
