"""The Playroom as batched tensors: thousands of rooms stepped at once on any torch device.

A room is a square grid of cells. A person walks on it; objects are solid, can be lifted from a
neighbouring cell and put down again. Nothing here draws (see :mod:`.rendering`) or speaks
(see :mod:`.language` and :mod:`.captions`).

Axis letters: ``B`` rooms, ``K`` objects in a room.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import IntEnum

import torch
from jaxtyping import Bool, Int64
from torch import Tensor

from vlmreward_envs import counter_rng
from vlmreward_envs.playroom.language import NUM_OBJECT_KINDS, PlayroomGoal
from vlmreward_envs.tensor_state import TensorState

NOTHING_HELD = -1
NUM_FLOORS = 6
NUM_SIZES = 3
MAX_OFFSET = 1


class Action(IntEnum):
    """What the person can do in one step."""

    STAY = 0
    LEFT = 1
    RIGHT = 2
    UP = 3
    DOWN = 4
    PICK_UP = 5
    PUT_DOWN = 6


# (dx, dy) of every action; y grows downwards, as in the picture.
_MOVES = ((0, 0), (-1, 0), (1, 0), (0, -1), (0, 1), (0, 0), (0, 0))
# Where a held object is put: the first free one of these neighbours.
_PUT_ORDER = ((1, 0), (0, 1), (-1, 0), (0, -1))


@dataclass(frozen=True)
class PlayroomConfig:
    """What every room of a batch has in common.

    Attributes:
        grid_size: Cells along each side.
        num_objects: Objects in each room; no two alike in colour and shape.
        start_at_centre: Begin every episode in the middle cell, not in a random free one.
        fixed_room: Draw each room once from its seed and keep it in all episodes; otherwise
            every episode draws a new one.
    """

    grid_size: int = 7
    num_objects: int = 5
    start_at_centre: bool = False
    fixed_room: bool = False

    def __post_init__(self) -> None:
        if self.grid_size < 3:
            raise ValueError(f"grid_size must be at least 3, got {self.grid_size}")
        most = min(NUM_OBJECT_KINDS, self.grid_size**2 // 3)
        if not 1 <= self.num_objects <= most:
            raise ValueError(
                f"num_objects must be in 1..{most} on a {self.grid_size}×{self.grid_size} grid, "
                f"got {self.num_objects}"
            )


@dataclass(frozen=True)
class PlayroomState(TensorState):
    """Everything a room is, as tensors with the rooms on the first axis.

    Attributes:
        position: Cell (x, y) of the person.
        object_cell: Cell (x, y) of each object; a held object is in the person's cell.
        object_kind: Colour * 6 + shape of each object.
        held: Index of the held object, or -1.
        floor: Floor colour index.
        object_size: Size index of each object.
        object_offset: Offset (x, y) of each object from the middle of its cell: -1, 0 or 1.
        light: Brightness and its slope along x and y, each in 0..255 (see rendering).
    """

    position: Int64[Tensor, "B 2"]
    object_cell: Int64[Tensor, "B K 2"]
    object_kind: Int64[Tensor, "B K"]
    held: Int64[Tensor, " B"]
    floor: Int64[Tensor, " B"]
    object_size: Int64[Tensor, "B K"]
    object_offset: Int64[Tensor, "B K 2"]
    light: Int64[Tensor, "B 3"]


def reset_rooms(
    config: PlayroomConfig,
    seed: Int64[Tensor, " B"],
    episode: Int64[Tensor, " B"],
    required_kinds: Int64[Tensor, "B R"] | None = None,
) -> PlayroomState:
    """Draw rooms; each is a function of its own seed and episode number alone.

    Args:
        config: Shared by all rooms.
        seed: One random stream per room.
        episode: Episode number of each room, from 0.
        required_kinds: Object kinds that must be in each room (-1: none), e.g. those of its goal.

    Raises:
        ValueError: More kinds are required than there are objects.
    """
    room_seed = seed if config.fixed_room else counter_rng.fold(seed, episode)
    num_rooms, num_objects, grid = seed.shape[0], config.num_objects, config.grid_size

    def stream(number: int) -> Tensor:
        return counter_rng.fold(room_seed, number)

    free = torch.ones(grid * grid, dtype=torch.bool, device=seed.device)
    centre = grid // 2 * grid + grid // 2
    if config.start_at_centre:
        free[centre] = False
    object_place = counter_rng.choose_distinct(stream(0), num_objects, free)
    if config.start_at_centre:
        start_place = torch.full_like(seed, centre)
    else:
        unoccupied = free.repeat(num_rooms, 1).scatter_(1, object_place, False)
        start_seed = counter_rng.fold(counter_rng.fold(seed, episode), 7)
        start_place = counter_rng.choose_distinct(start_seed, 1, unoccupied)[:, 0]
    return PlayroomState(
        position=_cell(start_place, grid),
        object_cell=_cell(object_place, grid),
        object_kind=_draw_kinds(stream(1), num_objects, required_kinds),
        held=torch.full_like(seed, NOTHING_HELD),
        floor=counter_rng.integers(stream(2), 1, 0, NUM_FLOORS)[:, 0],
        object_size=counter_rng.integers(stream(3), num_objects, 0, NUM_SIZES),
        object_offset=counter_rng.integers(
            stream(4), 2 * num_objects, -MAX_OFFSET, MAX_OFFSET + 1
        ).view(num_rooms, num_objects, 2),
        light=counter_rng.integers(stream(5), 3, 0, 256),
    )


def step_rooms(
    config: PlayroomConfig, state: PlayroomState, action: Int64[Tensor, " B"]
) -> PlayroomState:
    """Apply one :class:`Action` per room and return the next state (no room ever ends here).

    Walls and objects block the way. PICK_UP lifts the first object beside the person if the hands
    are empty. PUT_DOWN puts the held object into the first free cell to the right, below, to the
    left, above; if none is free, it stays in hand.
    """
    moves = torch.tensor(_MOVES, device=action.device)
    target = (state.position + moves[action]).clamp(0, config.grid_size - 1)
    blocked = _occupied(state, target[:, None])[:, 0]
    position = torch.where(blocked[:, None], state.position, target)

    beside = next_to_person(state)
    lifts = (action == Action.PICK_UP) & (state.held == NOTHING_HELD) & beside.any(dim=1)
    held = torch.where(lifts, beside.int().argmax(dim=1), state.held)

    neighbours = position[:, None] + torch.tensor(_PUT_ORDER, device=action.device)
    inside = ((neighbours >= 0) & (neighbours < config.grid_size)).all(dim=2)
    free = inside & ~_occupied(state, neighbours)
    puts = (action == Action.PUT_DOWN) & (state.held != NOTHING_HELD) & free.any(dim=1)
    place = neighbours[torch.arange(len(action), device=action.device), free.int().argmax(dim=1)]
    carried = torch.where(puts[:, None], place, position)

    moved = _is_held(state.object_kind.shape[1], held)
    object_cell = torch.where(moved[:, :, None], carried[:, None], state.object_cell)
    held = torch.where(puts, NOTHING_HELD, held)
    return replace(state, position=position, object_cell=object_cell, held=held)


def next_to_person(state: PlayroomState) -> Bool[Tensor, "B K"]:
    """Return which standing objects share an edge with the person's cell."""
    distance = (state.object_cell - state.position[:, None]).abs().sum(dim=2)
    return (distance == 1) & ~_is_held(state.object_kind.shape[1], state.held)


