"""How phones look: wallpapers, writing, and the shape and colours of icons."""

from dataclasses import dataclass

RGB = tuple[int, int, int]


@dataclass(frozen=True)
class Theme:
    """A look.

    Attributes:
        name: What it is called.
        top: Colour of the wallpaper's upper edge, 0 to 255, as all colours.
        bottom: Of its lower edge; between them it changes evenly.
        ink: Of what is written on it.
        paper: Behind the content of apps and folders.
        roundness: Of icons: 0 is a square, 1 a disc.
        icons: ``colour`` for white glyphs on the app's colour, ``outline`` for glyphs in the app's
            colour on white, ``mono`` for the same two colours in all icons.
    """

    name: str
    top: RGB
    bottom: RGB
    ink: RGB
    paper: RGB
    roundness: float
    icons: str

    def icon_colours(self, app: RGB) -> tuple[RGB, RGB]:
        """Return the colours of tile and glyph of an app's icon."""
        if self.icons == "outline":
            return (250, 250, 250), app
        if self.icons == "mono":
            return self.paper, self.ink
        return app, (255, 255, 255)


_WHITE, _BLACK = (255, 255, 255), (20, 22, 28)
THEMES = (
    Theme("light", (235, 240, 248), (200, 212, 232), _BLACK, (250, 250, 252), 0.5, "colour"),
    Theme("dark", (24, 26, 36), (8, 8, 14), _WHITE, (34, 36, 46), 0.5, "colour"),
    Theme("meadow", (96, 146, 166), (56, 104, 58), _WHITE, (30, 52, 40), 1.0, "colour"),
    Theme("dusk", (90, 50, 110), (220, 130, 90), _WHITE, (52, 34, 62), 1.0, "outline"),
    Theme("paper", (246, 238, 222), (228, 214, 188), _BLACK, (252, 248, 238), 0.0, "outline"),
    Theme("mono", (96, 104, 116), (60, 66, 76), _WHITE, (44, 50, 58), 0.5, "mono"),
)
