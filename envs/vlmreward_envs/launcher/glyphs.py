"""Pictures on icons, and letters: small coverage masks.

Glyphs are predicates on the unit square, as in :mod:`vlmreward_envs.sprites`; letters are five
rows of three pixels.

Axis letters: ``P`` pixels along one side of a glyph, ``H W`` pixels of a text.
"""

from collections.abc import Callable
from enum import IntEnum

import torch
from jaxtyping import Float
from torch import Tensor

from vlmreward_envs.sprites import pixels, star, unit_square

LETTER_HEIGHT, LETTER_WIDTH = 5, 4  # the last column is empty


class Glyph(IntEnum):
    """What can be drawn on an icon."""

    DISC = 0
    RING = 1
    SQUARE = 2
    FRAME = 3
    STAR = 4
    PLUS = 5
    BARS = 6
    TRIANGLE = 7
    MOON = 8
    ENVELOPE = 9
    HOURGLASS = 10
    ARROW = 11


def _disc(x: Tensor, y: Tensor) -> Tensor:
    return x**2 + y**2 < 0.42**2


def _ring(x: Tensor, y: Tensor) -> Tensor:
    radius = x**2 + y**2
    return (radius < 0.46**2) & (radius > 0.24**2)


def _square(x: Tensor, y: Tensor) -> Tensor:
    return (x.abs() < 0.36) & (y.abs() < 0.36)


def _frame(x: Tensor, y: Tensor) -> Tensor:
    outer = (x.abs() < 0.42) & (y.abs() < 0.42)
    return outer & ~((x.abs() < 0.22) & (y.abs() < 0.22))


def _plus(x: Tensor, y: Tensor) -> Tensor:
    arms = torch.minimum(x.abs(), y.abs()) < 0.13
    return arms & (torch.maximum(x.abs(), y.abs()) < 0.45)


def _bars(x: Tensor, y: Tensor) -> Tensor:
    left = (x > -0.42) & (x < -0.18) & (y > 0.05)
    middle = (x.abs() < 0.12) & (y > -0.2)
    right = (x > 0.18) & (x < 0.42) & (y > -0.45)
    return (left | middle | right) & (y < 0.45)


def _triangle(x: Tensor, y: Tensor) -> Tensor:
    return (x > -0.32) & (x < 0.46) & (y.abs() < 0.58 * (0.46 - x))


def _moon(x: Tensor, y: Tensor) -> Tensor:
    return (x**2 + y**2 < 0.45**2) & ((x - 0.22) ** 2 + (y + 0.12) ** 2 > 0.36**2)


def _envelope(x: Tensor, y: Tensor) -> Tensor:
    paper = (x.abs() < 0.46) & (y.abs() < 0.32)
    fold = (y - (0.06 - 0.7 * x.abs())).abs() < 0.06
    return paper & ~fold


def _hourglass(x: Tensor, y: Tensor) -> Tensor:
    return (y.abs() < 0.44) & (x.abs() < 0.08 + 0.75 * y.abs())


def _arrow(x: Tensor, y: Tensor) -> Tensor:
    head = (y < 0.0) & (y > -0.46) & (x.abs() < 0.9 * (y + 0.46))
    shaft = (x.abs() < 0.13) & (y >= 0.0) & (y < 0.45)
    return head | shaft


_PREDICATES: dict[Glyph, Callable[[Tensor, Tensor], Tensor]] = {
    Glyph.DISC: _disc,
    Glyph.RING: _ring,
    Glyph.SQUARE: _square,
    Glyph.FRAME: _frame,
    Glyph.STAR: star,
    Glyph.PLUS: _plus,
    Glyph.BARS: _bars,
    Glyph.TRIANGLE: _triangle,
    Glyph.MOON: _moon,
    Glyph.ENVELOPE: _envelope,
    Glyph.HOURGLASS: _hourglass,
    Glyph.ARROW: _arrow,
}


def glyph_mask(glyph: Glyph, size: int) -> Float[Tensor, "P P"]:
    """Draw a glyph: coverage, 0 to 1."""
    return pixels(_PREDICATES[glyph](*unit_square(size)))


def tile_mask(size: int, roundness: float) -> Float[Tensor, "P P"]:
    """Draw an icon's tile: coverage of a square whose corners are rounded.

    Args:
        size: Side, in pixels.
        roundness: 0 is a square, 1 a circle.
    """
    x, y = unit_square(size)
    radius = 0.5 * roundness
    over = (torch.stack((x.abs(), y.abs())) - (0.5 - radius)).clamp(min=0)
    return pixels((over**2).sum(dim=0) <= max(radius, 1e-6) ** 2)


def text_mask(text: str, width: int | None = None, scale: int = 1) -> Float[Tensor, "H W"]:
    """Write a text in capitals: coverage, 0 or 1.

    Args:
        text: Letters, digits and what else the font has.
        width: Width to centre it in; as wide as it is by default.
        scale: Pixels of the mask per pixel of the font.

    Raises:
        ValueError: If the font lacks a character, or the text is too wide.
    """
    if lacking := set(text.upper()) - set(_ROWS):
        raise ValueError(f"got {text!r}; the font has no {sorted(lacking)}")
    letters = [
        torch.tensor([[bit == "#" for bit in row] for row in _ROWS[c]]) for c in text.upper()
    ]
    mask = torch.cat(letters, dim=1).float() if letters else torch.zeros(LETTER_HEIGHT, 0)
    mask = mask.repeat_interleave(scale, dim=0).repeat_interleave(scale, dim=1)
    if width is None:
        return mask
    if mask.shape[1] - scale > width:
        raise ValueError(f"{text!r} is {mask.shape[1]} pixels wide, expected at most {width}")
    mask = mask[:, : mask.shape[1] - scale]
    left = (width - mask.shape[1]) // 2
    return torch.nn.functional.pad(mask, (left, width - mask.shape[1] - left))


def _rows(bits: str) -> tuple[str, ...]:
    """Turn five octal digits, a row of three pixels each, into rows of '#' and '.'."""
    rows = []
    for digit in bits:
        row = "".join("#" if int(digit) & bit else "." for bit in (4, 2, 1))
        rows.append(row + ".")
    return tuple(rows)


_ROWS = {
    character: _rows(bits)
    for character, bits in {
        "A": "25755", "B": "65656", "C": "34443", "D": "65556", "E": "74647", "F": "74644",
        "G": "34553", "H": "55755", "I": "72227", "J": "11152", "K": "55655", "L": "44447",
        "M": "57755", "N": "65555", "O": "25552", "P": "65644", "Q": "25563", "R": "65655",
        "S": "34216", "T": "72222", "U": "55557", "V": "55552", "W": "55775", "X": "55255",
        "Y": "55222", "Z": "71247", " ": "00000", ":": "02020", "?": "61202",
        "0": "75557", "1": "26227", "2": "61247", "3": "61216", "4": "55711", "5": "74616",
        "6": "34757", "7": "71122", "8": "75757", "9": "75716",
    }.items()
}  # fmt: skip
