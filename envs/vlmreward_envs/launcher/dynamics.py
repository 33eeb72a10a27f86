"""The Launcher as batched tensors: thousands of phones touched at once on any torch device.

A phone has home pages of icons and folders. A finger touches the screen, moves, and is lifted: a
tap, or a swipe. Nothing here draws (see :mod:`.rendering`) or speaks (see :mod:`.language` and
:mod:`.captions`).

Axis letters: ``B`` phones, ``S`` places on all home pages, ``F`` folders, ``A`` apps of a folder,
``P`` apps that an app lists.
"""

from dataclasses import dataclass, replace
from enum import IntEnum

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from vlmreward_envs import counter_rng
from vlmreward_envs.launcher.apps import APPS
from vlmreward_envs.launcher.layout import (
    COLUMNS,
    FOLDER_ROW,
    PLACES_PER_PAGE,
    POPUP_BUTTON,
    place_at,
)
from vlmreward_envs.tensor_state import TensorState

NONE = -1
FOLDER_SIZE = COLUMNS
"""Apps of an open folder: they fill one row of places."""
NUM_THEMES = 6
NUM_LISTED = 3
"""Other apps that an app lists in its content."""
_FIRST_FOLDER = len(APPS)
_SWIPE = 0.15  # of the screen: a finger that moved less has tapped
_STEP_SEED = 13


class ActionType(IntEnum):
    """What a finger does in one step, with AndroidEnv's numbers (Toyama et al. 2021)."""

    TOUCH = 0
    LIFT = 1
    REPEAT = 2


@dataclass(frozen=True)
class LauncherConfig:
    """What all phones of a batch have in common.

    Attributes:
        num_pages: Home pages.
        num_apps: Apps on each phone, in folders or not.
        num_folders: Folders, each of three apps.
        popup_rate: Chance that a pop-up appears in a step, where there is none.
        fixed_phone: Draw each phone once from its seed, and keep it in all episodes of the same
            goal; otherwise every episode draws a new one.

    Raises:
        ValueError: If the apps do not fit on the pages, or a number is out of range.
    """

    num_pages: int = 2
    num_apps: int = 15
    num_folders: int = 2
    popup_rate: float = 0.03
    fixed_phone: bool = False

    def __post_init__(self) -> None:
        if self.num_pages < 1 or self.num_folders < 0:
            raise ValueError(
                f"got num_pages={self.num_pages} and num_folders={self.num_folders}, expected at "
                "least 1 and 0"
            )
        if not 0 <= self.popup_rate <= 1:
            raise ValueError(f"popup_rate must be in [0, 1], got {self.popup_rate}")
        fewest = max(1, self.num_folders * FOLDER_SIZE)
        most = min(len(APPS), self.num_places + self.num_folders * (FOLDER_SIZE - 1))
        if not fewest <= self.num_apps <= most:
            raise ValueError(
                f"num_apps must be in {fewest}..{most} with {self.num_pages} pages and "
                f"{self.num_folders} folders, got {self.num_apps}"
            )

    @property
    def num_places(self) -> int:
        """Places on all home pages."""
        return self.num_pages * PLACES_PER_PAGE