def next_to_each_other(state: PlayroomState) -> Bool[Tensor, "B K K"]:
    """Return which pairs of standing objects share an edge."""
    distance = (state.object_cell[:, :, None] - state.object_cell[:, None]).abs().sum(dim=3)
    standing = ~_is_held(state.object_kind.shape[1], state.held)
    return (distance == 1) & standing[:, :, None] & standing[:, None]


def goal_tensor(goals: Sequence[PlayroomGoal], device: torch.device) -> Int64[Tensor, "B 3"]:
    """Return goals as rows (family, kind, other kind)."""
    rows = [(int(goal.family), goal.kind, goal.other_kind) for goal in goals]
    return torch.tensor(rows, dtype=torch.int64, device=device).reshape(-1, 3)


def goal_reached(state: PlayroomState, goal: Int64[Tensor, "B 3"]) -> Bool[Tensor, " B"]:
    """Return the ground truth: is each room's goal true now?"""
    family, kind, other_kind = goal.unbind(dim=1)
    is_kind = state.object_kind == kind[:, None]
    is_other = state.object_kind == other_kind[:, None]
    held = _is_held(state.object_kind.shape[1], state.held)
    found = (is_kind & next_to_person(state)).any(dim=1)
    lifted = (is_kind & held).any(dim=1)
    pairs = is_kind[:, :, None] & is_other[:, None]
    put = (pairs & next_to_each_other(state)).flatten(1).any(dim=1)
    return torch.stack((found, lifted, put)).gather(0, family[None])[0]  # in Family's order


def _cell(place: Tensor, grid_size: int) -> Tensor:
    return torch.stack((place % grid_size, place // grid_size), dim=-1)


def _is_held(num_objects: int, held: Int64[Tensor, " B"]) -> Bool[Tensor, "B K"]:
    return torch.arange(num_objects, device=held.device) == held[:, None]


def _occupied(state: PlayroomState, cells: Int64[Tensor, "B N 2"]) -> Bool[Tensor, "B N"]:
    """Return which cells hold a standing object."""
    same = (state.object_cell[:, None] == cells[:, :, None]).all(dim=3)
    return (same & ~_is_held(state.object_kind.shape[1], state.held)[:, None]).any(dim=2)


def _draw_kinds(
    seed: Int64[Tensor, " B"], num_objects: int, required: Int64[Tensor, "B R"] | None
) -> Int64[Tensor, "B K"]:
    """Draw distinct kinds; the required ones come first, in their order."""
    if required is None:
        any_kind = torch.ones(NUM_OBJECT_KINDS, dtype=torch.bool, device=seed.device)
        return counter_rng.choose_distinct(seed, num_objects, any_kind)
    if required.shape[1] > num_objects:
        raise ValueError(
            f"the goal needs {required.shape[1]} objects but the room has {num_objects}; "
            "raise num_objects"
        )
    keys = counter_rng.uniform(seed, NUM_OBJECT_KINDS)
    for column in range(required.shape[1]):
        kind = required[:, column]
        rows = (kind >= 0).nonzero()[:, 0]
        keys[rows, kind[rows]] = column - float(required.shape[1])
    return keys.argsort(dim=1, stable=True)[:, :num_objects]
