"""Draws Playrooms as RGB frames, thousands at once on any torch device.

Axis letters: ``B`` rooms, ``K`` objects in a room, ``H W`` pixels, ``P`` pixels along a cell.
"""

import functools

import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from vlmreward_envs import sprites
from vlmreward_envs.playroom.dynamics import (
    MAX_OFFSET,
    NUM_FLOORS,
    NUM_SIZES,
    PlayroomConfig,
    PlayroomState,
)
from vlmreward_envs.playroom.language import COLOURS, SHAPES

_RGB = {
    "red": (225, 40, 40),
    "green": (40, 175, 60),
    "blue": (50, 80, 235),
    "yellow": (250, 220, 40),
    "purple": (165, 50, 200),
    "white": (250, 250, 250),
}
_FLOOR_RGB = (
    (150, 150, 150),
    (170, 140, 110),
    (115, 135, 150),
    (125, 145, 115),
    (160, 130, 140),
    (110, 110, 120),
)
_WALL_SHADE = 0.45
_TILE_SHADES = (0.94, 1.0)
_OBJECT_SCALES = (0.74, 0.82, 0.9)
_HELD_SCALE = 0.62
_HELD_SHIFT = 0.15
_MIN_FRAME_SIZE = 32
_ROOMS_PER_PASS = 128  # keeps the float canvas in the processor's cache


