"""Small convolutional image towers for in-domain CLIPs, known to timm and so to open_clip.

Importing this module registers ``patch_convnet``, and smaller and larger ones, with timm: an
open_clip configuration can then name them as its ``timm_model_name``.

Axis letters: ``B`` batch, ``H W`` pixels, ``D`` width of the output.
"""

from collections.abc import Callable

import torch
from jaxtyping import Float
from timm.models import register_model
from torch import Tensor, nn
from torch.nn import functional

PATCH_CONVNETS = {
    "patch_convnet_xs": (4, 8, 8, 12, 24),
    "patch_convnet_s": (8, 16, 16, 24, 64),
    "patch_convnet_m": (16, 32, 32, 48, 128),
    "patch_convnet": (32, 64, 64, 96, 256),
    "patch_convnet_xl": (48, 96, 96, 144, 384),
    "patch_convnet_xxl": (256, 512, 512, 768, 2048),
    "patch_convnet_xxxl": (864, 1728, 1728, 2592, 6912),
}
"""Channels of the five layers, by the name that timm and open_clip know."""


class PatchConvNet(nn.Module):
    """Overlapping 8×8 patches at stride 4, dense 3×3 convolutions at stride 8, two poolings.

    Made for CPUs: 46 MFLOP for a 96×96 frame and no depthwise convolution, whose memory traffic
    costs more there than its arithmetic saves. The maximum over the map keeps what happens in one
    place of it, such as two things beside each other; the mean alone would dilute it.

    ==================  ======  ========
    layer               stride  channels
    ==================  ======  ========
    8×8 patches         4       32
    3×3, 3×3            8       64
    3×3                 8       96
    1×1                 8       256
    mean and maximum    –       512
    linear              –       D
    ==================  ======  ========

    Args:
        num_classes: D; what is pooled is returned as it is if 0.
        in_chans: Image channels.
        global_pool: Only ``"catavgmax"``, as timm names it.
        widths: Channels of the five layers; the table's, if left out.

    Raises:
        ValueError: Another pooling.
    """

    def __init__(
        self,
        num_classes: int,
        in_chans: int = 3,
        global_pool: str = "catavgmax",
        *,
        widths: tuple[int, int, int, int, int] = PATCH_CONVNETS["patch_convnet"],
    ) -> None:
        super().__init__()
        if global_pool != "catavgmax":
            raise ValueError(f"patch_convnet pools by 'catavgmax', got {global_pool!r}")
        stem, first, second, third, last = widths
        self.num_features = 2 * last
        self.layers = nn.Sequential(
            _ConvNorm(in_chans, stem, kernel_size=8, stride=4, padding=2),
            _ConvNorm(stem, first, stride=2),
            _ConvNorm(first, second),
            _ConvNorm(second, third),
            _ConvNorm(third, last, kernel_size=1, padding=0),
        )
        self.head = nn.Linear(self.num_features, num_classes) if num_classes else nn.Identity()

    def forward_features(self, images: Float[Tensor, "B C H W"]) -> Float[Tensor, "B O S T"]:
        """Return the map before it is pooled, by the name that timm's models have for it."""
        return torch.as_tensor(self.layers(images))

    def forward(self, images: Float[Tensor, "B C H W"]) -> Float[Tensor, "B D"]:
        """Return one vector per image, not normalised."""
        features = self.layers(images)
        pooled = torch.cat((features.mean(dim=(2, 3)), features.amax(dim=(2, 3))), dim=1)
        return torch.as_tensor(self.head(pooled))


class _ConvNorm(nn.Module):
    """Convolution, batch normalisation, ReLU; one convolution less a pass over memory in use."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int = 3,
        stride: int = 1,
        padding: int = 1,
    ) -> None:
        super().__init__()
        self.conv = nn.Conv2d(in_channels, out_channels, kernel_size, stride, padding, bias=False)
        self.norm = nn.BatchNorm2d(out_channels)

    def forward(self, x: Float[Tensor, "B C H W"]) -> Float[Tensor, "B O S T"]:
        """Convolve, normalise, rectify."""
        if self.training:
            return functional.relu(self.norm(self.conv(x)), inplace=True)
        # In use, normalisation is a scale and a shift per channel: part of the convolution.
        mean, variance = self.norm.running_mean, self.norm.running_var
        assert mean is not None
        assert variance is not None
        scale = self.norm.weight * (variance + self.norm.eps).rsqrt()
        weight = self.conv.weight * scale.view(-1, 1, 1, 1)
        shift = self.norm.bias - mean * scale
        convolved = functional.conv2d(x, weight, shift, self.conv.stride, self.conv.padding)
        return functional.relu(convolved, inplace=True)


def _entry_point(name: str) -> Callable[..., PatchConvNet]:
    """Make the function by which timm builds a tower; timm always hands it download settings."""

    def build(
        *,
        pretrained: bool = False,
        pretrained_cfg: object = None,
        pretrained_cfg_overlay: object = None,
        cache_dir: object = None,
        num_classes: int = 128,
        in_chans: int = 3,
        global_pool: str = "catavgmax",
    ) -> PatchConvNet:
        if pretrained:
            raise ValueError(f"{name} has no pretrained weights of its own; load an encoder")
        return PatchConvNet(num_classes, in_chans, global_pool, widths=PATCH_CONVNETS[name])

    build.__name__ = name
    return build


for _name in PATCH_CONVNETS:
    register_model(_entry_point(_name))
