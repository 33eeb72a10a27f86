from dataclasses import fields, replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from vlmreward_envs.playroom import (
    Action,
    PlayroomConfig,
    PlayroomRooms,
    PlayroomState,
    goal_reached,
    parse_goal,
    reset_rooms,
    step_rooms,
)
from vlmreward_envs.playroom.dynamics import goal_tensor
from vlmreward_envs.playroom.language import OBJECT_NAMES

CONFIG = PlayroomConfig()


def a_room(
    position: tuple[int, int], objects: dict[str, tuple[int, int]], held: int = -1
) -> PlayroomState:
    """One room by hand; objects are named in slot order."""
    config = PlayroomConfig(num_objects=len(objects))
    state = reset_rooms(config, torch.tensor([0]), torch.tensor([0]))
    return replace(
        state,
        position=torch.tensor([position]),
        object_cell=torch.tensor([list(objects.values())]),
        object_kind=torch.tensor([[OBJECT_NAMES.index(name) for name in objects]]),
        held=torch.tensor([held]),
    )


def act(state: PlayroomState, *actions: Action) -> PlayroomState:
    for action in actions:
        state = step_rooms(CONFIG, state, torch.tensor([int(action)]))
    return state


def is_true(state: PlayroomState, sentence: str) -> bool:
    goal = goal_tensor([parse_goal(sentence)], torch.device("cpu"))
    return bool(goal_reached(state, goal))


@pytest.mark.parametrize(
    ("action", "expected"),
    [
        (Action.STAY, (3, 3)),
        (Action.LEFT, (2, 3)),
        (Action.RIGHT, (4, 3)),
        (Action.UP, (3, 2)),
        (Action.DOWN, (3, 4)),
    ],
)
def test_moves(action: Action, expected: tuple[int, int]) -> None:
    state = act(a_room((3, 3), {"red ball": (0, 0)}), action)
    assert tuple(state.position[0].tolist()) == expected


def test_walls_and_objects_block() -> None:
    room = a_room((0, 0), {"red ball": (1, 0)})
    assert act(room, Action.LEFT).position.tolist() == [[0, 0]]
    assert act(room, Action.UP).position.tolist() == [[0, 0]]
    assert act(room, Action.RIGHT).position.tolist() == [[0, 0]]
    assert act(room, Action.DOWN).position.tolist() == [[0, 1]]


@pytest.mark.parametrize(
    ("cell", "expected"),
    [
        ((3, 2), True),
        ((4, 3), True),
        ((3, 4), True),
        ((2, 3), True),
        ((2, 2), False),
        ((5, 3), False),
    ],
)
def test_find_means_sharing_an_edge(cell: tuple[int, int], expected: bool) -> None:
    state = a_room((3, 3), {"blue key": cell, "red ball": (0, 0)})
    assert is_true(state, "the person is next to the blue key") is expected
    assert not is_true(state, "the person is next to the red ball")
    assert not is_true(state, "the person is next to the blue cup")


def test_lift_carry_and_put() -> None:
    state = a_room((2, 3), {"green cup": (3, 3), "yellow box": (5, 3)})
    lifted = act(state, Action.PICK_UP)
    assert is_true(lifted, "the person is holding the green cup")
    assert not is_true(lifted, "the person is next to the green cup")
    carried = act(lifted, Action.RIGHT)  # the cell of the lifted cup is free now
    assert carried.position.tolist() == [[3, 3]]
    assert carried.object_cell[0, 0].tolist() == [3, 3]
    placed = act(carried, Action.PUT_DOWN)  # right of the person: (4, 3), beside the box
    assert placed.held.tolist() == [-1]
    assert placed.object_cell[0, 0].tolist() == [4, 3]
    assert is_true(placed, "the green cup is next to the yellow box")
    assert is_true(placed, "the yellow box is next to the green cup")
    assert not is_true(placed, "the person is holding the green cup")


def test_a_held_object_is_next_to_nothing() -> None:
    state = act(a_room((2, 3), {"green cup": (2, 2), "yellow box": (3, 3)}), Action.PICK_UP)
    assert state.held.tolist() == [0]
    assert not is_true(state, "the green cup is next to the yellow box")


def test_full_hands_lift_nothing_more_and_no_room_keeps_it_in_hand() -> None:
    corner = a_room((0, 0), {"red ball": (0, 0), "red box": (1, 0), "red key": (0, 1)}, held=0)
    assert act(corner, Action.PICK_UP).held.tolist() == [0]
    assert act(corner, Action.PUT_DOWN).held.tolist() == [0]


def test_put_down_takes_the_first_free_neighbour_in_order() -> None:
    state = a_room((3, 3), {"red ball": (3, 3), "red box": (4, 3), "red key": (3, 4)}, held=0)
    assert act(state, Action.PUT_DOWN).object_cell[0, 0].tolist() == [2, 3]


