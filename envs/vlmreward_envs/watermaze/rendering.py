"""The bird's-eye picture of a Watermaze, for people: the agent never sees it.

Edges are smoothed by distance: a pixel is covered by as much as its middle lies inside.

Axis letters: ``N`` pools, ``H W`` pixels.
"""

import functools
import math

import torch
from jaxtyping import Bool, Float, Int64, UInt8
from torch import Tensor

from vlmreward_envs.watermaze.arena import (
    ARENA_RADIUS,
    PLATFORM_RADIUS,
    heading_vectors,
    squared_length,
)
from vlmreward_envs.watermaze.walls import wall_places, wall_texture

_FRAME_SIZE = 224
_PIXELS_PER_METRE = 18.0
_WALL_WIDTH = 1.0
_SUPERSAMPLING = 4
_PICTURES_PER_PASS = 32

_AROUND_RGB = (28, 30, 38)
_MIDDLE_RGB, _SHORE_RGB = (104, 176, 186), (58, 138, 156)
_VIEW_RGB, _VIEW_WEIGHT = (255, 255, 255), 0.28
_PLATFORM_RGB = (250, 220, 40)
_SPENT_RGB = (195, 195, 200)
_AGENT_RGB = (250, 245, 228)
_OUTLINE_RGB, _OUTLINE = (30, 34, 48), 0.09


def draw_pools(
    position: Float[Tensor, "N 2"],
    heading: Int64[Tensor, " N"],
    platform: Float[Tensor, "N 2"],
    is_spent: Bool[Tensor, " N"],
) -> UInt8[Tensor, "N H W 3"]:
    """Draw agents, what they have in view, and the platforms; one that is spent is grey."""
    shape = (len(position), _FRAME_SIZE, _FRAME_SIZE, 3)
    frames = torch.empty(shape, dtype=torch.uint8, device=position.device)
    for start in range(0, len(position), _PICTURES_PER_PASS):
        rows = slice(start, start + _PICTURES_PER_PASS)
        frames[rows] = _draw(position[rows], heading[rows], platform[rows], is_spent[rows])
    return frames


def _draw(position: Tensor, heading: Tensor, platform: Tensor, is_spent: Tensor) -> Tensor:
    device = position.device
    points, empty = _points(device), _empty_pool(device)
    offset = points - position[:, None, None]
    direction = heading_vectors(device)[heading][:, None, None]
    ahead = offset[..., 0] * direction[..., 0] + offset[..., 1] * direction[..., 1]
    aside = (offset[..., 1] * direction[..., 0] - offset[..., 0] * direction[..., 1]).abs()

    from_middle = squared_length(points).sqrt() - ARENA_RADIUS
    view = torch.maximum((aside - ahead) / math.sqrt(2), from_middle)
    from_platform = squared_length(points - platform[:, None, None]).sqrt() - PLATFORM_RADIUS
    platform_rgb = torch.tensor((_PLATFORM_RGB, _SPENT_RGB), device=device)[is_spent.long()]
    agent = _arrow(ahead, aside)

    picture = empty.expand(len(position), -1, -1, -1)
    picture = _over(picture, _VIEW_RGB, view, _VIEW_WEIGHT)
    picture = _over(picture, _OUTLINE_RGB, from_platform)
    picture = _over(picture, platform_rgb[:, None, None].float(), from_platform + _OUTLINE)
    picture = _over(picture, _OUTLINE_RGB, agent - _OUTLINE)
    return _over(picture, _AGENT_RGB, agent).round().byte()


def _arrow(ahead: Tensor, aside: Tensor) -> Tensor:
    """Return how far outside an arrow-head that points ahead each pixel is, in metres."""
    tip, notch, back, half_width = 0.62, -0.25, -0.42, 0.36
    side = half_width * (ahead - tip) + (tip - back) * aside
    rear = half_width * (notch - ahead) - (notch - back) * aside
    return torch.maximum(
        side / math.hypot(half_width, tip - back), rear / math.hypot(half_width, notch - back)
    )


def _over(
    picture: Tensor, rgb: Tensor | tuple[int, int, int], distance: Tensor, weight: float = 1.0
) -> Tensor:
    """Lay a colour over what is inside, where the signed distance (in metres) is negative."""
    colour = torch.as_tensor(rgb, dtype=torch.float32, device=picture.device)
    coverage = weight * (0.5 - distance * _PIXELS_PER_METRE).clamp(0, 1)[..., None]
    return picture + coverage * (colour - picture)


@functools.cache
def _points(device: torch.device, pixels: int = _FRAME_SIZE) -> Float[Tensor, "H W 2"]:
    """Return where the middle of every pixel is, y upwards."""
    metres = _FRAME_SIZE / _PIXELS_PER_METRE
    line = ((torch.arange(pixels, device=device) + 0.5) / pixels - 0.5) * metres
    return torch.stack((line.expand(pixels, -1), -line[:, None].expand(-1, pixels)), dim=-1)


@functools.cache
def _empty_pool(device: torch.device) -> Float[Tensor, "H W 3"]:
    """Draw the water, and around it the wall as if it had fallen over outwards."""
    points = _points(torch.device("cpu"), _FRAME_SIZE * _SUPERSAMPLING)
    distance = squared_length(points).sqrt()[..., None]
    texture = wall_texture().float()
    height = (distance[..., 0] - ARENA_RADIUS) / _WALL_WIDTH * len(texture)
    wall = texture[height.long().clamp(0, len(texture) - 1), wall_places(points)]
    middle, shore, around = (
        torch.tensor(rgb).float() for rgb in (_MIDDLE_RGB, _SHORE_RGB, _AROUND_RGB)
    )
    pool = middle + (distance / ARENA_RADIUS).clamp(max=1.0) * (shore - middle)
    pool = torch.where(distance > ARENA_RADIUS, wall, pool)
    pool = torch.where(distance > ARENA_RADIUS + _WALL_WIDTH, around, pool)
    shape = (_FRAME_SIZE, _SUPERSAMPLING, _FRAME_SIZE, _SUPERSAMPLING, 3)
    return pool.view(shape).mean(dim=(1, 3)).to(device)
