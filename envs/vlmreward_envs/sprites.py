"""Pictures of things: small sprites, drawn by supersampling plain geometry.

Every shape is a predicate on the unit square, with x to the right, y downwards and the origin in
the middle; its outline is the same predicate on a slightly larger shape.

Axis letters: ``P`` pixels along one side of a sprite.
"""

import math
from collections.abc import Callable
from enum import IntEnum

import torch
from jaxtyping import Float
from torch import Tensor

_SUPERSAMPLING = 8
_OUTLINE = 1.2  # the outline reaches this many times as far as the body
_OUTLINE_SHADE = 0.3

_Predicate = Callable[[Tensor, Tensor], Tensor]


class Shape(IntEnum):
    """Every shape there is a sprite of; the first six are the Playroom's."""

    BALL = 0
    BOX = 1
    KEY = 2
    CUP = 3
    STAR = 4
    CONE = 5
    DOOR = 6


def _ball(x: Tensor, y: Tensor) -> Tensor:
    return x**2 + y**2 < 0.45**2


def _box(x: Tensor, y: Tensor) -> Tensor:
    return (x.abs() < 0.42) & (y.abs() < 0.42)


def _key(x: Tensor, y: Tensor) -> Tensor:
    radius = (x + 0.24) ** 2 + y**2
    ring = (radius < 0.23**2) & (radius > 0.08**2)
    shaft = (x > -0.05) & (x < 0.46) & (y.abs() < 0.075)
    teeth = (((x - 0.4).abs() < 0.06) | ((x - 0.22).abs() < 0.06)) & (y > 0) & (y < 0.26)
    return ring | shaft | teeth


def _cup(x: Tensor, y: Tensor) -> Tensor:
    body = (y.abs() < 0.36) & ((x + 0.1).abs() < 0.3 - 0.22 * (y + 0.1))
    handle = (x - 0.2) ** 2 + (y + 0.08) ** 2
    return body | ((handle < 0.25**2) & (handle > 0.12**2) & (x > 0.12))


def star(x: Tensor, y: Tensor) -> Tensor:
    """Five-pointed star."""
    radius = (x**2 + y**2).sqrt()
    sector = math.pi / 5
    angle = torch.remainder(torch.atan2(x, -y) + sector, 2 * sector) - sector
    # The straight edge from the tip (0.5 at angle 0) to the notch (0.21 at angle `sector`).
    tip, notch = 0.5, 0.21
    edge = tip * notch * math.sin(sector)
    return radius * (tip * angle.abs().sin() + notch * (sector - angle.abs()).sin()) < edge


def _cone(x: Tensor, y: Tensor) -> Tensor:
    return (y < 0.42) & (y > -0.48) & (x.abs() < 0.5 * (y + 0.5))


def _door(x: Tensor, y: Tensor) -> Tensor:
    leaf = (x.abs() < 0.27) & (y > -0.44) & (y < 0.46)
    knob = (x - 0.16) ** 2 + (y - 0.02) ** 2 < 0.055**2
    return leaf & ~knob


_SHAPES: tuple[_Predicate, ...] = (_ball, _box, _key, _cup, star, _cone, _door)


def unit_square(size: int, scale: float = 1.0, shift: float = 0.0) -> tuple[Tensor, Tensor]:
    """Return x and y of the supersamples of a ``size``-pixel cell, in units of the drawn thing."""
    num_samples = size * _SUPERSAMPLING
    line = (torch.arange(num_samples) + 0.5) / num_samples - 0.5
    x, y = (line - shift) / scale, (line + shift) / scale
    return x[None].expand(num_samples, -1), y[:, None].expand(-1, num_samples)


def pixels(samples: Tensor) -> Float[Tensor, "P P"]:
    """Average supersamples to pixels."""
    return torch.nn.functional.avg_pool2d(samples.float()[None], _SUPERSAMPLING)[0]


def object_sprite(
    shape: int, size: int, scale: float, shift: float = 0.0
) -> Float[Tensor, "2 P P"]:
    """Draw one object shape.

    Args:
        shape: A `Shape`.
        size: Side of the sprite, in pixels.
        scale: Part of the side that the object spans, in (0, 1).
        shift: How far right and up of the middle it lies, as part of the side.

    Returns:
        Coverage (0 to 1) and shade (0 to 1, the factor of the object's colour).
    """
    x, y = unit_square(size, scale, shift)
    body = _SHAPES[shape](x, y)
    outline = body | _SHAPES[shape](x / _OUTLINE, y / _OUTLINE)
    coverage = pixels(outline)
    brightness = pixels(torch.where(body, 1.0, _OUTLINE_SHADE) * outline)
    return torch.stack((coverage, brightness / coverage.clamp(min=1e-6)))


def person_sprite(size: int) -> Float[Tensor, "4 P P"]:
    """Draw the person from above: dark shoulders, a light head. Coverage, then RGB (0 to 255)."""
    x, y = unit_square(size, 0.95)
    shoulders = (x / 0.5) ** 2 + ((y - 0.06) / 0.36) ** 2 < 1
    head = x**2 + (y + 0.04) ** 2 < 0.27**2
    hair = head & (y < -0.14)
    coverage = pixels(shoulders | head)
    colour = torch.zeros(3, *x.shape)
    for part, rgb in ((shoulders, (25, 30, 45)), (head, (240, 195, 160)), (hair, (70, 40, 20))):
        colour = torch.where(part, torch.tensor(rgb).view(3, 1, 1).float(), colour)
    mean = torch.stack([pixels(channel * (shoulders | head)) for channel in colour])
    return torch.cat((coverage[None], mean / coverage.clamp(min=1e-6)))
