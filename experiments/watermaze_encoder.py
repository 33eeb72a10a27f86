"""A small encoder of what one sees in a Watermaze, trained to tell where that is seen from.

Its pretext task is that of Banino et al. 2018 ("Vector-based navigation using grid-like
representations", Nature 557): how active would *place cells*, each of which has a place of its own
in the pool, and *head-direction cells* be? The simulator's position and heading say so, for single
frames at random states. Agents see the activities that the encoder tells: nothing of any platform.

Axis letters: ``M`` frames of ``H W`` pixels, ``P`` place cells, ``D`` cells of both kinds.
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
    search_places,
)
from vlmreward_envs.watermaze.first_person import draw_views
from vlmreward_envs.watermaze.walls import FRAME_HEIGHT, FRAME_WIDTH

PLACE_WIDTH = 0.45
"""Standard deviation of a place cell's field, in metres."""

_CONFIG = FrameEncoderConfig(channels=(8, 16, 32))
_HIDDEN_DIM = 64
_BATCH_SIZE = 128
_LEARNING_RATE = 2e-3
_FRAMES_PER_PASS = 64  # more do not stay in the processor's cache
_HELD_OUT_FRAMES = 4096


def place_cells() -> Float[Tensor, "P 2"]:
    """Where place cells are: in the middle of the pool, and where platforms may be."""
    middle = torch.tensor([[0.0, 0.0], [0.9, 0.0], [-0.9, 0.0], [0.0, 0.9], [0.0, -0.9]])
    return torch.cat([middle, search_places(torch.device("cpu"))])


class PlaceEncoder(nn.Module):
    """A `FrameEncoder` and a head that tells the activities of place and head-direction cells.

    Args:
        generator: Draws the initial weights.
    """

    def __init__(self, generator: torch.Generator) -> None:
        super().__init__()
        self.num_places = len(place_cells())
        self.dim = self.num_places + NUM_HEADINGS
        self.body = FrameEncoder(Pixels(FRAME_HEIGHT, FRAME_WIDTH), _CONFIG, _HIDDEN_DIM, generator)
        self.head = nn.Linear(_HIDDEN_DIM, self.dim)
        nn.init.normal_(self.head.weight, std=_HIDDEN_DIM**-0.5, generator=generator)
        nn.init.zeros_(self.head.bias)

    def forward(self, frames: UInt8[Tensor, "M H W 3"]) -> Float[Tensor, "M D"]:
        """Logarithms of the activities; those of each kind of cells add up to 1."""
        hidden = self.body(frames[:, None])[:, 0].relu()
        places, headings = self.head(hidden).split([self.num_places, NUM_HEADINGS], dim=1)
        return torch.cat([places.log_softmax(dim=1), headings.log_softmax(dim=1)], dim=1)

    @torch.no_grad()
    def embed(self, frames: UInt8[Tensor, "M H W 3"]) -> Float[Tensor, "M D"]:
        """Activities, 0 to 1, of the cells for any number of frames, a few at a time."""
        return torch.cat([self(some).exp() for some in frames.split(_FRAMES_PER_PASS)])


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
        loss = -(_activities(position, heading) * told).sum(dim=1).mean()
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


def _activities(
    position: Float[Tensor, "M 2"], heading: Int64[Tensor, " M"]
) -> Float[Tensor, "M D"]:
    """How active cells ought to be; those of each kind add up to 1."""
    away = torch.cdist(position, place_cells())
    places = (-0.5 * (away / PLACE_WIDTH).square()).softmax(dim=1)
    return torch.cat([places, nn.functional.one_hot(heading, NUM_HEADINGS)], dim=1)


@torch.no_grad()
def _measure(encoder: PlaceEncoder, generator: torch.Generator) -> dict[str, NDArray[Any]]:
    position, heading = random_states(_HELD_OUT_FRAMES, generator)
    places, headings = encoder.embed(draw_views(position, heading)).split(
        [encoder.num_places, NUM_HEADINGS], dim=1
    )
    error = (places @ place_cells() - position).norm(dim=1)
    return {
        "position_error": np.float64(error.median()),
        "heading_accuracy": np.float64((headings.argmax(dim=1) == heading).double().mean()),
    }
