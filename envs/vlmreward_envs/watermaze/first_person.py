"""What agents in a Watermaze see: frames by ray casting, all at once.

One column of a frame is one ray. Rays meet the round wall at a root of a quadratic equation; the
column is then looked up by distance and by place on the wall.

Axis letters: ``N`` agents, ``H W`` pixels.
"""

import functools

import torch
from jaxtyping import Float, Int64, UInt8
from torch import Tensor

from vlmreward_envs.watermaze.arena import ARENA_RADIUS, heading_vectors, squared_length
from vlmreward_envs.watermaze.walls import (
    FOCAL_LENGTH,
    FRAME_HEIGHT,
    FRAME_WIDTH,
    NUM_PLACES,
    column_table,
    distance_bounds,
    wall_places,
)

_FRAMES_PER_PASS = 128  # stays in the processor's cache


@functools.cache
def ray_directions(device: torch.device) -> Float[Tensor, "16 W 2"]:
    """Return the direction of every column's ray for every heading, from left to right.

    It is 1 along the heading, so that a multiple of it is that far away in depth.
    """
    to_right = (torch.arange(FRAME_WIDTH) + 0.5 - FRAME_WIDTH / 2) / FOCAL_LENGTH
    x, y = heading_vectors(torch.device("cpu"))[:, None].unbind(-1)
    rays = torch.stack((x + to_right * y, y - to_right * x), dim=-1)
    return rays.to(device)


def cast_rays(
    position: Float[Tensor, "N 2"], heading: Int64[Tensor, " N"]
) -> tuple[Float[Tensor, "N W"], Float[Tensor, "N W 2"]]:
    r"""Return how far away in depth the wall is in every column, and where the ray meets it.

    From the position ``p`` along ``d`` to a wall of radius ``R`` the depth is

    .. math:: z = \frac{\sqrt{(p \cdot d)^2 + (R^2 - p^2) \, d^2} - p \cdot d}{d^2}
    """
    rays = ray_directions(position.device)[heading]
    start = position[:, None]
    product = start * rays
    along = product[..., 0] + product[..., 1]
    length = squared_length(rays)
    room = ARENA_RADIUS**2 - squared_length(start)
    depth = ((along * along + room * length).sqrt() - along) / length
    return depth, start + depth[..., None] * rays


def draw_views(
    position: Float[Tensor, "N 2"], heading: Int64[Tensor, " N"]
) -> UInt8[Tensor, "N H W 3"]:
    """Draw what every agent sees, as uint8 RGB 0–255."""
    num_agents, device = len(position), position.device
    table, bounds = column_table(device), distance_bounds(device)
    frames = torch.empty(num_agents, FRAME_HEIGHT, FRAME_WIDTH, 3, dtype=torch.uint8, device=device)
    for start in range(0, num_agents, _FRAMES_PER_PASS):
        agents = slice(start, start + _FRAMES_PER_PASS)
        depth, hit = cast_rays(position[agents], heading[agents])
        rows = torch.bucketize(depth, bounds) * NUM_PLACES + wall_places(hit)
        columns = table.index_select(0, rows.flatten()).view(-1, FRAME_WIDTH, FRAME_HEIGHT, 3)
        for channel in range(3):  # three copies with a stride are faster than one of triples
            frames[agents, ..., channel] = columns[..., channel].transpose(1, 2)
    return frames
