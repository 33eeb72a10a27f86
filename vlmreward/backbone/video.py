"""From frames to tokens: tubelets, a small convolutional stem, or the image tower of a CLIP.

Tubelets (Arnab et al. 2021, "ViViT", `arXiv 2103.15691 <https://arxiv.org/abs/2103.15691>`_) are
boxes of a few frames by a few pixels, each projected by itself. Overlapping convolutions find
objects of a few pixels with less data, wherever the grid cuts them.

Axis letters: ``B`` batch, ``T`` frames, ``H W`` pixels, ``K`` tokens, ``N`` images, ``C`` and
``O`` channels, ``S R`` places of a feature map, ``D`` width.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import timm
import torch
from jaxtyping import Float, Shaped
from open_clip.constants import OPENAI_DATASET_MEAN, OPENAI_DATASET_STD
from torch import Tensor, nn

from vlmreward.backbone.layers import learned, linear, seeded_by
from vlmreward.encoders import towers  # noqa: F401 (makes our image towers known to timm)

_CONV_STRIDE = 8
_CHANNELS_PER_GROUP = 8


@dataclass(frozen=True)
class TubeletConfig:
    """Frames cut into boxes that do not overlap.

    Attributes:
        num_frames: Frames of a clip.
        height: Of a frame in pixels.
        width: Of a frame in pixels.
        embed_dim: Width of a token.
        tubelet_frames: Frames of a box; they divide those of the clip.
        tubelet_size: Pixels of a box each way; they divide height and width.

    Raises:
        ValueError: If boxes do not fill the clip.
    """

    num_frames: int
    height: int
    width: int
    embed_dim: int = 128
    tubelet_frames: int = 2
    tubelet_size: int = 8

    def __post_init__(self) -> None:
        _check_divides("tubelet_frames", self.tubelet_frames, "num_frames", self.num_frames)
        _check_divides("tubelet_size", self.tubelet_size, "height", self.height)
        _check_divides("tubelet_size", self.tubelet_size, "width", self.width)

    @property
    def grid(self) -> tuple[int, int, int]:
        """Boxes in time, downwards and across."""
        size = self.tubelet_size
        return self.num_frames // self.tubelet_frames, self.height // size, self.width // size

    @property
    def num_tokens(self) -> int:
        """K."""
        return math.prod(self.grid)


class TubeletTokens(nn.Module):
    """Projects each box of a clip to a token, and adds a learned position.

    Tokens lie frame by frame, row by row.

    Args:
        config: Sizes.
        generator: Draws the initial weights.
    """

    def __init__(self, config: TubeletConfig, generator: torch.Generator) -> None:
        super().__init__()
        self.config = config
        num_values = config.tubelet_frames * config.tubelet_size**2 * 3
        self.projection = linear(num_values, config.embed_dim, generator)
        self.positions = learned(config.num_tokens, config.embed_dim, generator=generator)

    def forward(self, frames: Shaped[Tensor, "B T H W 3"]) -> Float[Tensor, "B K D"]:
        """One token per box.

        Args:
            frames: uint8 in 0–255, or floating point in [0, 1].

        Raises:
            ValueError: If their type, range or sizes are others.
        """
        config = self.config
        _check_sizes(frames, (config.num_frames, config.height, config.width))
        time, down, across = config.grid
        size = config.tubelet_size
        shape = (len(frames), time, config.tubelet_frames, down, size, across, size, 3)
        boxes = _centred(frames).reshape(shape).permute(0, 1, 3, 5, 2, 4, 6, 7)
        tokens: Float[Tensor, "B K D"] = self.projection(boxes.flatten(4).flatten(1, 3))
        return tokens + self.positions


@dataclass(frozen=True)
class GridTokensConfig:
    """Frames seen through convolutions, then pooled to a grid.

    Attributes:
        num_frames: Frames of a clip.
        height: Of a frame in pixels.
        width: Of a frame in pixels.
        embed_dim: Width of a token.
        grid: Tokens of a frame each way; it divides height and width of the map of features.

    Raises:
        ValueError: If there is no frame.
    """

    num_frames: int
    height: int = 96
    width: int = 96
    embed_dim: int = 128
    grid: int = 6

    def __post_init__(self) -> None:
        if self.num_frames < 1:
            raise ValueError(f"got num_frames={self.num_frames}, expected at least 1")

    @property
    def num_tokens(self) -> int:
        """K."""
        return self.num_frames * self.grid**2


class GridTokens(ABC, nn.Module):
    """A map of each frame's features by itself, and one token per cell of a grid.

    A cell's mean and maximum are projected together: the maximum keeps what happens in one place of
    it. Tokens lie frame by frame, row by row; each gets a learned position for its frame and one
    for its cell.

    Args:
        config: Sizes.
        num_channels: C, of the map.
        generator: Draws the initial weights.
    """

    def __init__(
        self, config: GridTokensConfig, num_channels: int, generator: torch.Generator
    ) -> None:
        super().__init__()
        self._sizes = config
        self.projection = linear(2 * num_channels, config.embed_dim, generator)
        self.frame_positions = learned(config.num_frames, config.embed_dim, generator=generator)
        self.cell_positions = learned(config.grid**2, config.embed_dim, generator=generator)

    def forward(self, frames: Shaped[Tensor, "B T H W 3"]) -> Float[Tensor, "B K D"]:
        """One token per cell of each frame.

        Args:
            frames: uint8 in 0–255, or floating point in [0, 1].

        Raises:
            ValueError: If their type, range or sizes are others.
        """
        config = self._sizes
        _check_sizes(frames, (config.num_frames, config.height, config.width))
        images = _centred(frames).flatten(0, 1).permute(0, 3, 1, 2)
        features = self._features(images)
        size = (features.shape[2] // config.grid, features.shape[3] // config.grid)
        pooled = torch.cat(
            [
                nn.functional.avg_pool2d(features, size),
                nn.functional.max_pool2d(features, size),
            ],
            dim=1,
        )
        tokens = self.projection(pooled.flatten(2).mT)
        tokens = tokens.reshape(len(frames), config.num_frames, config.grid**2, config.embed_dim)
        placed: Tensor = tokens + self.frame_positions[:, None] + self.cell_positions
        return placed.flatten(1, 2)

    @abstractmethod
    def _features(self, images: Float[Tensor, "N 3 H W"]) -> Float[Tensor, "N C S R"]:
        """Return a map of images whose values are in [-1, 1]."""


@dataclass(frozen=True)
class ConvTokensConfig(GridTokensConfig):
    """Convolutions that are trained with all that reads their tokens.

    Attributes:
        num_frames: Frames of a clip.
        height: Of a frame in pixels, a multiple of 8.
        width: Of a frame in pixels, a multiple of 8.
        embed_dim: Width of a token.
        grid: Tokens of a frame each way; it divides an eighth of height and width.
        channels: Of the 8×8 patches at stride 4, and of each 3×3 convolution after them; the first
            of these goes to stride 8. Multiples of 8.

    Raises:
        ValueError: If sizes do not divide.
    """

    channels: tuple[int, ...] = (32, 64, 64, 96)

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("height", "width"):
            _check_divides("the stride", _CONV_STRIDE, name, getattr(self, name))
            eighth = getattr(self, name) // _CONV_STRIDE
            _check_divides("grid", self.grid, f"an eighth of {name}", eighth)
        if len(self.channels) < 2:
            raise ValueError(f"got channels={self.channels}, expected at least two layers")
        for channels in self.channels:
            _check_divides("channels of a group", _CHANNELS_PER_GROUP, "channels", channels)


class ConvTokens(GridTokens):
    """Convolutions over each frame by itself, and one token per cell of a grid.

    Norms are over groups of channels of one frame; a batch norm would mix the rows.

    Args:
        config: Sizes.
        generator: Draws the initial weights.
    """

    def __init__(self, config: ConvTokensConfig, generator: torch.Generator) -> None:
        super().__init__(config, config.channels[-1], generator)
        self.config = config
        layers = [_ConvNorm(3, config.channels[0], generator, kernel_size=8, stride=4, padding=2)]
        for layer, (before, after) in enumerate(pairwise(config.channels)):
            stride = 2 if layer == 0 else 1
            layers.append(
                _ConvNorm(before, after, generator, kernel_size=3, stride=stride, padding=1)
            )
        self.layers = nn.Sequential(*layers)

    def _features(self, images: Float[Tensor, "N 3 H W"]) -> Float[Tensor, "N C S R"]:
        features: Float[Tensor, "N C S R"] = self.layers(images)
        return features


@dataclass(frozen=True)
class TowerTokensConfig(GridTokensConfig):
    """The image tower of a CLIP, up to where it would pool its map of features.

    Attributes:
        num_frames: Frames of a clip.
        height: Of a frame in pixels, as the CLIP reads it.
        width: Of a frame in pixels, as the CLIP reads it.
        embed_dim: Width of a token.
        grid: Tokens of a frame each way; it divides height and width of the map.
        tower: Its name in timm.
        mean: Per channel, subtracted from values in [0, 1]; open_clip's by default.
        std: Per channel, divided by; above 0.

    Raises:
        ValueError: If mean or std are not of three channels, or a std is not above 0.
    """

    tower: str = "patch_convnet"
    mean: tuple[float, ...] = OPENAI_DATASET_MEAN
    std: tuple[float, ...] = OPENAI_DATASET_STD

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("mean", "std"):
            values = getattr(self, name)
            if len(values) != 3:
                raise ValueError(
                    f"got {name}={values}, expected one value for each of red, green and blue"
                )
        if min(self.std) <= 0:
            raise ValueError(f"got std={self.std}, expected values above 0, to divide by")


class TowerTokens(GridTokens):
    """The image tower of a CLIP, and one token per cell of its map of features.

    The tower is not trained, and stays in evaluation mode: its batch norms neither mix rows nor
    forget what they have measured. Its weights are random until `start_from_clip`.

    Args:
        config: Sizes.
        generator: Draws the initial weights.

    Raises:
        ValueError: If the tower is unknown, gives no map, or one that the grid does not divide.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, config: TowerTokensConfig, generator: torch.Generator) -> None:
        with seeded_by(generator):
            tower = _image_tower(config.tower)
            shape = _map_shape(tower, config)
        super().__init__(config, shape[0], generator)
        self.config = config
        self.tower = tower.requires_grad_(False)
        for name, length in zip(("height", "width"), shape[1:], strict=True):
            _check_divides("grid", config.grid, f"{name} of the map", length)
        statistics = zip(("mean", "std"), (config.mean, config.std), strict=True)
        for name, values in statistics:
            self.register_buffer(name, torch.tensor(values).view(3, 1, 1), persistent=False)

    def train(self, mode: bool = True) -> TowerTokens:
        """Go to training mode, but for the tower."""
        super().train(mode)
        self.tower.eval()
        return self

    def _features(self, images: Float[Tensor, "N 3 H W"]) -> Float[Tensor, "N C S R"]:
        features: Float[Tensor, "N C S R"] = self.tower.forward_features(
            ((images + 1) / 2 - self.mean) / self.std
        )
        return features


