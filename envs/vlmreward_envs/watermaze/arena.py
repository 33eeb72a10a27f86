r"""The pool of a Watermaze: its size, how one moves in it, where platforms are, what they pay.

Lengths are in metres. The origin is the centre of the pool, x points to the right and y to the top
of the bird's-eye picture, and headings are counted anticlockwise from x in sixteenths of a turn.

Whatever is computed for a task is built of operations that IEEE 754 rounds correctly (no angle is
ever computed), so a task is the same alone, among thousands, and on every device.

Axis letters: ``N`` tasks, ``P`` places.
"""

import functools
import math
from enum import IntEnum

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from vlmreward_envs import counter_rng

ARENA_RADIUS = 5.0
CLEARANCE = 0.5
"""How near the wall the agent's eye comes."""

PLATFORM_RADIUS = 0.6
PLATFORM_RING = 1.5, ARENA_RADIUS - PLATFORM_RADIUS
"""Least and greatest distance of a platform's middle from the centre of the pool."""

STEP_LENGTH = 0.25
NUM_HEADINGS = 16
EPISODE_LENGTH = 50

_PLATFORM_STREAM = 0
_NUM_CANDIDATES = 32  # all lie outside the ring for one task in 3e16


class Action(IntEnum):
    """What one step can be; who rotates and moves rotates first."""

    FORWARD = 0
    BACKWARD = 1
    LEFT = 2
    RIGHT = 3
    ROTATE_LEFT = 4
    ROTATE_RIGHT = 5
    ROTATE_LEFT_FORWARD = 6
    ROTATE_RIGHT_FORWARD = 7


_ROTATION = (0, 0, 0, 0, 1, -1, 1, -1)
_QUARTER_TURNS = (0, 2, 1, 3, None, None, 0, 0)  # where one moves, as seen by the agent


@functools.cache
def heading_vectors(device: torch.device) -> Float[Tensor, "16 2"]:
    """Return the unit vector of every heading."""
    angles = [2 * math.pi * heading / NUM_HEADINGS for heading in range(NUM_HEADINGS)]
    # Rounded, so that a quarter of a turn is exactly (0, 1).
    return torch.tensor(
        [(round(math.cos(angle), 9), round(math.sin(angle), 9)) for angle in angles], device=device
    )


