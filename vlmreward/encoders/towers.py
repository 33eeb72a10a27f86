"""A small convolutional image tower for in-domain CLIPs, known to timm and so to open_clip.

Importing this module registers ``patch_convnet`` with timm: an open_clip configuration can then
name it as its ``timm_model_name``.

Axis letters: ``B`` batch, ``H W`` pixels, ``D`` width of the output.
"""

import torch
from jaxtyping import Float
from timm.models import register_model
from torch import Tensor, nn

_WIDTHS = (32, 64, 128, 256)


class PatchConvNet(nn.Module):
    """Overlapping 8×8 patches at stride 4, two stages of dense 3×3 convolutions, mean pooling.

    Made for CPUs: 41 MFLOP for a 96×96 frame and no depthwise convolution, whose memory traffic
    costs more there than its arithmetic saves.

    ==============  ======  ========
    layer           stride  channels
    ==============  ======  ========
    8×8 patches     4       32
    3×3, 3×3        8       64
    3×3, 3×3        16      128
    1×1, mean       –       256
    linear          –       D
    ==============  ======  ========

    Args:
        num_classes: D.
        in_chans: Image channels.
        global_pool: Only ``"avg"``, as timm names it.

    Raises:
        ValueError: Another pooling.
    """

    def __init__(self, num_classes: int, in_chans: int = 3, global_pool: str = "avg") -> None:
        super().__init__()
        if global_pool != "avg":
            raise ValueError(f"patch_convnet pools by 'avg', got {global_pool!r}")
        stem, middle, deep, last = _WIDTHS
        self.num_features = last
        self.layers = nn.Sequential(
            _conv(in_chans, stem, kernel_size=8, stride=4, padding=2),
            _conv(stem, middle, stride=2),
            _conv(middle, middle),
            _conv(middle, deep, stride=2),
            _conv(deep, deep),
            _conv(deep, last, kernel_size=1, padding=0),
        )
        self.head = nn.Linear(last, num_classes)

    def forward(self, images: Float[Tensor, "B C H W"]) -> Float[Tensor, "B D"]:
        """Return one vector per image, not normalised."""
        pooled: Tensor = self.layers(images).mean(dim=(2, 3))
        return torch.as_tensor(self.head(pooled))


def _conv(
    in_channels: int, out_channels: int, kernel_size: int = 3, stride: int = 1, padding: int = 1
) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(in_channels, out_channels, kernel_size, stride, padding, bias=False),
        nn.BatchNorm2d(out_channels),
        nn.ReLU(inplace=True),
    )


@register_model
def patch_convnet(
    *,
    pretrained: bool = False,
    pretrained_cfg: object = None,
    pretrained_cfg_overlay: object = None,
    cache_dir: object = None,
    num_classes: int = 128,
    in_chans: int = 3,
    global_pool: str = "avg",
) -> PatchConvNet:
    """Build the tower: timm's entry point, which timm always hands its three download settings.

    Raises:
        ValueError: Pretrained weights are asked for; none exist apart from a whole encoder's.
    """
    if pretrained:
        raise ValueError("patch_convnet has no pretrained weights of its own; load an encoder")
    return PatchConvNet(num_classes, in_chans, global_pool)