@dataclass(frozen=True)
class LauncherState(TensorState):
    """Everything a phone is, as tensors with the phones on the first axis.

    Attributes:
        places: What lies where on the home pages: an app, 60 + a folder, or -1.
        folders: Apps of each folder.
        page: Home page that is in front, from 0.
        open_folder: The folder that is open, or -1.
        app: The app in the foreground, or -1: the ground truth.
        popup: The app that a pop-up advertises, or -1 where there is none.
        is_touched: Whether a finger is on the screen.
        touch_start: Where it came down, (x, y) from 0 to 1.
        touch: Where it is.
        theme: Colours and the shape of icons.
        minute: Minute of the day, for the clock.
        light: Brightness, in 0..255.
        scroll: How far down an app's content is scrolled, in 0..255.
        list_offsets: Which apps an app's content lists, counted on from itself.
        seed: Of what happens by chance in this episode.
        time: Steps taken in this episode.
    """

    places: Int64[Tensor, "B S"]
    folders: Int64[Tensor, "B F A"]
    page: Int64[Tensor, " B"]
    open_folder: Int64[Tensor, " B"]
    app: Int64[Tensor, " B"]
    popup: Int64[Tensor, " B"]
    is_touched: Bool[Tensor, " B"]
    touch_start: Float[Tensor, "B 2"]
    touch: Float[Tensor, "B 2"]
    theme: Int64[Tensor, " B"]
    minute: Int64[Tensor, " B"]
    light: Int64[Tensor, " B"]
    scroll: Int64[Tensor, " B"]
    list_offsets: Int64[Tensor, "B P"]
    seed: Int64[Tensor, " B"]
    time: Int64[Tensor, " B"]

    @property
    def is_home(self) -> Bool[Tensor, " B"]:
        """Whether a home page is in front, with a folder open on it or not."""
        return self.app == NONE

    @property
    def listed(self) -> Int64[Tensor, "B P"]:
        """The apps that the open one lists in its content: never itself."""
        return (self.app[:, None] + self.list_offsets) % len(APPS)

    @property
    def front_page(self) -> Int64[Tensor, "B 9"]:
        """What lies at each place of the home page that is in front, as in ``places``."""
        rows = torch.arange(len(self.page), device=self.page.device)
        return self.places.view(len(rows), -1, PLACES_PER_PAGE)[rows, self.page]

    @property
    def shown(self) -> Int64[Tensor, "B 9"]:
        """What can be tapped at each place, as in ``places``; -1 everywhere inside an app."""
        page = self.front_page
        if self.folders.shape[1]:
            rows = torch.arange(len(page), device=page.device)
            in_folder = torch.full_like(page, NONE)
            row = slice(FOLDER_ROW * COLUMNS, (FOLDER_ROW + 1) * COLUMNS)
            in_folder[:, row] = self.folders[rows, self.open_folder.clamp(min=0)]
            page = torch.where((self.open_folder != NONE)[:, None], in_folder, page)
        return torch.where(self.is_home[:, None], page, NONE)


def folder_of(content: Tensor) -> Tensor:
    """Return the folder that a place's content is, or a negative number where it is none."""
    return content - _FIRST_FOLDER


def reset_phones(
    config: LauncherConfig,
    seed: Int64[Tensor, " B"],
    episode: Int64[Tensor, " B"],
    required_app: Int64[Tensor, " B"] | None = None,
) -> LauncherState:
    """Draw phones, each showing its first home page, as a function of its seed and episode alone.

    Args:
        config: Shared by all phones.
        seed: One random stream per phone.
        episode: Episode number of each phone, from 0.
        required_app: An app that must be on each phone, e.g. that of its goal.
    """
    phone_seed = seed if config.fixed_phone else counter_rng.fold(seed, episode)
    episode_seed = counter_rng.fold(counter_rng.fold(seed, episode), _STEP_SEED)

    def stream(number: int) -> Tensor:
        return counter_rng.fold(phone_seed, number)

    keys = counter_rng.uniform(stream(0), len(APPS))
    if required_app is not None:
        keys = keys.scatter(1, required_app[:, None], -1.0)
    apps = keys.argsort(dim=1, stable=True)[:, : config.num_apps]
    order = counter_rng.uniform(stream(1), config.num_apps).argsort(dim=1, stable=True)
    apps = apps.gather(1, order)
    num_inside = config.num_folders * FOLDER_SIZE
    inside, outside = apps[:, :num_inside], apps[:, num_inside:]
    folder = torch.arange(config.num_folders, device=seed.device) + _FIRST_FOLDER
    contents = torch.cat((folder.expand(len(seed), -1), outside), dim=1)
    free = torch.ones(config.num_places, dtype=torch.bool, device=seed.device)
    where = counter_rng.choose_distinct(stream(2), contents.shape[1], free)
    empty = torch.full((len(seed), config.num_places), NONE, device=seed.device)
    nothing = torch.full_like(seed, NONE)
    zeros = torch.zeros_like(seed)
    middle = torch.full((len(seed), 2), 0.5, device=seed.device)
    return LauncherState(
        places=empty.scatter(1, where, contents),
        folders=inside.reshape(len(seed), config.num_folders, FOLDER_SIZE),
        page=zeros,
        open_folder=nothing,
        app=nothing,
        popup=nothing,
        is_touched=zeros.bool(),
        touch_start=middle,
        touch=middle,
        theme=counter_rng.integers(stream(3), 1, 0, NUM_THEMES)[:, 0],
        minute=counter_rng.integers(episode_seed, 1, 0, 24 * 60)[:, 0],
        light=counter_rng.integers(stream(4), 1, 0, 256)[:, 0],
        scroll=counter_rng.integers(stream(5), 1, 0, 256)[:, 0],
        list_offsets=counter_rng.integers(stream(6), NUM_LISTED, 1, len(APPS)),
        seed=episode_seed,
        time=zeros,
    )