def _image_tower(name: str) -> Any:
    try:
        return timm.create_model(name, pretrained=False, num_classes=0).eval()
    except RuntimeError as error:
        raise ValueError(
            f"got tower={name!r}, expected the name of an image tower of timm: {error}"
        ) from error


@torch.no_grad()
def _map_shape(tower: Any, config: TowerTokensConfig) -> tuple[int, int, int]:
    features = tower.forward_features(torch.zeros(1, 3, config.height, config.width))
    if features.ndim != 4:
        raise ValueError(
            f"got tower={config.tower!r}, whose features have shape {list(features.shape)}, "
            "expected a map [1, C, S, R]: take a convolutional tower"
        )
    num_channels, height, width = features.shape[1:]
    return num_channels, height, width


class _ConvNorm(nn.Module):
    """Convolution, norm over groups of channels, GELU."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        generator: torch.Generator,
        *,
        kernel_size: int,
        stride: int,
        padding: int,
    ) -> None:
        super().__init__()
        conv = nn.Conv2d(
            in_channels, out_channels, kernel_size, stride, padding, bias=False, device="meta"
        )
        self.conv = conv.to_empty(device="cpu")
        std = math.sqrt(2 / (in_channels * kernel_size**2))
        nn.init.normal_(self.conv.weight, std=std, generator=generator)
        self.norm = nn.GroupNorm(out_channels // _CHANNELS_PER_GROUP, out_channels)

    def forward(self, x: Float[Tensor, "N C H W"]) -> Float[Tensor, "N O S R"]:
        """Convolve, normalise, rectify."""
        rectified: Float[Tensor, "N O S R"] = nn.functional.gelu(self.norm(self.conv(x)))
        return rectified


def _centred(frames: Shaped[Tensor, "B T H W 3"]) -> Float[Tensor, "B T H W 3"]:
    """Frames with values in [-1, 1]."""
    if frames.dtype == torch.uint8:
        return frames / 127.5 - 1
    if not frames.is_floating_point():
        raise ValueError(f"got frames of dtype {frames.dtype}, expected uint8 or floating point")
    low, high = (value.item() for value in frames.aminmax())
    if not (low >= 0 and high <= 1):
        raise ValueError(
            f"got floating point frames from {low:.4g} to {high:.4g}, expected them in [0, 1]: "
            "pass bytes as uint8"
        )
    return 2 * frames - 1


def _check_sizes(frames: Tensor, expected: tuple[int, int, int]) -> None:
    if tuple(frames.shape[1:4]) != expected:
        raise ValueError(
            f"got frames of shape {list(frames.shape)}, expected [B, T, H, W, 3] with T, H, W = "
            f"{list(expected)}: resize them, or configure these sizes"
        )


def _check_divides(name: str, divisor: int, whole_name: str, whole: int) -> None:
    if divisor < 1 or whole < divisor or whole % divisor:
        fitting = [size for size in range(1, whole + 1) if whole % size == 0]
        raise ValueError(
            f"got {name} = {divisor} and {whole_name} = {whole}, expected the first to divide the "
            f"second: take one of {fitting}, or another {whole_name}"
        )
