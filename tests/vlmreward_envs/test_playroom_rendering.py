from dataclasses import replace

import pytest
import torch

from vlmreward_envs.playroom import (
    Action,
    PlayroomConfig,
    PlayroomRenderer,
    PlayroomState,
    reset_rooms,
    step_rooms,
)
from vlmreward_envs.playroom.language import COLOURS, NUM_OBJECT_KINDS, OBJECT_NAMES, SHAPES
from vlmreward_envs.sprites import object_sprite

CONFIG = PlayroomConfig()
BRIGHTEST_EVEN = torch.tensor([[255, 128, 128]])


def plain_room() -> PlayroomState:
    state = reset_rooms(CONFIG, torch.tensor([3]), torch.tensor([0]))
    cells = torch.tensor([[[0, 0], [2, 0], [4, 0], [6, 0], [6, 6]]])
    return replace(
        state,
        object_cell=cells,
        object_offset=torch.zeros_like(cells),
        position=torch.tensor([[3, 3]]),
        light=BRIGHTEST_EVEN,
    )


@pytest.mark.parametrize("frame_size", [48, 64, 96, 128, 224])
def test_shape_and_dtype_at_any_size(frame_size: int) -> None:
    frames = PlayroomRenderer(CONFIG, frame_size)(plain_room())
    assert frames.shape == (1, frame_size, frame_size, 3)
    assert frames.dtype == torch.uint8
    assert frames.float().std() > 5


def test_too_small_a_frame_is_refused() -> None:
    with pytest.raises(ValueError, match="frame_size must be at least 32"):
        PlayroomRenderer(CONFIG, 16)


@pytest.mark.parametrize("name", OBJECT_NAMES)
def test_an_object_shows_its_colour_in_its_cell_only(name: str) -> None:
    renderer = PlayroomRenderer(CONFIG, 96)
    state = plain_room()
    others = [k for k in range(NUM_OBJECT_KINDS) if k != OBJECT_NAMES.index(name)][:4]
    state = replace(state, object_kind=torch.tensor([[OBJECT_NAMES.index(name), *others]]))
    moved_cells = state.object_cell.clone()
    moved_cells[0, 0] = torch.tensor([1, 5])
    before = renderer(state)[0].long()
    after = renderer(replace(state, object_cell=moved_cells))[0].long()
    changed = ((before - after).abs().sum(dim=2) > 0).nonzero()
    cell = (changed - renderer._origin) // renderer.cell_size
    assert {tuple(row) for row in cell.tolist()} <= {(0, 0), (5, 1)}
    # The strongest pixel of the object is near its colour: the same channels are bright.
    patch = after[changed[cell[:, 0] == 5][:, 0], changed[cell[:, 0] == 5][:, 1]]
    expected = {
        "red": (1, 0, 0),
        "green": (0, 1, 0),
        "blue": (0, 0, 1),
        "yellow": (1, 1, 0),
        "purple": (1, 0, 1),
        "white": (1, 1, 1),
    }[name.split(maxsplit=1)[0]]
    bright = torch.tensor(expected, dtype=torch.bool)
    contrast = patch[:, bright].min(dim=1).values
    if not bright.all():
        contrast = contrast - patch[:, ~bright].max(dim=1).values
    assert contrast.max() > 60


def test_shapes_differ_from_each_other() -> None:
    sprites = [object_sprite(shape, 13, 0.82)[0] for shape in range(len(SHAPES))]
    for index, first in enumerate(sprites):
        assert first.min() >= 0
        assert first.max() <= 1
        for second in sprites[index + 1 :]:
            assert (first - second).abs().sum() > 8  # of 169 pixels
    assert len(COLOURS) == len(SHAPES) == 6


def test_frame_depends_on_position_alone_while_nothing_is_lifted() -> None:
    renderer = PlayroomRenderer(CONFIG, 96)
    room = plain_room()
    walked = room
    for action in (Action.RIGHT, Action.UP, Action.LEFT, Action.DOWN):
        walked = step_rooms(CONFIG, walked, torch.tensor([int(action)]))
    assert torch.equal(renderer(room), renderer(walked))


def test_a_held_object_moves_to_the_person() -> None:
    renderer = PlayroomRenderer(CONFIG, 96)
    room = replace(plain_room(), position=torch.tensor([[1, 0]]))
    lifted = step_rooms(CONFIG, room, torch.tensor([int(Action.PICK_UP)]))
    assert lifted.held.tolist() == [0]
    difference = (renderer(room)[0].long() - renderer(lifted)[0].long()).abs().sum(dim=2) > 0
    cell = (difference.nonzero() - renderer._origin) // renderer.cell_size
    assert {tuple(row) for row in cell.tolist()} == {(0, 0), (0, 1)}


def test_frames_do_not_depend_on_the_batch() -> None:
    state = reset_rooms(CONFIG, torch.arange(300), torch.zeros(300, dtype=torch.int64))
    renderer = PlayroomRenderer(CONFIG, 96)
    together = renderer(state)
    assert torch.equal(together[150:170], renderer(state[150:170]))


def test_rooms_look_different() -> None:
    state = reset_rooms(CONFIG, torch.arange(50), torch.zeros(50, dtype=torch.int64))
    frames = PlayroomRenderer(CONFIG, 96)(state).float()
    means = frames.mean(dim=(1, 2, 3))
    assert means.std() > 8  # brightness
    assert len(set(state.floor.tolist())) == 6
