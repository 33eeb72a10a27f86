"""Other ways than Zorro's to put sound and sight together, on what its pure streams make of them.

Both begin as what is known already: gates weigh the two vectors and add them (`ModalityGates`);
gated cross-attention lets the video's vector read the sound's, not at all at the start
(`GatedCrossAttention`, after Flamingo). The streams and the sentences stay as they are.

Axis letters: ``B`` steps, ``E`` episodes, ``T`` their length, ``G`` sentences, ``D`` width.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn.functional import normalize

from playroom_sound_accuracy import Precision, goal_precision
from vlmreward.backbone.fusion import GatedCrossAttention, ModalityGates
from vlmreward.backbone.objectives import (
    ContrastiveObjectives,
    ObjectivesConfig,
    PairConfig,
    StreamEmbeddings,
    StreamTexts,
)

FusionKind = Literal["gates", "cross_attention"]
FUSIONS: tuple[FusionKind, ...] = ("gates", "cross_attention")
_OFF = PairConfig(weight=0.0)
_OF_FUSION = ObjectivesConfig(image_text=_OFF, audio_text=_OFF, audio_video=_OFF, episode_text=_OFF)
_NUM_HEADS, _MLP_RATIO = 4, 4


@dataclass(frozen=True)
class PureSteps:
    """What the pure streams make of single steps, and what is true of them.

    Attributes:
        audio: Of the sound.
        video: Of the frame.
        is_true: Of each sentence.
    """

    audio: Float[Tensor, "B D"]
    video: Float[Tensor, "B D"]
    is_true: Bool[Tensor, "B G"]


@dataclass(frozen=True)
class PureBatches:
    """The batch of each step of training: a function of the step alone.

    Attributes:
        steps: All there are.
        batch_size: B.
        seed: Of all batches.
    """

    steps: PureSteps
    batch_size: int
    seed: int

    def __call__(self, step: int) -> PureSteps:
        """Draw a batch."""
        rng = np.random.default_rng((self.seed, step))
        rows = torch.from_numpy(rng.integers(len(self.steps.audio), size=self.batch_size))
        of = self.steps
        return PureSteps(of.audio[rows].float(), of.video[rows].float(), of.is_true[rows])


class ContrastiveFusion(nn.Module):
    """Two vectors to one, contrasted with sentences about both.

    Args:
        kind: How they are put together.
        text: The sentences, embedded.
        seed: Of the weights.
    """

    def __init__(self, kind: FusionKind, text: Float[Tensor, "G D"], seed: int) -> None:
        super().__init__()
        draws = torch.Generator().manual_seed(seed)
        width = text.shape[1]
        self.kind = kind
        self.gates = ModalityGates(("audio", "video"), width, draws) if kind == "gates" else None
        self.reads = None
        if kind == "cross_attention":
            self.reads = GatedCrossAttention(width, _NUM_HEADS, _MLP_RATIO * width, draws)
        self.objectives = ContrastiveObjectives(_OF_FUSION)
        self.register_buffer("embedded", text, persistent=False)
        self.embedded: Tensor

    def fuse(
        self, audio: Float[Tensor, "*B D"], video: Float[Tensor, "*B D"]
    ) -> Float[Tensor, "*B D"]:
        """Return unit vectors of both."""
        flat = {
            "audio": audio.reshape(-1, audio.shape[-1]),
            "video": video.reshape(-1, video.shape[-1]),
        }
        if self.gates is not None:
            fused = self.gates(flat)
        else:
            assert self.reads is not None
            fused = self.reads(flat["video"][:, None], flat["audio"][:, None])[:, 0]
        unit: Tensor = normalize(fused, dim=1)
        return unit.view_as(audio)

    def forward(self, batch: PureSteps) -> Mapping[str, Tensor]:
        """Return the loss of a batch."""
        fused = self.fuse(batch.audio, batch.video)
        return self.objectives(
            {"fusion": StreamEmbeddings(fused)},
            {"fusion": StreamTexts(self.embedded, batch.is_true)},
        )


@torch.no_grad()
def fusion_precision(
    model: ContrastiveFusion,
    audio: Float[Tensor, "E T D"],
    video: Float[Tensor, "E T D"],
    is_true: Bool[Tensor, "E T G"],
    text: Float[Tensor, "G D"],
) -> Precision:
    """Return the average precision of every goal."""
    device = model.embedded.device
    fused = model.fuse(audio.float().to(device), video.float().to(device)).cpu()
    return goal_precision(is_true, fused, text)
