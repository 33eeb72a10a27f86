"""What makes a vector of an observation that is no list of symbols.

Axis letters: ``B`` batch of windows, ``T`` time steps, ``H W`` pixels, ``E`` width of an embedding,
``D`` width of a token.
"""

from __future__ import annotations

import torch
from jaxtyping import Float, UInt8
from torch import Tensor, nn

from algdistill.models.config import FrameEncoderConfig
from algdistill.spaces import Embedding, Pixels

_TOKEN_STD = 0.02  # of the numbers of a token at first, as of the symbols' embeddings


class FrameEncoder(nn.Module):
    """Convolutions over each frame by itself; the image encoder of Laskin et al. 2022 is one.

    Each block halves both sides twice: a convolution of stride 2, ReLU, and a maximum over 2 x 2.

    Args:
        space: Size of the frames.
        config: Shape of the encoder.
        embed_dim: Width ``D`` of what comes out.
        generator: Draws the initial weights.
    """

    def __init__(
        self, space: Pixels, config: FrameEncoderConfig, embed_dim: int, generator: torch.Generator
    ) -> None:
        super().__init__()
        blocks: list[nn.Module] = []
        sides, width = (space.height, space.width), 3
        for channels in config.channels:
            kernel = config.kernel_size
            blocks += [
                nn.Conv2d(width, channels, kernel, stride=2, padding=kernel // 2),
                nn.ReLU(),
                nn.MaxPool2d(2, ceil_mode=True),  # a side of 1 stays 1
            ]
            sides, width = (-(-sides[0] // 4), -(-sides[1] // 4)), channels
        self.blocks = nn.Sequential(*blocks)
        self.hidden = nn.Linear(width * sides[0] * sides[1], config.linear_dim)
        self.norm = nn.LayerNorm(config.linear_dim)
        self.out = nn.Linear(config.linear_dim, embed_dim)
        for part in (*self.blocks, self.hidden):
            if isinstance(part, nn.Conv2d | nn.Linear):
                nn.init.kaiming_normal_(part.weight, nonlinearity="relu", generator=generator)
                nn.init.zeros_(part.bias)  # type: ignore[arg-type]
        _draw_projection(self.out, generator)

    def forward(self, obs: UInt8[Tensor, "B T H W 3"]) -> Float[Tensor, "B T D"]:
        """Embed each frame."""
        frames = obs.flatten(0, 1).permute(0, 3, 1, 2).to(self.out.weight.dtype) / 255.0
        features = self.hidden(self.blocks(frames).flatten(1))
        embedded: Tensor = self.out(self.norm(features).relu())
        return embedded.reshape(*obs.shape[:2], -1)


class EmbeddingEncoder(nn.Module):
    """Normalises each embedding and maps it to a token's width.

    Args:
        space: Width ``E`` of the embeddings.
        embed_dim: Width ``D`` of what comes out.
        generator: Draws the initial weights.
    """

    def __init__(self, space: Embedding, embed_dim: int, generator: torch.Generator) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(space.dim)
        self.out = nn.Linear(space.dim, embed_dim)
        _draw_projection(self.out, generator)

    def forward(self, obs: Float[Tensor, "B T E"]) -> Float[Tensor, "B T D"]:
        """Embed each observation."""
        embedded: Float[Tensor, "B T D"] = self.out(self.norm(obs))
        return embedded


def _draw_projection(linear: nn.Linear, generator: torch.Generator) -> None:
    """Weights that make of normalised numbers ones as large as a token's."""
    nn.init.normal_(linear.weight, std=_TOKEN_STD / linear.in_features**0.5, generator=generator)
    nn.init.zeros_(linear.bias)
