"""Taps and swipes: what a finger does in three steps, as one action.

Axis letters: ``B`` phones.
"""

from enum import IntEnum

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from vlmreward_envs.launcher.dynamics import ActionType
from vlmreward_envs.launcher.layout import PLACES_PER_PAGE, centre_of

_MIDDLE = 0.5
_FAR = 0.35  # how far from the middle a swipe begins and ends
TOUCHES = (ActionType.TOUCH, ActionType.TOUCH, ActionType.LIFT)
"""The steps of each gesture."""


class Gesture(IntEnum):
    """A tap on one of nine places, row by row, or a swipe."""

    TAP_TOP_LEFT = 0
    TAP_TOP_CENTRE = 1
    TAP_TOP_RIGHT = 2
    TAP_MIDDLE_LEFT = 3
    TAP_MIDDLE_CENTRE = 4
    TAP_MIDDLE_RIGHT = 5
    TAP_BOTTOM_LEFT = 6
    TAP_BOTTOM_CENTRE = 7
    TAP_BOTTOM_RIGHT = 8
    SWIPE_LEFT = 9
    SWIPE_RIGHT = 10
    SWIPE_UP = 11


_SWIPES = (
    ((_MIDDLE + _FAR, _MIDDLE), (_MIDDLE - _FAR, _MIDDLE)),
    ((_MIDDLE - _FAR, _MIDDLE), (_MIDDLE + _FAR, _MIDDLE)),
    ((_MIDDLE, _MIDDLE + _FAR), (_MIDDLE, _MIDDLE - _FAR)),
)
_TAPS = tuple((centre_of(place), centre_of(place)) for place in range(PLACES_PER_PAGE))
_ENDS = torch.tensor((*_TAPS, *_SWIPES))


def positions(gesture: Int64[Tensor, " B"]) -> Float[Tensor, "3 B 2"]:
    """Return where the finger is at each of a gesture's three steps, (x, y) from 0 to 1."""
    begin, end = _ENDS.to(gesture.device)[gesture].unbind(dim=1)
    return torch.stack((begin, end, end))
