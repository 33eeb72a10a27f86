"""How a frame is drawn, cut and sized before anything looks at it.

Axes: `H W` size as drawn, `S T` size as captured, pixels.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import UInt8
from numpy.typing import NDArray
from torchvision.transforms import InterpolationMode  # type: ignore[import-untyped]
from torchvision.transforms.v2 import functional as tv  # type: ignore[import-untyped]

from vlmreward.frames import FrameError
from vlmreward.renderers import REMEDIES

Crop = tuple[int, int | None, int, int | None]
"""Top, bottom, left, right: `frame[top:bottom, left:right]`, None for the frame's own edge."""


@dataclass(frozen=True)
class FrameCapture:
    """What is done to a frame, in this order: draw, repair, crop, rotate, resize.

    Resizing is bicubic and of bytes. It keeps the aspect ratio: a size of another shape is refused,
    since a reward model would be shown a squeezed picture. Crop to the wanted shape first.

    Attributes:
        size: Height and width of what comes out, pixels. Best the encoder's own input size. A
            renderer that can draw any size (MuJoCo) draws this one, unless `crop` is given.
        crop: Which part to keep, in pixels of the frame as drawn: top, bottom, left, right, as in
            `frame[top:bottom, left:right]`. None in place of bottom or right is the frame's edge.
        rotate: By how many degrees, counter-clockwise: 0, 90, 180 or 270.
        fast: Have MuJoCo (Gymnasium's, and dm_control's suite) draw without antialiasing, shadows
            and reflections. In software this is several times faster; the picture is another.
        skip_remedies: Names of remedies (`vlmreward.renderers.REMEDIES`) not to apply.

    Example:
        >>> import numpy as np
        >>> capture = FrameCapture(size=(2, 3), crop=(1, 5, 0, 6), rotate=180)
        >>> capture(np.zeros((5, 8, 3), np.uint8)).shape
        (2, 3, 3)
        >>> capture.config()["crop"]
        [1, 5, 0, 6]
        >>> FrameCapture.from_config(capture.config()) == capture
        True

    Raises:
        ValueError: If a size is not positive, the crop is empty or reaches outside, the rotation
            is not a multiple of 90 below 360, or a remedy is unknown.
    """

    size: tuple[int, int]
    crop: Crop | None = None
    rotate: int = 0
    fast: bool = False
    skip_remedies: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if len(self.size) != 2 or min(self.size) <= 0:
            raise ValueError(f"expected a positive size (height, width), got {self.size}")
        if self.rotate not in (0, 90, 180, 270):
            raise ValueError(f"expected rotate to be 0, 90, 180 or 270, got {self.rotate}")
        if self.crop is not None:
            _check_crop(self.crop)
        unknown = sorted(set(self.skip_remedies) - set(REMEDIES))
        if unknown:
            raise ValueError(f"expected names of remedies from {list(REMEDIES)}, got {unknown}")

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> FrameCapture:
        """Makes the capture that `config()` describes.

        Raises:
            TypeError: If an option is unknown, or `size` is missing.
            ValueError: See the class.
        """
        options: dict[str, Any] = {
            name: tuple(value) if isinstance(value, list) else value
            for name, value in config.items()
        }
        return cls(**options)

    @property
    def draw_size(self) -> tuple[int, int] | None:
        """The size at which to draw, so that nothing is left to resize; None with a crop."""
        if self.crop is not None:
            return None
        height, width = self.size
        return (width, height) if self.rotate in (90, 270) else (height, width)

    def __call__(self, frame: UInt8[NDArray[Any], "H W 3"]) -> UInt8[NDArray[Any], "S T 3"]:
        """Crops, rotates and resizes a frame, into an array of its own.

        Raises:
            FrameError: If the crop reaches outside the frame, or if resizing would distort.
        """
        if self.crop is not None:
            frame = _crop(frame, self.crop)
        frame = np.rot90(frame, self.rotate // 90).copy()
        if frame.shape[:2] == self.size:
            return frame
        _refuse_distortion(frame.shape[:2], self.size)
        pixels = torch.from_numpy(frame).permute(2, 0, 1)
        resized = tv.resize(
            pixels, list(self.size), interpolation=InterpolationMode.BICUBIC, antialias=True
        )
        return np.ascontiguousarray(resized.permute(1, 2, 0).numpy())

    def config(self) -> dict[str, Any]:
        """Returns the options as JSON types; `from_config` reads them."""
        return {
            "size": list(self.size),
            "crop": None if self.crop is None else list(self.crop),
            "rotate": self.rotate,
            "fast": self.fast,
            "skip_remedies": list(self.skip_remedies),
        }


def _check_crop(crop: Crop) -> None:
    top, bottom, left, right = crop
    sides = ((top, bottom), (left, right))
    if any(start < 0 or (stop is not None and stop <= start) for start, stop in sides):
        raise ValueError(
            "expected a crop (top, bottom, left, right) with 0 <= top < bottom and "
            f"0 <= left < right, got {crop}"
        )


def _crop(frame: NDArray[Any], crop: Crop) -> NDArray[Any]:
    top, bottom, left, right = crop
    height, width = frame.shape[:2]
    bottom, right = bottom or height, right or width
    if not (top < bottom <= height and left < right <= width):
        raise FrameError(
            f"expected a crop inside the frame of {height}x{width} pixels (height x width), got "
            f"(top, bottom, left, right) = {crop}"
        )
    return frame[top:bottom, left:right]


def _refuse_distortion(drawn: tuple[int, ...], size: tuple[int, int]) -> None:
    """Lets pass what differs from the same aspect ratio by less than a pixel."""
    (height, width), (rows, columns) = drawn, size
    if abs(width * rows / height - columns) < 1 or abs(height * columns / width - rows) < 1:
        return
    scale = min(height / rows, width / columns)
    kept_height, kept_width = round(rows * scale), round(columns * scale)
    top, left = (height - kept_height) // 2, (width - kept_width) // 2
    centre = (top, top + kept_height, left, left + kept_width)
    raise FrameError(
        f"resizing {height}x{width} (height x width) to {rows}x{columns} would distort the "
        f"picture: choose a size of the same shape, such as {(rows, round(width * rows / height))},"
        f" or keep a part of that shape, such as crop={centre} for the centre"
    )