@functools.cache
def _moves(device: torch.device) -> tuple[Int64[Tensor, " 8"], Float[Tensor, "16 8 2"]]:
    """Return how far every `Action` turns, and how it then moves for every heading."""
    ways = STEP_LENGTH * heading_vectors(torch.device("cpu"))
    moves = torch.zeros(NUM_HEADINGS, len(Action), 2)
    for action, turns in enumerate(_QUARTER_TURNS):
        if turns is not None:
            moves[:, action] = ways.roll(-turns * NUM_HEADINGS // 4, dims=0)
    return torch.tensor(_ROTATION, device=device), moves.to(device)


def move(
    position: Float[Tensor, "N 2"], heading: Int64[Tensor, " N"], actions: Int64[Tensor, " N"]
) -> tuple[Float[Tensor, "N 2"], Int64[Tensor, " N"]]:
    """Return where each `Action` leads; who is too near the wall then is pushed straight back.

    So walking at the wall slides along it.

    Raises:
        IndexError: If an action is no `Action` (on a CPU; CUDA reports a device-side assertion).
    """
    rotations, moves = _moves(actions.device)
    heading = (heading + rotations.index_select(0, actions)) % NUM_HEADINGS
    position = position + moves[heading, actions]
    reach = ARENA_RADIUS - CLEARANCE
    shrink = (reach / squared_length(position).sqrt()).clamp(max=1.0)
    return position * shrink[:, None], heading


def head_for(
    position: Float[Tensor, "N 2"],
    heading: Int64[Tensor, " N"],
    target: Float[Tensor, "N 2"],
) -> Int64[Tensor, " N"]:
    """Return the `Action` that turns to a target and goes there.

    It rotates on the spot while the target is more than 45° off, then in walking, and walks
    straight on where rotating would not bring the target nearer to the middle of the view.
    """
    (dx, dy), (ex, ey) = (target - position).unbind(1), heading_vectors(position.device)[heading].T
    ahead, left = dx * ex + dy * ey, dy * ex - dx * ey
    half_turn = math.tan(math.pi / NUM_HEADINGS)
    in_view = left.abs() <= ahead
    rotate = torch.where(left < 0, Action.ROTATE_RIGHT, Action.ROTATE_LEFT)
    walk = torch.where(left < 0, Action.ROTATE_RIGHT_FORWARD, Action.ROTATE_LEFT_FORWARD)
    walk = torch.where(left.abs() <= half_turn * ahead, Action.FORWARD, walk)
    return torch.where(in_view, walk, rotate)


def is_on_platform(
    position: Float[Tensor, "N 2"], platform: Float[Tensor, "N 2"]
) -> Bool[Tensor, " N"]:
    """Return whether each agent is no more than `PLATFORM_RADIUS` from the platform's middle."""
    return squared_length(position - platform) <= PLATFORM_RADIUS**2


def platform_positions(task_ids: Int64[Tensor, " N"]) -> Float[Tensor, "N 2"]:
    """Return where each task's platform is: uniform over the `PLATFORM_RING`, from the id alone.

    Args:
        task_ids: Any integers.

    Example:
        >>> platform_positions(torch.tensor([0, 1]))
        tensor([[-1.9551,  3.5429],
                [-0.6462,  2.6946]])
    """
    low, high = PLATFORM_RING
    drawn = counter_rng.uniform(counter_rng.fold(task_ids, _PLATFORM_STREAM), 2 * _NUM_CANDIDATES)
    candidates = high * (2 * drawn - 1).view(-1, _NUM_CANDIDATES, 2)
    distance = squared_length(candidates)
    inside = (distance >= low**2) & (distance <= high**2)
    first = inside.byte().argmax(dim=1)
    return candidates[torch.arange(len(task_ids), device=task_ids.device), first]


@functools.cache
def search_places(device: torch.device) -> Float[Tensor, "P 2"]:
    """Return places all over the part of the pool where platforms are, arranged as a honeycomb.

    Each is at least as near to its neighbours as a platform is wide, so that hardly any platform's
    middle is farther than `PLATFORM_RADIUS` from all of them.
    """
    spacing, height = 0.9, 0.9 * math.sqrt(3) / 2
    points = [
        (spacing * (column + 0.5 * (row % 2)), height * row)
        for row in range(-6, 7)
        for column in range(-6, 7)
    ]
    nearest, farthest = PLATFORM_RING[0] - PLATFORM_RADIUS, ARENA_RADIUS - CLEARANCE
    inside = [(x, y) for x, y in points if nearest <= math.hypot(x, y) <= farthest]
    return torch.tensor([(round(x, 9), round(y, 9)) for x, y in inside], device=device)


def squared_length(vectors: Float[Tensor, "*N 2"]) -> Float[Tensor, "*N"]:
    """Return x² + y², each rounded on its own."""
    x, y = vectors.unbind(-1)
    return x * x + y * y


def no_adaptation_return() -> float:
    r"""Return a bound on what is earned, on average over all tasks, by who forgets each episode.

    A step that moves by ``v`` is on platforms of radius ``r`` with their middle in a disc; new
    among them, after the step before, is at most the crescent

    .. math:: C = \pi r^2 - 2 r^2 \arccos\frac{v}{2r} + \frac{v}{2} \sqrt{4 r^2 - v^2}

    Each platform pays once in an episode, too late to be of use in it. So nobody without memory of
    earlier episodes earns more than :math:`(T - t_0) C / A` on average, with ``A`` the area of the
    ring in which platforms lie and :math:`t_0` the steps in which nobody can get to it.

    Example:
        >>> round(no_adaptation_return(), 3)
        0.26
    """
    radius, step = PLATFORM_RADIUS, STEP_LENGTH
    low, high = PLATFORM_RING
    overlap = 2 * radius**2 * math.acos(step / (2 * radius))
    overlap -= step / 2 * math.sqrt(4 * radius**2 - step**2)
    crescent = math.pi * radius**2 - overlap
    num_steps = EPISODE_LENGTH - math.floor((low - radius) / step)
    return num_steps * crescent / (math.pi * (high**2 - low**2))
