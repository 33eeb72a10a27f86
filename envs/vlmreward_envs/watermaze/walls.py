"""What one column of a first-person frame shows, for every distance and place on the wall.

Twelve panels of different hue, each with a motif, stand around the pool between pillars. A column
shows one place on the wall at one distance, so all columns there are can be drawn beforehand: each
pixel is the mean over what it covers, by a summed-area table of the wall. Drawing a frame is
looking up its columns.

Axis letters: ``L`` distances, ``U`` places on the wall, ``V`` heights, ``H`` rows of a frame.
"""

import functools
import math
from collections.abc import Callable

import torch
from jaxtyping import Float, Int64, UInt8
from torch import Tensor

from vlmreward_envs.watermaze.arena import ARENA_RADIUS, CLEARANCE

FRAME_HEIGHT, FRAME_WIDTH = 72, 96
FOCAL_LENGTH = FRAME_WIDTH / 2
"""In pixels: the view is 90° wide."""

NUM_PLACES = 576
WALL_HEIGHT = 3.0
EYE_HEIGHT = 1.2

# A ray is at most 45° off the heading, and a wall at least `CLEARANCE` away along it.
_NEAREST = CLEARANCE / math.sqrt(2)
_FARTHEST = 2 * ARENA_RADIUS - CLEARANCE
_DISTANCE_RATIO = 1.014  # at most a quarter of a pixel at the edge of the frame
_NUM_DISTANCES = math.ceil(math.log(_FARTHEST / _NEAREST) / math.log(_DISTANCE_RATIO))

_NUM_HEIGHTS = 150
_MARGIN = 8  # more places than half a pixel covers at the greatest distance
_SUPERSAMPLING = 4
_STEPS_PER_QUADRANT = 1024  # of the stand-in for an angle; some 7 for each place
_CIRCUMFERENCE = 2 * math.pi * ARENA_RADIUS
_TILE, _JOINT, _JOINT_SHADE = 0.3, 0.03, 0.86
_PILLAR, _RIM, _SKIRTING = 0.12, 0.22, 0.25
_STONE_RGB, _SKIRTING_RGB = (226, 222, 210), (58, 70, 88)
_LIGHT, _DARK = (250, 245, 228), (38, 42, 60)
_SKY_RGB = (112, 160, 214), (214, 228, 238)  # at the top of the frame, and at the horizon
_WATER_RGB = (24, 92, 118), (128, 190, 196)  # at the bottom of the frame, and at the horizon
_HAZE_RGB, _HAZE = (206, 220, 230), 0.35  # how much of it lies over the farthest wall

_Motif = Callable[[Tensor, Tensor], Tensor]

