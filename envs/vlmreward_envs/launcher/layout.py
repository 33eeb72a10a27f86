"""Where things are on the screen, in pixels and as parts of it.

A screen is 96 pixels square: a status bar, three rows of three places for icons, and below them the
dots of the pages. All positions are fixed; what lies there is the phone's.
"""

import torch
from jaxtyping import Float, Int64
from torch import Tensor

SCREEN_SIZE = 96
COLUMNS, ROWS = 3, 3
PLACES_PER_PAGE = COLUMNS * ROWS
PLACE_WIDTH, PLACE_HEIGHT = 32, 27
STATUS_HEIGHT = 7
ICON_SIZE = 18
FOLDER_ROW = 1
"""The row of places that the apps of an open folder lie in."""
POPUP = (14, 30, 82, 86)
"""Left, top, right and bottom of a pop-up, in pixels."""
_BUTTON = (32, 68, 64, 82)
POPUP_BUTTON = tuple(value / SCREEN_SIZE for value in _BUTTON)
"""Left, top, right and bottom of a pop-up's button, from 0 to 1."""


def place_at(position: Float[Tensor, "B 2"]) -> Int64[Tensor, " B"]:
    """Return the place (row by row, from 0) at each position (x, y), or -1 where there is none."""
    x, y = (position * SCREEN_SIZE).unbind(dim=1)
    column = (x / PLACE_WIDTH).floor().long().clamp(0, COLUMNS - 1)
    row = ((y - STATUS_HEIGHT) / PLACE_HEIGHT).floor().long()
    is_place = (row >= 0) & (row < ROWS)
    return torch.where(is_place, row * COLUMNS + column, -1)


def centre_of(place: int) -> tuple[float, float]:
    """Return the middle (x, y) of a place, from 0 to 1."""
    row, column = divmod(place, COLUMNS)
    x = (column + 0.5) * PLACE_WIDTH
    y = STATUS_HEIGHT + (row + 0.5) * PLACE_HEIGHT
    return x / SCREEN_SIZE, y / SCREEN_SIZE
