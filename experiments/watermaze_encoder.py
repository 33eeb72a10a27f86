"""A small encoder of what one sees in a Watermaze, trained to tell where that is seen from.

Its pretext task is regression of the simulator's own position and heading from single frames at
random states. The layer before the last is what agents get to see: no coordinates, and nothing of
any platform.

Axis letters: ``M`` frames of ``H W`` pixels, ``D`` width of the embedding.
"""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int64, UInt8
from numpy.typing import NDArray
from rich.progress import track
from torch import Tensor, nn

from algdistill.models import FrameEncoderConfig
from algdistill.models.observation_encoder import FrameEncoder
from algdistill.spaces import Pixels
from vlmreward_envs.watermaze.arena import (
    ARENA_RADIUS,
    CLEARANCE,
    NUM_HEADINGS,
    heading_vectors,
)
from vlmreward_envs.watermaze.first_person import draw_views
from vlmreward_envs.watermaze.walls import FRAME_HEIGHT, FRAME_WIDTH

EMBEDDING_DIM = 64
_CONFIG = FrameEncoderConfig(channels=(8, 16, 32))
_BATCH_SIZE = 128
_LEARNING_RATE = 2e-3
_FRAMES_PER_PASS = 64  # more do not stay in the processor's cache
_HELD_OUT_FRAMES = 4096


class PlaceEncoder(nn.Module):
    """A `FrameEncoder` and a head that tells position (in radii of the pool) and heading.

    Args:
        generator: Draws the initial weights.
    """

    def __init__(self, generator: torch.Generator) -> None:
        super().__init__()
        self.body = FrameEncoder(
            Pixels(FRAME_HEIGHT, FRAME_WIDTH), _CONFIG, EMBEDDING_DIM, generator
        )
        self.head = nn.Linear(EMBEDDING_DIM, 4)
        nn.init.normal_(self.head.weight, std=EMBEDDING_DIM**-0.5, generator=generator)
        nn.init.zeros_(self.head.bias)

    def features(self, frames: UInt8[Tensor, "M H W 3"]) -> Float[Tensor, "M D"]:
        """What agents see instead of frames, at least 0."""
        embedded: Tensor = self.body(frames[:, None])[:, 0]
        return embedded.relu()

    def forward(self, frames: UInt8[Tensor, "M H W 3"]) -> Float[Tensor, "M 4"]:
        """Tell x and y over the pool's radius, and the cosine and sine of the heading."""
        told: Float[Tensor, "M 4"] = self.head(self.features(frames))
        return told

    @torch.no_grad()
    def embed(self, frames: UInt8[Tensor, "M H W 3"]) -> Float[Tensor, "M D"]:
        """`features` of any number of frames, a few at a time."""
        return torch.cat([self.features(some) for some in frames.split(_FRAMES_PER_PASS)])


def random_states(
    count: int, generator: torch.Generator
) -> tuple[Float[Tensor, "M 2"], Int64[Tensor, " M"]]:
    """Draw positions uniformly from all of the pool that can be reached, and headings."""
    draws = torch.rand(2, count, generator=generator)
    radius, angle = (ARENA_RADIUS - CLEARANCE) * draws[0].sqrt(), 2 * math.pi * draws[1]
    position = torch.stack([radius * angle.cos(), radius * angle.sin()], dim=1)
    return position, torch.randint(NUM_HEADINGS, (count,), generator=generator)


def train_place_encoder(num_updates: int, seed: int = 0) -> dict[str, NDArray[Any]]:
    """Train an encoder on frames drawn as needed, and measure it on frames it never saw.

    Returns:
        Its weights by name, ``position_error`` (median, metres) and ``heading_accuracy`` (share of
        frames, 0 to 1, whose nearest heading of sixteen is the right one).
    """
    generator = torch.Generator().manual_seed(seed)
    encoder = PlaceEncoder(generator)
    optimizer = torch.optim.AdamW(encoder.parameters(), lr=_LEARNING_RATE)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, _LEARNING_RATE, total_steps=num_updates
    )
    for _ in track(range(num_updates), "encoder"):
        position, heading = random_states(_BATCH_SIZE, generator)
        told = encoder(draw_views(position, heading))
        loss = nn.functional.mse_loss(told, _truth(position, heading))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    weights = {name: value.numpy() for name, value in encoder.state_dict().items()}
    return {**weights, **_measure(encoder, torch.Generator().manual_seed(seed + 1))}


def place_encoder(arrays: Mapping[str, NDArray[Any]]) -> PlaceEncoder:
    """Make an encoder of the weights that `train_place_encoder` returned."""
    encoder = PlaceEncoder(torch.Generator())
    encoder.load_state_dict({name: torch.from_numpy(arrays[name]) for name in encoder.state_dict()})
    return encoder


def _truth(position: Tensor, heading: Tensor) -> Float[Tensor, "M 4"]:
    return torch.cat([position / ARENA_RADIUS, heading_vectors(position.device)[heading]], dim=1)


@torch.no_grad()
def _measure(encoder: PlaceEncoder, generator: torch.Generator) -> dict[str, NDArray[Any]]:
    position, heading = random_states(_HELD_OUT_FRAMES, generator)
    told = encoder.head(encoder.embed(draw_views(position, heading)))
    error = (told[:, :2] * ARENA_RADIUS - position).norm(dim=1)
    nearest = (told[:, 2:] @ heading_vectors(position.device).T).argmax(dim=1)
    return {
        "position_error": np.float64(error.median()),
        "heading_accuracy": np.float64((nearest == heading).double().mean()),
    }
