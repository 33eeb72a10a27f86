"""The shortest way to an app, for who sees what is on every page and in every folder.

Axis letters: ``B`` phones.
"""

import torch
from jaxtyping import Int64
from torch import Tensor

from vlmreward_envs.launcher.apps import APPS
from vlmreward_envs.launcher.dynamics import NONE, LauncherState
from vlmreward_envs.launcher.gestures import Gesture
from vlmreward_envs.launcher.layout import PLACES_PER_PAGE


def optimal_gestures(state: LauncherState, app: Int64[Tensor, " B"]) -> Int64[Tensor, " B"]:
    """Return the gesture that brings each phone nearer to having an app in the foreground.

    Close a pop-up; leave another app, or a folder that lacks the app; turn to the page that it, or
    its folder, lies on; tap it. Where it is open already, its screen is tapped, which does nothing.

    Args:
        state: The phones; each must have the app.
        app: Which app.
    """
    in_folder = (state.folders == app[:, None, None]).any(dim=2)
    folder = torch.where(in_folder.any(dim=1), in_folder.int().argmax(dim=1), NONE)
    wanted = torch.where(folder == NONE, app, len(APPS) + folder)
    page = (state.places == wanted[:, None]).int().argmax(dim=1) // PLACES_PER_PAGE
    is_shown = state.shown == torch.where(state.open_folder == NONE, wanted, app)[:, None]
    gesture = torch.where(page > state.page, int(Gesture.SWIPE_LEFT), int(Gesture.SWIPE_RIGHT))
    elsewhere = (state.open_folder != NONE) | (~state.is_home & (state.app != app))
    gesture = torch.where(elsewhere, int(Gesture.SWIPE_UP), gesture)
    gesture = torch.where(is_shown.any(dim=1), is_shown.int().argmax(dim=1), gesture)
    gesture = torch.where(state.app == app, int(Gesture.TAP_TOP_LEFT), gesture)
    return torch.where(state.popup != NONE, int(Gesture.TAP_BOTTOM_CENTRE), gesture)
