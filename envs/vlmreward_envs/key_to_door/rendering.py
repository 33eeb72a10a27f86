"""The picture of Dark Key-to-Door, for people: the agent never sees it.

Axis letters: ``N`` rooms, ``H W`` pixels.
"""

from jaxtyping import Bool, Int64, UInt8
from torch import Tensor

from vlmreward_envs.grid_picture import GridPicture
from vlmreward_envs.sprites import Shape

_KEY_RGB = (250, 220, 40)
_SHUT_RGB = (190, 110, 50)
_OPEN_RGB = (60, 200, 90)


def draw_rooms(
    size: int,
    position: Int64[Tensor, "N 2"],
    *,
    key: Int64[Tensor, "N 2"],
    door: Int64[Tensor, "N 2"],
    has_key: Bool[Tensor, " N"],
    is_open: Bool[Tensor, " N"],
) -> UInt8[Tensor, "N H W 3"]:
    """Draw agents, keys and doors; a key that was fetched is in hand, an open door is green."""
    picture = GridPicture(len(position), size, position.device)
    picture.put(door, Shape.DOOR, _SHUT_RGB, ~is_open)
    picture.put(door, Shape.DOOR, _OPEN_RGB, is_open)
    picture.put(key, Shape.KEY, _KEY_RGB, ~has_key)
    picture.put_person(position)
    picture.put(position, Shape.KEY, _KEY_RGB, has_key, in_hand=True)
    return picture.frames()
