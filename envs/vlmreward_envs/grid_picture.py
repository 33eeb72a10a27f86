"""Frames of grids seen from above: a dark floor in a wall, and things laid onto its cells.

Axis letters: ``N`` grids, ``H W`` pixels of a frame, ``P`` pixels along a cell.
"""

import functools

import torch
from jaxtyping import Bool, Float, Int64, UInt8
from torch import Tensor

from vlmreward_envs.sprites import Shape, object_sprite, person_sprite

FRAME_SIZE = 224
_SMALLEST_WALL = 4
_WALL_RGB = (28, 30, 38)
_FLOOR_RGB = ((92, 97, 110), (102, 107, 120))

Sprite = Float[Tensor, "P P 4"]
"""Coverage, 0 to 1, then RGB, 0 to 255."""


class GridPicture:
    """Draws ``N`` grids of ``size``² cells, at 224×224 pixels each.

    Args:
        num_grids: N.
        size: Cells along each side.
        device: Where to draw.
    """

    def __init__(self, num_grids: int, size: int, device: torch.device) -> None:
        self._size = size
        self._cell_size = (FRAME_SIZE - 2 * _SMALLEST_WALL) // size
        self._device = device
        self._rows = torch.arange(num_grids, device=device)
        tile = torch.arange(size, device=device)
        floor = torch.tensor(_FLOOR_RGB, dtype=torch.uint8, device=device)[
            (tile[:, None] + tile) % 2
        ]
        shape = (num_grids, size, size, self._cell_size, self._cell_size, 3)
        self._cells = floor[:, :, None, None].expand(shape).clone()

    def put(
        self,
        position: Int64[Tensor, "N 2"],
        shape: Shape,
        rgb: tuple[int, int, int],
        visible: Bool[Tensor, " N"] | None = None,
        *,
        in_hand: bool = False,
    ) -> None:
        """Lay a coloured thing onto one cell of every grid, where ``visible``."""
        self._blend(position, _thing(shape, rgb, self._cell_size, in_hand), visible)

    def put_person(self, position: Int64[Tensor, "N 2"]) -> None:
        """Lay the agent onto one cell of every grid."""
        self._blend(position, _person(self._cell_size), None)

    def frames(self) -> UInt8[Tensor, "N H W 3"]:
        """Return the pictures, as uint8 RGB 0–255."""
        inside = self._size * self._cell_size
        wall = (FRAME_SIZE - inside) // 2
        shape = (len(self._rows), FRAME_SIZE, FRAME_SIZE, 3)
        frames = torch.tensor(_WALL_RGB, dtype=torch.uint8, device=self._device).repeat(
            *shape[:3], 1
        )
        room = slice(wall, wall + inside)
        board = self._cells.permute(0, 1, 3, 2, 4, 5)
        frames[:, room, room] = board.reshape(-1, inside, inside, 3)
        return frames

    def _blend(
        self, position: Int64[Tensor, "N 2"], sprite: Sprite, visible: Bool[Tensor, " N"] | None
    ) -> None:
        where = self._rows, position[:, 1], position[:, 0]
        if visible is not None:
            where = where[0][visible], where[1][visible], where[2][visible]
        sprite = sprite.to(self._device)
        below = self._cells[where].float()
        self._cells[where] = (below + sprite[..., :1] * (sprite[..., 1:] - below)).byte()


@functools.cache
def _thing(shape: Shape, rgb: tuple[int, int, int], size: int, in_hand: bool) -> Sprite:
    """Draw a thing; in hand it is smaller, towards the upper right."""
    scale, shift = (0.6, 0.17) if in_hand else (0.9, 0.0)
    coverage, shade = object_sprite(shape, size, scale, shift)
    return torch.cat((coverage[..., None], shade[..., None] * torch.tensor(rgb)), dim=-1)


@functools.cache
def _person(size: int) -> Sprite:
    return person_sprite(size).permute(1, 2, 0).contiguous()