def step_phones(
    config: LauncherConfig,
    state: LauncherState,
    action_type: Int64[Tensor, " B"],
    position: Float[Tensor, "B 2"],
) -> LauncherState:
    """Let a finger touch, lift, or repeat what it did, on every phone.

    A finger that is lifted where it came down has tapped; one that moved along the screen has
    swiped. A tap opens an app or a folder, closes a pop-up at its button, or closes an open folder
    beside its apps. A swipe to the left or right turns the home page, one upwards goes home.
    Nothing else reacts; a pop-up lets through nothing.

    Args:
        config: Shared by all phones.
        state: Before.
        action_type: An :class:`ActionType` each.
        position: Where a TOUCH is, (x, y) from 0 to 1; unused otherwise.
    """
    touches = action_type == ActionType.TOUCH
    lifts = (action_type == ActionType.LIFT) & state.is_touched
    begins = touches & ~state.is_touched
    touch = torch.where(touches[:, None], position.clamp(0, 1), state.touch)
    start = torch.where(begins[:, None], touch, state.touch_start)
    state = replace(
        state,
        is_touched=(state.is_touched | touches) & ~lifts,
        touch_start=start,
        touch=touch,
        time=state.time + 1,
    )
    moved = touch - start
    is_tap = (moved.abs() < _SWIPE).all(dim=1)
    state = _tap(state, touch).where(lifts & is_tap, state)
    state = _swipe(config, state, moved).where(lifts & ~is_tap, state)
    return _interrupt(config, state)


def _tap(state: LauncherState, position: Float[Tensor, "B 2"]) -> LauncherState:
    place = place_at(position)
    content = state.shown.gather(1, place.clamp(min=0)[:, None])[:, 0]
    content = torch.where(place == NONE, NONE, content)
    left, top, right, bottom = POPUP_BUTTON
    x, y = position.unbind(dim=1)
    on_button = (x >= left) & (x < right) & (y >= top) & (y < bottom)
    has_popup = state.popup != NONE
    is_folder = folder_of(content) >= 0
    opens_app = (content != NONE) & ~is_folder & ~has_popup
    opens_folder = is_folder & ~has_popup
    closes = (state.open_folder != NONE) & ~has_popup
    open_folder = torch.where(closes, NONE, state.open_folder)
    return replace(
        state,
        app=torch.where(opens_app, content, state.app),
        open_folder=torch.where(opens_folder, folder_of(content), open_folder),
        popup=torch.where(on_button, NONE, state.popup),
    )


def _swipe(
    config: LauncherConfig, state: LauncherState, moved: Float[Tensor, "B 2"]
) -> LauncherState:
    sideways = moved[:, 0].abs() >= moved[:, 1].abs()
    upwards = ~sideways & (moved[:, 1] < 0)
    turns = sideways & state.is_home & (state.open_folder == NONE)
    page = (state.page - moved[:, 0].sign().long()).clamp(0, config.num_pages - 1)
    swiped = replace(
        state,
        page=torch.where(turns, page, state.page),
        app=torch.where(upwards, NONE, state.app),
        open_folder=torch.where(upwards, NONE, state.open_folder),
    )
    return state.where(state.popup != NONE, swiped)


def _interrupt(config: LauncherConfig, state: LauncherState) -> LauncherState:
    """Let pop-ups appear by chance: each about any app, on the phone or not."""
    draw = counter_rng.uniform(counter_rng.fold(state.seed, state.time), 2)
    appears = (state.popup == NONE) & (draw[:, 0] < config.popup_rate)
    about = (draw[:, 1] * len(APPS)).long()
    return replace(state, popup=torch.where(appears, about, state.popup))
