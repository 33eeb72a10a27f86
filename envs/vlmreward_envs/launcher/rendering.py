"""Draws Launcher states: batched, from pictures of all icons and screens that are drawn once.

Axis letters: ``B`` phones, ``A`` apps, ``N`` apps and nothing, ``H W`` pixels, ``P`` pixels of a
square, ``C`` red, green, blue and coverage (each 0 to 1).
"""

import functools

import torch
from jaxtyping import Float, Int64, UInt8
from torch import Tensor
from torch.nn import functional

from vlmreward_envs.launcher.apps import APPS
from vlmreward_envs.launcher.dynamics import FOLDER_SIZE, NONE, LauncherState, folder_of
from vlmreward_envs.launcher.glyphs import glyph_mask, text_mask, tile_mask
from vlmreward_envs.launcher.layout import (
    COLUMNS,
    FOLDER_ROW,
    ICON_SIZE,
    PLACE_HEIGHT,
    PLACE_WIDTH,
    POPUP,
    POPUP_BUTTON,
    ROWS,
    SCREEN_SIZE,
    STATUS_HEIGHT,
)
from vlmreward_envs.launcher.themes import THEMES, Theme

_PHONES_PER_PASS = 64
_HEADER = 16  # pixels of an app's title bar
_MINI = 7  # side of an icon inside a folder's icon
_TITLE_ICON = 12  # side of the icon in a title bar
_LIST_TOP, _LIST_ROW, _LIST_SPAN = 26, 22, 8  # pixels: of the list in an app, and what it scrolls
_LABEL_TOP = ICON_SIZE + 3
_DIMMED = 0.45
_SCREENSHOTS = 6  # kinds of content that apps show