@given(seed=st.integers(0, 2**62 - 1), num_objects=st.integers(1, 8), steps=st.integers(0, 40))
def test_invariants_hold_along_random_walks(seed: int, num_objects: int, steps: int) -> None:
    config = PlayroomConfig(num_objects=num_objects)
    seeds = torch.tensor([seed, seed + 1, seed + 2])
    state = reset_rooms(config, seeds, torch.zeros(3, dtype=torch.int64))
    kinds = state.object_kind.clone()
    actions = torch.randint(0, 7, (steps, 3), generator=torch.Generator().manual_seed(seed % 2**31))
    for action in actions:
        state = step_rooms(config, state, action)
    assert torch.equal(state.object_kind, kinds)
    for room in range(3):
        assert len(set(kinds[room].tolist())) == num_objects
        standing = [
            tuple(cell)
            for index, cell in enumerate(state.object_cell[room].tolist())
            if index != state.held[room]
        ]
        cells = [*standing, tuple(state.position[room].tolist())]
        assert len(set(cells)) == len(cells)
        assert all(0 <= x < 7 and 0 <= y < 7 for x, y in cells)


def test_a_room_is_the_same_alone_and_among_others() -> None:
    goals = ["the person is holding the red ball", "the green cup is next to the yellow box"]
    many = PlayroomRooms(16, goals)
    many.reset(torch.arange(16))
    one = PlayroomRooms(1, goals)
    actions = torch.randint(0, 7, (30, 16), generator=torch.Generator().manual_seed(0))
    one.reset(torch.tensor([11]))
    for action in actions:
        many.step(action)
        one.step(action[11:12])
    for field in fields(PlayroomState):
        mine, theirs = getattr(one.state, field.name), getattr(many.state, field.name)
        assert torch.equal(mine[0], theirs[11]), field.name
    assert torch.equal(one.render()[0], many.render()[11])


def test_goal_objects_are_in_the_room_and_goals_vary() -> None:
    goals = ["the person is next to the red ball", "the green cup is next to the yellow box"]
    rooms = PlayroomRooms(200, goals)
    rooms.reset(torch.arange(200))
    for room in range(200):
        goal = parse_goal(goals[int(rooms.goal_index[room])])
        assert set(goal.kinds) <= set(rooms.state.object_kind[room].tolist())
    assert 70 < int(rooms.goal_index.sum()) < 130


def test_fixed_room_keeps_the_room_but_not_the_start() -> None:
    rooms = PlayroomRooms(8, config=PlayroomConfig(fixed_room=True))
    rooms.reset(torch.arange(8))
    first = rooms.state
    rooms.reset()
    assert torch.equal(first.object_cell, rooms.state.object_cell)
    assert torch.equal(first.light, rooms.state.light)
    assert not torch.equal(first.position, rooms.state.position)


def test_centre_start() -> None:
    rooms = PlayroomRooms(300, config=PlayroomConfig(start_at_centre=True))
    rooms.reset(torch.arange(300))
    assert (rooms.state.position == 3).all()
    assert not (rooms.state.object_cell == 3).all(dim=2).any()


def test_masked_reset_leaves_the_other_rooms_alone() -> None:
    rooms = PlayroomRooms(6)
    rooms.reset(torch.arange(6))
    rooms.step(torch.full((6,), int(Action.LEFT)))
    before = rooms.state
    mask = torch.tensor([True, False] * 3)
    rooms.reset(mask=mask)
    for field in fields(PlayroomState):
        assert torch.equal(
            getattr(rooms.state, field.name)[1::2], getattr(before, field.name)[1::2]
        )
    assert rooms.num_steps.tolist() == [0, 1] * 3
    assert not torch.equal(rooms.state.object_cell[::2], before.object_cell[::2])


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: PlayroomConfig(grid_size=2), "grid_size"),
        (lambda: PlayroomConfig(num_objects=0), "num_objects"),
        (lambda: PlayroomRooms(0), "got a batch of 0"),
        (lambda: PlayroomRooms(1, []), "no goals"),
        (lambda: PlayroomRooms(1, "the person is next to the red bal"), "the red ball"),
        (
            lambda: PlayroomRooms(
                1, "the red ball is next to the red box", config=PlayroomConfig(num_objects=1)
            ),
            "raise num_objects",
        ),
    ],
)
def test_bad_settings_are_named(make: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()  # type: ignore[operator]


def test_state_selection_matches_numpy() -> None:
    state = reset_rooms(CONFIG, torch.arange(5), torch.zeros(5, dtype=torch.int64))
    chosen = state[torch.tensor([4, 1])]
    assert np.array_equal(chosen.position.numpy(), state.position.numpy()[[4, 1]])