_PANELS: tuple[tuple[tuple[int, int, int], tuple[int, int, int], _Motif], ...] = (
    ((206, 52, 48), _LIGHT, lambda x, y: x**2 + y**2 < 0.75**2),
    ((230, 112, 36), _DARK, lambda x, y: x.abs() % 0.8 < 0.4),
    ((240, 170, 40), _DARK, lambda x, y: x.abs() + y.abs() < 0.95),
    ((236, 214, 70), _DARK, lambda x, y: (y + 0.3) % 1.2 < 0.6),
    ((150, 190, 56), _DARK, lambda x, y: ((x + 2.4) // 0.6 + (y + 2.4) // 0.6) % 2 < 1),
    ((58, 158, 78), _LIGHT, lambda x, y: (x.abs() < 0.3) | (y.abs() < 0.3)),
    ((30, 158, 148), _LIGHT, lambda x, y: (x**2 + y**2 < 0.85**2) & (x**2 + y**2 > 0.45**2)),
    ((84, 192, 226), _DARK, lambda x, y: (x + y) % 1.2 < 0.6),
    ((46, 108, 200), _LIGHT, lambda x, y: (y > -0.8) & (x.abs() < 0.55 * (0.9 - y))),
    ((70, 66, 176), _LIGHT, lambda x, y: (y - x.abs()) % 1.0 < 0.5),
    ((138, 62, 178), _LIGHT, lambda x, y: (x.abs() - y.abs()).abs() < 0.3),
    ((212, 70, 142), _LIGHT, lambda x, y: (x.abs() < 0.85) & (y.abs() < 0.85) & (x * y > 0)),
)


def _colour(rgb: tuple[int, int, int]) -> Float[Tensor, "3"]:
    return torch.tensor(rgb, dtype=torch.float64)


@functools.cache
def wall_texture() -> Float[Tensor, "V U 3"]:
    """Draw the wall unrolled, from its foot to its rim; colours are 0 to 255."""
    width = _CIRCUMFERENCE / len(_PANELS)
    line = (torch.arange(NUM_PLACES * _SUPERSAMPLING, dtype=torch.float64) + 0.5) / _SUPERSAMPLING
    place = line * _CIRCUMFERENCE / NUM_PLACES
    rows = (torch.arange(_NUM_HEIGHTS * _SUPERSAMPLING, dtype=torch.float64) + 0.5) / _SUPERSAMPLING
    height = (rows * WALL_HEIGHT / _NUM_HEIGHTS)[:, None]
    x, y = place % width - width / 2, height - WALL_HEIGHT / 2
    panel = (place // width).long()
    in_joint = (place % _TILE < _JOINT) | (height % _TILE < _JOINT)
    wall = torch.zeros(len(rows), len(line), 3, dtype=torch.float64)
    for number, (ground, figure, motif) in enumerate(_PANELS):
        here = panel == number
        is_figure = motif(x[here][None], y).expand(len(rows), -1)
        wall[:, here] = torch.where(is_figure[..., None], _colour(figure), _colour(ground))
    wall = torch.where(in_joint[..., None], wall * _JOINT_SHADE, wall)
    frame = (x.abs() > width / 2 - _PILLAR) | (height > WALL_HEIGHT - _RIM)
    wall = torch.where(frame[..., None], _colour(_STONE_RGB), wall)
    wall = torch.where((height < _SKIRTING)[..., None], _colour(_SKIRTING_RGB), wall)
    light = 0.86 + 0.14 * torch.cos(2 * math.pi * line / NUM_PLACES - 1.0)
    wall = wall * light[:, None]
    samples = (_NUM_HEIGHTS, _SUPERSAMPLING, NUM_PLACES, _SUPERSAMPLING, 3)
    return wall.view(samples).mean(dim=(1, 3))


@functools.cache
def distance_bounds(device: torch.device) -> Float[Tensor, " L"]:
    """Return the distances at which the next row of `column_table` begins."""
    steps = torch.arange(1, _NUM_DISTANCES, dtype=torch.float64)
    return (_NEAREST * _DISTANCE_RATIO**steps).float().to(device)


@functools.cache
def column_table(device: torch.device) -> UInt8[Tensor, "LU H3"]:
    """Draw every column there is: row ``distance * U + place``, with the top pixel first."""
    integral = _integral(wall_texture())
    table = torch.empty(_NUM_DISTANCES, NUM_PLACES, FRAME_HEIGHT * 3, dtype=torch.uint8)
    for number in range(_NUM_DISTANCES):
        columns = _columns_at(_NEAREST * _DISTANCE_RATIO ** (number + 0.5), integral)
        table[number] = columns.round().byte().permute(1, 0, 2).flatten(1)
    return table.flatten(0, 1).to(device)


def _integral(texture: Float[Tensor, "V U 3"]) -> Float[Tensor, "V1 U3 3"]:
    """Sum the wall from its foot, and around the pool with a margin on both sides."""
    around = torch.cat((texture[:, -_MARGIN:], texture, texture[:, :_MARGIN]), dim=1)
    return torch.nn.functional.pad(around.cumsum(0).cumsum(1), (0, 0, 1, 0, 1, 0))


def _columns_at(distance: float, integral: Tensor) -> Float[Tensor, "H U 3"]:
    """Draw the wall as seen from a distance, between sky and water."""
    pixel = distance / FOCAL_LENGTH  # in metres on the wall
    edge = EYE_HEIGHT + pixel * (FRAME_HEIGHT / 2 - torch.arange(FRAME_HEIGHT + 1).double())
    width = max(1.0, pixel * NUM_PLACES / _CIRCUMFERENCE)
    middle = torch.arange(NUM_PLACES).double() + _MARGIN + 0.5
    on_wall = edge.clamp(0.0, WALL_HEIGHT)
    sums = _at(integral, on_wall * _NUM_HEIGHTS / WALL_HEIGHT, dim=0)
    sums = _at(sums, middle + width / 2, dim=1) - _at(sums, middle - width / 2, dim=1)
    seen = (sums[:-1] - sums[1:]) / width * (WALL_HEIGHT / _NUM_HEIGHTS)
    wall = ((on_wall[:-1] - on_wall[1:]) / pixel)[:, None, None]
    above = ((edge - WALL_HEIGHT).clamp(min=0).diff().neg() / pixel)[:, None, None]
    haze = _HAZE * distance / _FARTHEST
    hazy = (1 - haze) * seen / pixel + haze * wall * _colour(_HAZE_RGB)
    sky, water = _gradients()
    return hazy + above * sky[:, None] + (1 - wall - above) * water[:, None]


def _gradients() -> tuple[Float[Tensor, "H 3"], Float[Tensor, "H 3"]]:
    """Shade sky and water by the row, in whole numbers: farther is nearer to the horizon."""
    from_horizon = (torch.arange(FRAME_HEIGHT).double() + 0.5 - FRAME_HEIGHT / 2).abs()
    weight = (from_horizon / (FRAME_HEIGHT / 2))[:, None]
    sky, water = (
        (weight * _colour(near) + (1 - weight) * _colour(far)).round()
        for near, far in (_SKY_RGB, _WATER_RGB)
    )
    return sky, water


def _at(sums: Tensor, index: Float[Tensor, " I"], dim: int) -> Tensor:
    """Return sums at places between the whole numbers, linearly interpolated along an axis."""
    below = index.floor().clamp(max=sums.shape[dim] - 2)
    shape = [1] * sums.dim()
    shape[dim] = -1
    first = sums.index_select(dim, below.long())
    second = sums.index_select(dim, below.long() + 1)
    return first + (index - below).view(shape) * (second - first)


@functools.cache
def _place_table(device: torch.device) -> Int64[Tensor, " Q"]:
    """Return the place on the wall for every step of the angle that `wall_places` computes."""
    size = 4 * _STEPS_PER_QUADRANT
    pseudo = (torch.arange(size).double() + 0.5) / _STEPS_PER_QUADRANT
    quadrant, part = pseudo.floor(), pseudo % 1
    angle = torch.atan2(part, 1 - part) + quadrant * math.pi / 2
    return (angle / (2 * math.pi) * NUM_PLACES).long().to(device)


def wall_places(points: Float[Tensor, "*N 2"]) -> Int64[Tensor, "*N"]:
    """Return the place on the wall (0 to ``U - 1``, anticlockwise from x) behind every point.

    It looks up the angle by a stand-in that needs no trigonometry: along the edge of the square
    ``|x| + |y| = 1``.
    """
    x, y = points.unbind(-1)
    share = x / (x.abs() + y.abs())
    pseudo = torch.where(y >= 0, 1 - share, 3 + share)
    index = (pseudo * _STEPS_PER_QUADRANT).long().clamp(max=4 * _STEPS_PER_QUADRANT - 1)
    return _place_table(points.device)[index]
