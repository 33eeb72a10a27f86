"""The streams of a step of a backbone: how they are trained, and what they make of episodes.

Sound is contrasted with sentences about what is heard, frames with those about what is seen, and
both together with these and with those about both. What no stream can know slows down what it
learns: so the pure streams come first, by themselves, and sentences that are told of an episode are
contrasted with the truth itself, in place of a memory, which comes later. Without that they would
all be embedded alike, and no memory could tell them apart.

Axis letters: ``E`` episodes, ``T`` their length, ``G`` sentences, ``D`` width.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.functional import normalize

from playroom_sound_accuracy import goal_precision, mean_by_kind
from playroom_sound_domain import (
    GOALS_OF_KIND,
    IS_HELD_OUT,
    SENTENCES,
    LabelledEpisodes,
    SoundBatch,
)
from vlmreward.backbone.layers import linear
from vlmreward.backbone.model import (
    PURE_AND_FUSED,
    BackboneConfig,
    MultimodalBackbone,
    StepEmbeddings,
)
from vlmreward.backbone.objectives import (
    ContrastiveObjectives,
    ObjectivesConfig,
    PairConfig,
    StreamEmbeddings,
    StreamTexts,
)
from vlmreward.backbone.start import start_from_clip
from vlmreward.backbone.training import retrieval_recall
from vlmreward.backbone.video import TowerTokensConfig
from vlmreward.encoders import load_encoder
from vlmreward.encoders.open_clip import Tokenizer
from vlmreward_envs.playroom_sound import TOLD_CAPTIONS, GoalKind

FRAME_CLIP = "playroom"
"""What the streams begin with, and what they are measured beside."""
CONFIG = BackboneConfig(embed_dim=256, video=TowerTokensConfig(num_frames=1))
_OFF = PairConfig(weight=0.0)
# Sound and sight have nothing to do with each other here but what the person does.
_OF_STEPS = ObjectivesConfig(audio_video=_OFF)
KINDS_OF_STREAM = {
    "video": (GoalKind.SEEN,),
    "audio": (GoalKind.HEARD,),
    "fusion": (GoalKind.SEEN, GoalKind.HEARD, GoalKind.SEEN_AND_HEARD),
    "episode": (GoalKind.TOLD,),
}
"""The kinds of sentences that each stream is contrasted with."""
PURE = ("audio", "video")
_HIDDEN = 128
_ROWS_AT_A_TIME = 256


class ContrastiveSteps(nn.Module):
    """A backbone whose streams are contrasted with sentences about single steps.

    In place of an episode's memory stands a small network that is told the truth.

    Args:
        config: Shape of the backbone.
        seed: Of its weights.

    Attributes:
        streams: Those of a step that are contrasted.
    """

    def __init__(self, config: BackboneConfig, seed: int) -> None:
        super().__init__()
        self.streams: Sequence[str] = PURE_AND_FUSED
        draws = torch.Generator().manual_seed(seed)
        self.backbone = MultimodalBackbone(config, draws)
        self.truth = nn.Sequential(
            linear(len(TOLD_CAPTIONS), _HIDDEN, draws),
            nn.GELU(),
            linear(_HIDDEN, config.embed_dim, draws),
        )
        self.objectives = ContrastiveObjectives(_OF_STEPS)
        for part in parts_of_memory(self.backbone):
            part.requires_grad_(False)

    def forward(self, batch: SoundBatch) -> Mapping[str, Tensor]:
        """Return the losses of a batch, by the pair of streams."""
        step = encode(self.backbone, batch.frames, batch.log_mel)
        text = self.backbone.encode_text(batch.tokens)
        embedded = {name: getattr(step, name) for name in self.streams}
        embedded["episode"] = normalize(self.truth(batch.told.float()), dim=1)
        own = {
            name: torch.isin(
                batch.kind, torch.tensor(KINDS_OF_STREAM[name], device=batch.kind.device)
            )
            for name in embedded
        }
        return self.objectives(
            {name: StreamEmbeddings(vectors) for name, vectors in embedded.items()},
            {name: StreamTexts(text[of], batch.is_true[:, of]) for name, of in own.items()},
        )


def new_steps(seed: int) -> ContrastiveSteps:
    """Return streams that know what the CLIP of frames knows, and nothing of sound."""
    steps = ContrastiveSteps(CONFIG, seed)
    start_from_clip(steps.backbone, load_encoder(FRAME_CLIP, device="cpu"))
    return steps


def parts_of_memory(backbone: MultimodalBackbone) -> tuple[nn.Module, ...]:
    """Return what a step does not need."""
    return backbone.memory, backbone.memory_pool, backbone.memory_projection


def encode(backbone: MultimodalBackbone, frames: Tensor, mels: Tensor) -> StepEmbeddings:
    """Embed single steps that have both frame and sound."""
    return backbone.encode_step(backbone.video_tokens(frames), backbone.audio_tokens(mels))


@torch.no_grad()
def encode_episodes(backbone: MultimodalBackbone, episodes: LabelledEpisodes) -> dict[str, Tensor]:
    """Embed every step of episodes in every stream ``[E, T, D]``; ``tokens`` in half precision."""
    device = next(backbone.parameters()).device
    frames, mels = episodes.frames.flatten(0, 1), episodes.log_mel.flatten(0, 1)
    parts: dict[str, list[Tensor]] = {name: [] for name in (*PURE_AND_FUSED, "tokens")}
    for some in torch.arange(len(frames)).split(_ROWS_AT_A_TIME):
        step = encode(backbone, frames[some].to(device), mels[some].to(device))
        for name in PURE_AND_FUSED:
            parts[name].append(getattr(step, name).cpu())
        parts["tokens"].append(step.tokens.half().cpu())
    shape = episodes.is_true.shape[:2]
    return {name: torch.cat(of).unflatten(0, shape) for name, of in parts.items()}


@torch.no_grad()
def embed_sentences(backbone: MultimodalBackbone, tokenizer: Tokenizer) -> Float[Tensor, "G D"]:
    """Embed every sentence."""
    device = next(backbone.parameters()).device
    return backbone.encode_text(tokenizer(list(SENTENCES)).to(device)).cpu()


def measure_steps(
    model: ContrastiveSteps, episodes: LabelledEpisodes, tokenizer: Tokenizer
) -> dict[str, float]:
    """Return how right each stream that is trained is.

    Returns:
        ``ap_...``, the mean average precision of each kind of goal, and ``recall_at_1_<stream>``,
        the share of steps whose nearest sentence, of the kinds that the stream can know, is true.
    """
    embedded = encode_episodes(model.backbone, episodes)
    text = embed_sentences(model.backbone, tokenizer)
    is_true = episodes.is_true.flatten(0, 1)
    found: dict[str, float] = {}
    for stream in model.streams:
        kinds = KINDS_OF_STREAM[stream]
        precision = goal_precision(episodes.is_true, embedded[stream], text, kinds)
        found |= mean_by_kind(precision, stream)
        named = named_columns(kinds)
        found[f"recall_at_1_{stream}"] = retrieval_recall(
            embedded[stream].flatten(0, 1), text[named], is_true[:, named], k=1
        )
    return found


def named_columns(kinds: Sequence[GoalKind]) -> NDArray[np.int64]:
    """Return where in `SENTENCES` those of some kinds are that name no held-out kind of object."""
    columns = np.concatenate([GOALS_OF_KIND[kind] for kind in kinds])
    return columns[~IS_HELD_OUT[columns]]