class PlayroomRenderer:
    """Draws the rooms of one configuration at one frame size.

    The frame is a wall around ``grid_size``² cells of equal, whole pixels. Floor colour, object
    sizes, offsets of up to one 96-pixel-frame pixel, and the light (brightness .7 to 1.05, slope
    up to ±15 % over the frame) come from the state.

    Args:
        config: The rooms' configuration.
        frame_size: Height and width in pixels, at least 32 and at least 4 pixels a cell.
        device: Where to draw.

    Raises:
        ValueError: ``frame_size`` is too small.

    Example:
        >>> config = PlayroomConfig()
        >>> state = reset_rooms(config, torch.arange(2), torch.zeros(2, dtype=torch.long))
        >>> PlayroomRenderer(config, frame_size=96)(state).shape
        torch.Size([2, 96, 96, 3])
    """

    def __init__(
        self,
        config: PlayroomConfig,
        frame_size: int = 96,
        device: torch.device | str = "cpu",
    ) -> None:
        smallest = max(_MIN_FRAME_SIZE, 4 * config.grid_size + 4)
        if frame_size < smallest:
            raise ValueError(
                f"frame_size must be at least {smallest} pixels for a grid of "
                f"{config.grid_size} cells, got {frame_size}"
            )
        self.frame_size = frame_size
        self.device = torch.device(device)
        wall = max(MAX_OFFSET, round(0.02 * frame_size))
        self.cell_size = (frame_size - 2 * wall) // config.grid_size
        self._origin = (frame_size - self.cell_size * config.grid_size) // 2
        self._offset_pixels = max(1, round(frame_size / 96))
        self._bank = _sprite_bank(self.cell_size).to(self.device)
        self._held_bank = _held_sprite_bank(self.cell_size).to(self.device)
        self._person = sprites.person_sprite(self.cell_size).permute(1, 2, 0).to(self.device)
        self._object_rgb = torch.tensor([_RGB[name] for name in COLOURS], device=self.device)
        self._floor = self._draw_floors(config.grid_size).to(self.device)
        slope = torch.linspace(-1.0, 1.0, frame_size, device=self.device)
        self._slopes = slope.view(1, 1, -1, 1), slope.view(1, -1, 1, 1)

    def __call__(self, state: PlayroomState) -> UInt8[Tensor, "B H W 3"]:
        """Draw every room of ``state``, as uint8 RGB 0–255."""
        num_rooms = len(state)
        shape = (num_rooms, self.frame_size, self.frame_size, 3)
        frames = torch.empty(shape, dtype=torch.uint8, device=self.device)
        for start in range(0, num_rooms, _ROOMS_PER_PASS):
            rooms = slice(start, start + _ROOMS_PER_PASS)
            frames[rooms] = self._draw(state[rooms])
        return frames

    def _draw(self, state: PlayroomState) -> Float[Tensor, "B H W 3"]:
        canvas = self._floor[state.floor]
        rooms = torch.arange(len(state), device=self.device)
        colour, shape = state.object_kind // len(SHAPES), state.object_kind % len(SHAPES)
        rgb = self._object_rgb[colour].float()
        for index in range(state.object_kind.shape[1]):
            sprite = self._bank[shape[:, index], state.object_size[:, index]]
            standing = (state.held != index).view(-1, 1, 1)
            offset = state.object_offset[:, index] * self._offset_pixels
            corner = state.object_cell[:, index] * self.cell_size + offset
            colours = sprite[..., 1:] * rgb[:, index, None, None]
            self._blend(canvas, corner, sprite[..., 0] * standing, colours)
        corner = state.position * self.cell_size
        self._blend(canvas, corner, self._person[..., 0], self._person[..., 1:])
        held = state.held.clamp(min=0)
        sprite = self._held_bank[shape[rooms, held]]
        visible = (state.held >= 0).view(-1, 1, 1)
        colours = sprite[..., 1:] * rgb[rooms, held][:, None, None]
        self._blend(canvas, corner, sprite[..., 0] * visible, colours)
        return self._lit(canvas, state)

    def _blend(self, canvas: Tensor, corner: Tensor, coverage: Tensor, colours: Tensor) -> None:
        """Lay one cell-sized sprite per room over the canvas, its corner given in floor pixels."""
        pixel = torch.arange(self.cell_size, device=self.device)
        x = (self._origin + corner[:, 0, None] + pixel)[:, None, :]
        y = (self._origin + corner[:, 1, None] + pixel)[:, :, None]
        index = (y * self.frame_size + x).flatten(1)[..., None].expand(-1, -1, 3)
        flat = canvas.view(len(canvas), -1, 3)
        below = flat.gather(1, index)
        shape = (-1, self.cell_size**2)
        weight = coverage.reshape(*shape, 1)
        above = colours.reshape(*shape, 3)
        flat.scatter_(1, index, below + weight * (above - below))

    def _lit(self, canvas: Tensor, state: PlayroomState) -> Tensor:
        """Multiply by the light: a brightness times a slope, clipped to 0–255."""
        light = (state.light.float() / 255).view(-1, 3, 1, 1, 1)
        brightness = 0.7 + 0.35 * light[:, 0]
        slope_x, slope_y = 0.3 * (light[:, 1] - 0.5), 0.3 * (light[:, 2] - 0.5)
        field = brightness * (1 + slope_x * self._slopes[0] + slope_y * self._slopes[1])
        return canvas.mul_(field).clamp_(0, 255)

    def _draw_floors(self, grid_size: int) -> Float[Tensor, "F H W 3"]:
        """Draw the empty room in each floor colour: a faint checkerboard inside a dark wall."""
        pixel = torch.arange(self.frame_size) - self._origin
        cell = pixel.div(self.cell_size, rounding_mode="floor")
        inside = (cell >= 0) & (cell < grid_size)
        tile = torch.tensor(_TILE_SHADES)[(cell[:, None] + cell) % 2]
        shade = torch.where(inside[:, None] & inside, tile, _WALL_SHADE)
        floors = torch.tensor(_FLOOR_RGB).float().view(NUM_FLOORS, 1, 1, 3)
        return floors * shade[..., None]


@functools.cache
def _sprite_bank(cell_size: int) -> Float[Tensor, "S Z P P 2"]:
    bank = [
        [sprites.object_sprite(shape, cell_size, _OBJECT_SCALES[size]) for size in range(NUM_SIZES)]
        for shape in range(len(SHAPES))
    ]
    return torch.stack([torch.stack(row) for row in bank]).permute(0, 1, 3, 4, 2).contiguous()


@functools.cache
def _held_sprite_bank(cell_size: int) -> Float[Tensor, "S P P 2"]:
    """Draw the objects in hand: smaller, towards the upper right of the person."""
    bank = [
        sprites.object_sprite(shape, cell_size, _HELD_SCALE, _HELD_SHIFT)
        for shape in range(len(SHAPES))
    ]
    return torch.stack(bank).permute(0, 2, 3, 1).contiguous()
