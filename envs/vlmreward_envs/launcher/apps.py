"""The apps of the Launcher: their names and what their icons look like.

No two apps have the same icon: every glyph comes in five of the six colours. So each app has nine
others of its colour and four with its glyph.
"""

from dataclasses import dataclass

from vlmreward_envs.launcher.glyphs import Glyph

COMMON_NAMES = (
    "Calendar", "Camera", "Clock", "Contacts", "Gallery",
    "Mail", "Maps", "Messages", "Phone", "Settings",
)  # fmt: skip
MORE_NAMES = (
    "Alarm", "Atlas", "Bank", "Books", "Browser", "Budget", "Cards", "Chat", "Chess", "Cinema",
    "Compass", "Cooking", "Diary", "Doctor", "Drawing", "Files", "Fitness", "Flights", "Garden",
    "Grocery", "Guitar", "Health", "Hotels", "Journal", "Library", "Metro", "Movies", "Music",
    "News", "Notes", "Paint", "Parking", "Photos", "Piano", "Podcast", "Puzzle", "Radio",
    "Recipes", "Running", "Scanner", "Shop", "Sleep", "Stocks", "Taxi", "Tennis", "Tickets",
    "Trains", "Videos", "Wallet", "Weather",
)  # fmt: skip
TILE_COLOURS = {
    "red": (205, 50, 55),
    "orange": (225, 130, 30),
    "green": (50, 150, 70),
    "teal": (30, 145, 160),
    "blue": (50, 90, 205),
    "purple": (135, 65, 175),
}


@dataclass(frozen=True)
class App:
    """An app.

    Attributes:
        name: What its label and its title say, and what sentences call it.
        glyph: What is drawn on its icon.
        colour: Name of its icon's colour.
    """

    name: str
    glyph: Glyph
    colour: str

    @property
    def rgb(self) -> tuple[int, int, int]:
        """The colour, 0 to 255."""
        return TILE_COLOURS[self.colour]


def _app(index: int, name: str) -> App:
    glyph = index % len(Glyph)
    colour = (index // len(Glyph) + glyph) % len(TILE_COLOURS)
    return App(name, Glyph(glyph), tuple(TILE_COLOURS)[colour])


APPS = tuple(_app(index, name) for index, name in enumerate((*COMMON_NAMES, *MORE_NAMES)))
APP_NAMES = tuple(app.name for app in APPS)
