"""The memory of a backbone: how it is trained on the tokens of whole episodes.

All else of the backbone stays as it is, so that memories can be compared.

Axis letters: ``B`` steps, ``E`` episodes, ``T`` their length, ``G`` sentences, ``F`` fusion tokens
of a step, ``D`` width.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from playroom_sound_accuracy import Precision, goal_precision, mean_by_kind
from playroom_sound_domain import LabelledEpisodes
from playroom_sound_streams import encode_episodes, parts_of_memory
from vlmreward.backbone.model import BackboneConfig, MultimodalBackbone
from vlmreward.backbone.objectives import (
    ContrastiveObjectives,
    ObjectivesConfig,
    PairConfig,
    StreamEmbeddings,
    StreamTexts,
)

_OFF = PairConfig(weight=0.0)
_OF_EPISODES = ObjectivesConfig(
    image_text=_OFF, audio_text=_OFF, audio_video=_OFF, fusion_text=_OFF
)


@dataclass(frozen=True)
class EpisodeBatch:
    """Whole episodes as tokens, and what is true of some of their steps.

    Attributes:
        tokens: Fusion tokens of every step.
        described: Whether a step is described.
        is_true: Which sentence is true of those, one episode after the other.
    """

    tokens: Float[Tensor, "E T F D"]
    described: Bool[Tensor, "E T"]
    is_true: Bool[Tensor, "B G"]


@dataclass(frozen=True)
class EpisodeBatches:
    """The batch of each step of a memory's training: a function of the step alone.

    Attributes:
        tokens: Of all episodes, in half precision.
        is_true: Of all episodes.
        num_episodes: Of a batch.
        num_described: Steps of each of them that are described.
        seed: Of all batches.
    """

    tokens: Float[Tensor, "E T F D"]
    is_true: Bool[Tensor, "E T G"]
    num_episodes: int
    num_described: int
    seed: int

    def __call__(self, step: int) -> EpisodeBatch:
        """Draw a batch."""
        rng = np.random.default_rng((self.seed, step))
        of_all, length = self.tokens.shape[:2]
        chosen = torch.from_numpy(rng.permutation(of_all)[: self.num_episodes])
        described = torch.zeros(len(chosen), length, dtype=torch.bool)
        for row in described:
            row[torch.from_numpy(rng.permutation(length)[: self.num_described])] = True
        return EpisodeBatch(self.tokens[chosen].float(), described, self.is_true[chosen][described])


class ContrastiveMemory(nn.Module):
    """A backbone whose memory is contrasted with sentences about episodes so far.

    Args:
        backbone: All of it but its memory stays as it is.
        text: The sentences that it is contrasted with, embedded.
    """

    def __init__(self, backbone: MultimodalBackbone, text: Float[Tensor, "G D"]) -> None:
        super().__init__()
        self.backbone = backbone.requires_grad_(False)
        for part in parts_of_memory(backbone):
            part.requires_grad_(True)
        self.objectives = ContrastiveObjectives(_OF_EPISODES)
        self.register_buffer("embedded", text, persistent=False)
        self.embedded: Tensor

    def forward(self, batch: EpisodeBatch) -> Mapping[str, Tensor]:
        """Return the loss of a batch."""
        episode = remember(self.backbone, batch.tokens)[batch.described]
        return self.objectives(
            {"episode": StreamEmbeddings(episode)},
            {"episode": StreamTexts(self.embedded, batch.is_true)},
        )


def remember(
    backbone: MultimodalBackbone, tokens: Float[Tensor, "E T F D"]
) -> Float[Tensor, "E T D"]:
    """Embed episodes so far at every step."""
    is_first = torch.zeros(tokens.shape[:2], dtype=torch.bool, device=tokens.device)
    return backbone.remember_all(tokens, is_first)


@torch.no_grad()
def encode_streams(backbone: MultimodalBackbone, episodes: LabelledEpisodes) -> dict[str, Tensor]:
    """Embed every step of episodes in every stream, that of the memory too ``[E, T, D]``."""
    embedded = encode_episodes(backbone, episodes)
    tokens = embedded.pop("tokens").float().to(next(backbone.parameters()).device)
    return {**embedded, "episode": remember(backbone, tokens).cpu()}


def with_memory(steps: MultimodalBackbone, config: BackboneConfig, seed: int) -> MultimodalBackbone:
    """Return a backbone with another memory, drawn anew; all else is as in the one given."""
    backbone = MultimodalBackbone(config, torch.Generator().manual_seed(seed))
    for name, part in steps.named_children():
        if not name.startswith("memory"):
            getattr(backbone, name).load_state_dict(part.state_dict())
    return backbone


@torch.no_grad()
def memory_precision(
    model: ContrastiveMemory,
    is_true: Bool[Tensor, "E T G"],
    tokens: Float[Tensor, "E T F D"],
    text: Float[Tensor, "G D"],
) -> Precision:
    """Return the average precision of every goal, by the memory."""
    device = next(model.parameters()).device
    embedded = remember(model.backbone, tokens.float().to(device)).cpu()
    return goal_precision(is_true, embedded, text)


def measure_memory(
    model: ContrastiveMemory,
    is_true: Bool[Tensor, "E T G"],
    tokens: Float[Tensor, "E T F D"],
    text: Float[Tensor, "G D"],
) -> dict[str, float]:
    """Return the mean average precision of each kind of goal, by the memory."""
    return mean_by_kind(memory_precision(model, is_true, tokens, text), "episode")