class LauncherRenderer:
    """Draws states as frames of 96×96 pixels.

    Args:
        num_pages: Home pages, one dot each.
        device: Where frames are drawn.
    """

    def __init__(self, num_pages: int, device: torch.device | str = "cpu") -> None:
        self.device = torch.device(device)
        self._num_pages = num_pages
        places = [_places(theme) for theme in THEMES]
        self._icons = torch.stack([icons for icons, _ in places]).to(self.device)
        self._minis = torch.stack([minis for _, minis in places]).to(self.device)
        self._folder = torch.stack([_folder_place(theme) for theme in THEMES]).to(self.device)
        self._wallpaper = torch.stack([_wallpaper(theme) for theme in THEMES]).to(self.device)
        self._titles = torch.stack([_titles(theme) for theme in THEMES]).to(self.device)
        self._contents = _contents().to(self.device)
        self._ink = _colours([theme.ink for theme in THEMES]).to(self.device)
        self._paper = _colours([theme.paper for theme in THEMES]).to(self.device)
        self._accents = _colours([app.rgb for app in APPS]).to(self.device)
        self._popups = _popups().to(self.device)
        self._digits = torch.stack([text_mask(digit) for digit in "0123456789:"]).to(self.device)

    def __call__(self, state: LauncherState) -> UInt8[Tensor, "B H W 3"]:
        """Draw every phone of ``state``, as uint8 RGB 0–255."""
        frames = torch.empty(
            (len(state), SCREEN_SIZE, SCREEN_SIZE, 3), dtype=torch.uint8, device=self.device
        )
        for start in range(0, len(state), _PHONES_PER_PASS):
            phones = slice(start, start + _PHONES_PER_PASS)
            frames[phones] = self._draw(state[phones])
        return frames

    def _draw(self, state: LauncherState) -> Float[Tensor, "B H W 3"]:
        canvas = self._wallpaper[state.theme]
        at_home = state.is_home.nonzero()[:, 0]
        in_app = (~state.is_home).nonzero()[:, 0]
        if len(at_home):
            canvas[at_home] = self._draw_home(canvas[at_home], state[at_home])
        if len(in_app):
            canvas[in_app] = self._draw_app(state[in_app])
        self._draw_status(canvas, state)
        interrupted = (state.popup != NONE).nonzero()[:, 0]
        if len(interrupted):
            canvas[interrupted] = self._draw_popup(canvas[interrupted], state[interrupted])
        brightness = 0.7 + 0.3 * state.light.float() / 255
        return canvas.mul_(255 * brightness.view(-1, 1, 1, 1)).add_(0.5)

    def _draw_home(
        self, canvas: Float[Tensor, "B H W 3"], state: LauncherState
    ) -> Float[Tensor, "B H W 3"]:
        self._lay_places(canvas, state.front_page, state)
        self._draw_dots(canvas, state)
        is_open = (state.open_folder != NONE).nonzero()[:, 0]
        if len(is_open):
            opened, phones = canvas[is_open] * _DIMMED, state[is_open]
            top = STATUS_HEIGHT + FOLDER_ROW * PLACE_HEIGHT
            paper = self._paper[phones.theme].view(-1, 1, 1, 3)
            opened[:, top - 3 : top + PLACE_HEIGHT + 1] = 0.85 * paper + 0.1
            self._lay_places(opened, phones.shown, phones)
            canvas[is_open] = opened
        return canvas

    def _lay_places(
        self, canvas: Float[Tensor, "B H W 3"], content: Int64[Tensor, "B 9"], state: LauncherState
    ) -> None:
        """Draw what lies at each place, over the canvas."""
        theme = state.theme[:, None]
        drawn = self._icons[theme, content.clamp(min=NONE, max=len(APPS) - 1)]
        folder = folder_of(content)
        is_folder = folder >= 0
        if bool(is_folder.any()):
            phone, _ = is_folder.nonzero(as_tuple=True)
            inside = state.folders[phone, folder[is_folder]]
            drawn[is_folder] = self._folders(state.theme[phone], inside)
        grid = drawn.view(-1, ROWS, COLUMNS, *drawn.shape[2:]).permute(0, 1, 3, 2, 4, 5)
        over = grid.reshape(len(canvas), ROWS * PLACE_HEIGHT, COLUMNS * PLACE_WIDTH, 4)
        area = canvas[:, STATUS_HEIGHT : STATUS_HEIGHT + ROWS * PLACE_HEIGHT]
        area += over[..., 3:] * (over[..., :3] - area)

    def _folders(
        self, theme: Int64[Tensor, " B"], inside: Int64[Tensor, "B A"]
    ) -> Float[Tensor, "B H W C"]:
        """Draw the icons of folders: small icons of what is inside, on a tile."""
        picture = self._folder[theme]
        left, top = (PLACE_WIDTH - ICON_SIZE) // 2 + 1, 2
        for number in range(FOLDER_SIZE):
            row, column = divmod(number, 2)
            x, y = left + column * (_MINI + 1), top + row * (_MINI + 1)
            mini = self._minis[theme, inside[:, number]]
            area = picture[:, y : y + _MINI, x : x + _MINI]
            area[..., :3] += mini[..., 3:] * (mini[..., :3] - area[..., :3])
        return picture

    def _draw_dots(self, canvas: Float[Tensor, "B H W 3"], state: LauncherState) -> None:
        left = SCREEN_SIZE // 2 - 3 * self._num_pages
        for page in range(self._num_pages):
            coverage = torch.where(state.page == page, 1.0, 0.3).view(-1, 1, 1, 1)
            x = left + 6 * page
            area = canvas[:, 90:92, x : x + 3]
            area += coverage * (self._ink[state.theme].view(-1, 1, 1, 3) - area)

    def _draw_app(self, state: LauncherState) -> Float[Tensor, "B H W 3"]:
        """Draw the open app: its icon and name in the title bar, and below what could be any's."""
        theme, listed = state.theme, state.listed
        paper = self._paper[theme].view(-1, 1, 1, 3)
        ink = self._ink[theme].view(-1, 1, 1, 3)
        canvas = paper.expand(-1, SCREEN_SIZE, SCREEN_SIZE, -1).clone()
        bar = canvas[:, STATUS_HEIGHT : STATUS_HEIGHT + _HEADER]
        bar += 0.12 * (ink - bar)
        title = self._titles[theme, state.app]
        bar += title[..., 3:] * (title[..., :3] - bar)
        body = canvas[:, STATUS_HEIGHT + _HEADER :]
        scroll = state.scroll[:, None] * 32 // 256 + torch.arange(body.shape[1], device=self.device)
        kind = listed[:, 0] % _SCREENSHOTS
        content = self._contents[kind[:, None], scroll][..., None]
        body += content.clamp(max=1) * (0.35 * (ink - body))
        accent = self._accents[listed[:, 1]].view(-1, 1, 1, 3)
        body += (content - 1).clamp(min=0) * (accent - body)
        self._lay_list(canvas, state)
        return canvas

    def _lay_list(self, canvas: Float[Tensor, "B H W 3"], state: LauncherState) -> None:
        """List other apps over an app's content, each as it would stand in its own title bar."""
        phone = torch.arange(len(canvas), device=self.device)[:, None]
        top = _LIST_TOP + (255 - state.scroll) * _LIST_SPAN // 256
        for number, listed in enumerate(state.listed.unbind(dim=1)):
            rows = (top + number * _LIST_ROW)[:, None] + torch.arange(_HEADER, device=self.device)
            title = self._titles[state.theme, listed]
            area = canvas[phone, rows]
            canvas[phone, rows] = area + title[..., 3:] * (title[..., :3] - area)

    def _draw_status(self, canvas: Float[Tensor, "B H W 3"], state: LauncherState) -> None:
        """Write the time and draw a battery."""
        ink = self._ink[state.theme].view(-1, 1, 1, 3)
        hour, minute = state.minute // 60, state.minute % 60
        colon = torch.full_like(hour, 10)
        shown = torch.stack((hour // 10, hour % 10, colon, minute // 10, minute % 10), dim=1)
        text = self._digits[shown].permute(0, 2, 1, 3).flatten(2)[..., None]
        area = canvas[:, 1 : 1 + text.shape[1], 3 : 3 + text.shape[2]]
        area += text * (ink - area)
        canvas[:, 2:5, 85:92] = ink

    def _draw_popup(
        self, canvas: Float[Tensor, "B H W 3"], state: LauncherState
    ) -> Float[Tensor, "B H W 3"]:
        left, top, right, bottom = POPUP
        canvas = canvas * _DIMMED
        canvas[:, top:bottom, left:right] = self._popups[state.popup]
        return canvas


def _colours(values: list[tuple[int, int, int]]) -> Float[Tensor, "N 3"]:
    return torch.tensor(values).float() / 255


def _coloured(mask: Float[Tensor, "H W"], rgb: Tensor) -> Float[Tensor, "H W C"]:
    return torch.cat((rgb.expand(*mask.shape, 3), mask[..., None]), dim=2)


def _over(below: Float[Tensor, "H W C"], above: Float[Tensor, "H W C"]) -> Float[Tensor, "H W C"]:
    """Lay one picture with coverage over another."""
    alpha = above[..., 3:] + below[..., 3:] * (1 - above[..., 3:])
    colour = above[..., :3] * above[..., 3:]
    colour = colour + below[..., :3] * below[..., 3:] * (1 - above[..., 3:])
    return torch.cat((colour / alpha.clamp(min=1e-6), alpha), dim=2)


def _icon(index: int, theme: Theme, size: int) -> Float[Tensor, "P P C"]:
    """Draw the icon of an app: its glyph on a tile."""
    app = APPS[index]
    tile, glyph = theme.icon_colours(app.rgb)
    glyph_size = round(size * 0.68)
    before = (size - glyph_size) // 2
    after = size - glyph_size - before
    mask = functional.pad(glyph_mask(app.glyph, glyph_size), (before, after, before, after))
    return _over(
        _coloured(tile_mask(size, theme.roundness), _colours([tile])[0]),
        _coloured(mask, _colours([glyph])[0]),
    )


def _at_place(icon: Float[Tensor, "P P C"], label: str, theme: Theme) -> Float[Tensor, "H W C"]:
    """Put an icon and its label where they belong in a place."""
    side = (PLACE_WIDTH - ICON_SIZE) // 2
    picture = functional.pad(icon, (0, 0, side, side, 1, PLACE_HEIGHT - ICON_SIZE - 1))
    text = text_mask(label, PLACE_WIDTH)
    below = PLACE_HEIGHT - _LABEL_TOP - text.shape[0]
    text = functional.pad(text, (0, 0, _LABEL_TOP, below))
    return _over(picture, _coloured(text, _colours([theme.ink])[0]))


@functools.cache
def _places(theme: Theme) -> tuple[Float[Tensor, "N H W C"], Float[Tensor, "A P P C"]]:
    """Draw every app at a place, and small for folders; an empty place is the last of the first."""
    whole = [_at_place(_icon(index, theme, ICON_SIZE), APPS[index].name, theme)
             for index in range(len(APPS))]  # fmt: skip
    minis = [_icon(index, theme, _MINI) for index in range(len(APPS))]
    return torch.stack([*whole, torch.zeros_like(whole[0])]), torch.stack(minis)


@functools.cache
def _folder_place(theme: Theme) -> Float[Tensor, "H W C"]:
    tile = _coloured(tile_mask(ICON_SIZE, 0.5), 0.6 * _colours([theme.paper])[0] + 0.2)
    return _at_place(tile, "Folder", theme)


def _wallpaper(theme: Theme) -> Float[Tensor, "H W 3"]:
    top, bottom = _colours([theme.top, theme.bottom])
    slope = torch.linspace(0, 1, SCREEN_SIZE).view(-1, 1, 1)
    column: Tensor = top + slope * (bottom - top)
    return column.expand(-1, SCREEN_SIZE, -1)


@functools.cache
def _titles(theme: Theme) -> Float[Tensor, "A H W C"]:
    """Draw what is in every app's title bar: its icon and its name."""
    bars = []
    for index, app in enumerate(APPS):
        icon = _icon(index, theme, _TITLE_ICON)
        below, right = _HEADER - _TITLE_ICON - 2, SCREEN_SIZE - _TITLE_ICON - 4
        picture = functional.pad(icon, (0, 0, 4, right, 2, below))
        name = text_mask(app.name)
        left, top = 22, (_HEADER - name.shape[0]) // 2
        after, under = SCREEN_SIZE - left - name.shape[1], _HEADER - top - name.shape[0]
        written = functional.pad(name, (left, after, top, under))
        bars.append(_over(picture, _coloured(written, _colours([theme.ink])[0])))
    return torch.stack(bars)


@functools.cache
def _contents() -> Float[Tensor, "N H W"]:
    """Draw what apps show, longer than the screen: 1 is grey, 2 is a colour, 0 nothing."""
    y = torch.arange(128).view(-1, 1)
    x = torch.arange(SCREEN_SIZE).view(1, -1)
    inside = (x >= 5) & (x < SCREEN_SIZE - 5)
    line = (y % 14 >= 4) & (y % 14 < 7) & inside
    bullet = (y % 14 >= 3) & (y % 14 < 9) & (x >= 5) & (x < 11)
    listed = torch.where(bullet, 2, (line & (x >= 15)).int())
    text = ((y % 7 < 3) & inside & (x < 60 + 7 * (y // 7 % 5))).int()
    tiles = torch.where(
        (y % 22 >= 3) & (x % 23 >= 4) & (x < 94), torch.where((y // 22 + x // 23) % 3 == 0, 2, 1), 0
    )
    roads = torch.where((x + y) % 31 < 4, 2, ((2 * x - y) % 43 < 5).int())
    bars = torch.where(
        (x % 13 >= 4) & ((y % 48) > 8 + 29 * x % 37) & inside, 2, (y % 48 == 46).int()
    )
    squared = ((x - 48) ** 2 + (y % 64 - 32) ** 2).float()
    disc = torch.where(squared < 13**2, 2, ((squared > 19**2) & (squared < 24**2)).int())
    return torch.stack([listed, text, tiles, roads, bars, disc]).float()


@functools.cache
def _popups() -> Float[Tensor, "A H W 3"]:
    """Draw the pop-ups that advertise each app."""
    left, top, right, bottom = POPUP
    button = [round(value * SCREEN_SIZE) for value in POPUP_BUTTON]
    plain = next(theme for theme in THEMES if theme.name == "light")
    popups = []
    for index, app in enumerate(APPS):
        box = torch.full((bottom - top, right - left, 3), 0.97)
        icon = _icon(index, plain, ICON_SIZE)
        middle = (right - left - ICON_SIZE) // 2
        area = box[4 : 4 + ICON_SIZE, middle : middle + ICON_SIZE]
        area += icon[..., 3:] * (icon[..., :3] - area)
        title = text_mask(f"Try {app.name}?", right - left)
        box[27:32] *= 1 - 0.85 * title[..., None]
        ok = text_mask("OK", button[2] - button[0])
        area = box[button[1] - top : button[3] - top, button[0] - left : button[2] - left]
        area[:] = torch.tensor((0.25, 0.45, 0.85))
        area[5:10] += ok[..., None] * (1 - area[5:10])
        popups.append(box)
    return torch.stack(popups)
