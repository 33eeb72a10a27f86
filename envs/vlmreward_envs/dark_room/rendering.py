"""The picture of a Dark Room, for people: the agent never sees it.

Axis letters: ``N`` rooms, ``H W`` pixels.
"""

from jaxtyping import Bool, Int64, UInt8
from torch import Tensor

from vlmreward_envs.grid_picture import GridPicture
from vlmreward_envs.sprites import Shape

_GOAL_RGB = (250, 220, 40)
_SPENT_RGB = (195, 195, 200)


def draw_rooms(
    size: int,
    position: Int64[Tensor, "N 2"],
    goal: Int64[Tensor, "N 2"],
    is_spent: Bool[Tensor, " N"],
) -> UInt8[Tensor, "N H W 3"]:
    """Draw the agents and their goals; a goal that is spent is grey."""
    picture = GridPicture(len(position), size, position.device)
    picture.put(goal, Shape.STAR, _GOAL_RGB, ~is_spent)
    picture.put(goal, Shape.STAR, _SPENT_RGB, is_spent)
    picture.put_person(position)
    return picture.frames()
