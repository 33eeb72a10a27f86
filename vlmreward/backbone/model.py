"""The backbone: what is seen, heard and remembered of an episode, beside what is said of it.

Each step's frame and sound become tokens, `Zorro` mixes them without mixing the pure streams, and
a `TokenMemory` goes over the fusion tokens of all steps so far. Four streams come out, one unit
vector each, in the space of a CLIP's text tower: ``audio``, ``video`` and ``fusion`` of the present
step, ``episode`` of all steps up to it.

Axis letters: ``B`` batch, ``T`` time steps, ``H W`` pixels, ``S`` samples of a step, ``R`` log-mel
frames of a step, ``M`` mel bands, ``K`` tokens, ``F`` fusion tokens, ``E`` width of a token, ``D``
width of an embedding, ``L`` tokens of a text.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal, get_args

import torch
from jaxtyping import Bool, Float, Int64, UInt8
from open_clip.transformer import TextTransformer
from torch import Tensor, nn
from torch.nn.functional import normalize

from vlmreward.backbone.audio import AudioTokens, LogMelConfig
from vlmreward.backbone.combiner import (
    CombinerConfig,
    MeanMemory,
    MemoryState,
    TokenMemory,
    TransformerCombiner,
    TTMCombiner,
)
from vlmreward.backbone.layers import AttentionPool, linear, seeded_by
from vlmreward.backbone.ttm import TTMConfig
from vlmreward.backbone.video import (
    ConvTokens,
    ConvTokensConfig,
    TowerTokens,
    TowerTokensConfig,
    TubeletConfig,
    TubeletTokens,
)
from vlmreward.backbone.zorro import Zorro, ZorroConfig

MemoryKind = Literal["mean", "transformer", "ttm"]
PURE_AND_FUSED = ("audio", "video", "fusion")
"""The streams of one step; `vlmreward.backbone.objectives` knows one more, ``episode``."""


@dataclass(frozen=True)
class TextConfig:
    """Shape of the text tower, in open_clip's terms.

    Attributes:
        width: Of its tokens.
        heads: Attention heads.
        layers: Transformer blocks.
        context_length: Tokens of a sentence that are read.
        vocab_size: Of open_clip's tokenizer.
    """

    width: int = 64
    heads: int = 4
    layers: int = 2
    context_length: int = 24
    vocab_size: int = 49408


@dataclass(frozen=True)
class BackboneConfig:
    """Shape of a backbone.

    Attributes:
        embed_dim: D.
        video: From frames to tokens, one frame a step: by convolutions of the backbone's own, by
            the image tower of a CLIP, see `start_from_clip`, or in boxes, tubelets of one frame.
        step_samples: S.
        log_mel: From sound to log-mel frames.
        patch_frames: Log-mel frames of an audio token; they divide those of a step.
        patch_mels: Mel bands of an audio token.
        zorro: The transformer of a step.
        memory: What goes over the steps: ``"mean"`` is the baseline.
        num_memory_outputs: Tokens in which an episode is summed up; the mean is always one.
        num_memory_layers: Transformer blocks of a memory; a mean has none.
        time_stamps: Whether the memory is told the number of each step.
        text: The text tower.

    Raises:
        ValueError: If sizes do not fit together.
    """

    embed_dim: int = 128
    video: ConvTokensConfig | TowerTokensConfig | TubeletConfig = field(
        default_factory=lambda: ConvTokensConfig(num_frames=1)
    )
    step_samples: int = 1600
    log_mel: LogMelConfig = field(default_factory=LogMelConfig)
    patch_frames: int = 5
    patch_mels: int = 16
    zorro: ZorroConfig = field(default_factory=lambda: ZorroConfig(num_layers=2))
    memory: MemoryKind = "transformer"
    num_memory_outputs: int = 8
    num_memory_layers: int = 2
    time_stamps: bool = False
    text: TextConfig = field(default_factory=TextConfig)

    def __post_init__(self) -> None:
        if self.memory not in get_args(MemoryKind):
            raise ValueError(f"got memory={self.memory!r}, expected one of {get_args(MemoryKind)}")
        for name in ("embed_dim", "num_memory_outputs", "num_memory_layers"):
            if getattr(self, name) < 1:
                raise ValueError(f"got {name}={getattr(self, name)}, expected at least 1")
        if self.memory == "mean" and self.time_stamps:
            raise ValueError(
                "got memory='mean' with time_stamps=True, expected False: a mean has no order"
            )
        if self.video.num_frames != 1:
            raise ValueError(f"got {self.video.num_frames} frames a step, expected 1")
        if self.video.embed_dim != self.zorro.embed_dim:
            raise ValueError(
                f"got video tokens of width {self.video.embed_dim} and a Zorro of width "
                f"{self.zorro.embed_dim}, expected the same"
            )
        if self.step_samples < 1 or self.step_samples % self.log_mel.hop:
            raise ValueError(
                f"got step_samples={self.step_samples}, expected a multiple of the hop, "
                f"{self.log_mel.hop}"
            )
        self._check_tokens()

    def _check_tokens(self) -> None:
        sizes = {
            "patch_frames": (self.patch_frames, self.num_mel_frames, "log-mel frames of a step"),
            "patch_mels": (self.patch_mels, self.log_mel.num_mels, "mel bands"),
        }
        for name, (patch, whole, what) in sizes.items():
            if patch < 1 or whole % patch:
                raise ValueError(f"got {name}={patch}, expected a divisor of the {whole} {what}")
        if self.zorro.form != "hip":
            return
        window = self.zorro.window
        for name, number in (("video", self.video.num_tokens), ("audio", self.num_audio_tokens)):
            if number % window:
                raise ValueError(
                    f"got window={window} in the form 'hip' and {number} {name} tokens, expected a "
                    "divisor: groups must be full"
                )

    @property
    def num_mel_frames(self) -> int:
        """R."""
        return self.step_samples // self.log_mel.hop

    @property
    def num_audio_tokens(self) -> int:
        """K of the sound of a step."""
        in_time = self.num_mel_frames // self.patch_frames
        return in_time * (self.log_mel.num_mels // self.patch_mels)

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON types, which `from_dict` reads."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> BackboneConfig:
        """Return what `to_dict` was called on."""
        video: dict[str, Any] = {
            key: tuple(value) if isinstance(value, list) else value
            for key, value in values["video"].items()
        }
        parts = {
            "video": _video_config(video),
            "log_mel": LogMelConfig(**values["log_mel"]),
            "zorro": ZorroConfig(**values["zorro"]),
            "text": TextConfig(**values["text"]),
        }
        return cls(**{**values, **parts})


@dataclass(frozen=True)
class StepEmbeddings:
    """What the streams make of single steps.

    Attributes:
        audio: Unit vectors of the sound alone; None without sound, 0 in rows that have none.
        video: Unit vectors of the frame alone, likewise.
        fusion: Unit vectors of both.
        tokens: The fusion tokens, which a memory goes over.
    """

    audio: Float[Tensor, "B D"] | None
    video: Float[Tensor, "B D"] | None
    fusion: Float[Tensor, "B D"]
    tokens: Float[Tensor, "B F E"]


class MultimodalBackbone(nn.Module):
    """Frames, sound and text to unit vectors of one space.

    Args:
        config: Shape of the model.
        generator: Draws the initial weights.

    Example:
        >>> backbone = MultimodalBackbone(BackboneConfig(), torch.Generator().manual_seed(0))
        >>> frames = torch.zeros(2, 96, 96, 3, dtype=torch.uint8)
        >>> step = backbone.encode_step(backbone.video_tokens(frames), None)
        >>> step.fusion.shape, step.audio
        (torch.Size([2, 128]), None)
    """

    def __init__(self, config: BackboneConfig, generator: torch.Generator) -> None:
        super().__init__()
        self.config = config
        width = config.zorro.embed_dim
        self.video = _video(config.video, generator)
        self.audio = AudioTokens(
            config.log_mel,
            config.num_mel_frames,
            width,
            generator,
            patch_frames=config.patch_frames,
            patch_mels=config.patch_mels,
        )
        self.zorro = Zorro(config.zorro, generator)
        self.projections = nn.ModuleDict(
            {name: linear(width, config.embed_dim, generator) for name in PURE_AND_FUSED}
        )
        self.memory = _memory(config, generator)
        self.memory_pool = AttentionPool(width, config.zorro.num_heads, 1, generator)
        self.memory_projection = linear(width, config.embed_dim, generator)
        self.text = _text_tower(config, generator)

    def video_tokens(self, frames: UInt8[Tensor, "B H W 3"]) -> Float[Tensor, "B K E"]:
        """Tokens of single frames, with their positions."""
        tokens: Float[Tensor, "B K E"] = self.video(frames[:, None])
        return tokens

    def audio_tokens(self, log_mel: Float[Tensor, "B R M"]) -> Float[Tensor, "B K E"]:
        """Tokens of the log-mel frames of single steps, with their positions."""
        tokens: Float[Tensor, "B K E"] = self.audio(log_mel)
        return tokens

    def encode_step(
        self,
        video: Float[Tensor, "B K E"] | None,
        audio: Float[Tensor, "B _ E"] | None,
        has_video: Bool[Tensor, " B"] | None = None,
        has_audio: Bool[Tensor, " B"] | None = None,
    ) -> StepEmbeddings:
        """Embed single steps; what is missing is left out, or said to be missing row by row.

        Raises:
            ValueError: If a row has neither, or tokens are not finite.
        """
        output = self.zorro(audio, video, has_audio=has_audio, has_video=has_video)
        return StepEmbeddings(
            audio=self._embed("audio", output.audio, has_audio),
            video=self._embed("video", output.video, has_video),
            fusion=normalize(self.projections["fusion"](output.fusion), dim=1),
            tokens=output.fusion_tokens,
        )

    def _embed(
        self, stream: str, pooled: Float[Tensor, "B E"] | None, has: Bool[Tensor, " B"] | None
    ) -> Float[Tensor, "B D"] | None:
        if pooled is None:
            return None
        embedding = normalize(self.projections[stream](pooled), dim=1)
        return embedding if has is None else embedding * has[:, None]

    def remember(
        self,
        tokens: Float[Tensor, "B F E"],
        is_first: Bool[Tensor, " B"],
        state: MemoryState,
    ) -> tuple[Float[Tensor, "B D"], MemoryState]:
        """Add a step to the episode of every row; return what the episodes are now.

        Args:
            tokens: `StepEmbeddings.tokens`.
            is_first: Rows whose episode begins with this step.
            state: What the call before returned, or ``memory.initial_state``.
        """
        summary, state = self.memory.step(tokens, is_first, state)
        return self._embed_summary(summary), state

    def remember_all(
        self, tokens: Float[Tensor, "B T F E"], is_first: Bool[Tensor, "B T"]
    ) -> Float[Tensor, "B T D"]:
        """Return the episodes so far at every step: the same as `remember` step by step."""
        summaries = self.memory(tokens, is_first)
        embedded = self._embed_summary(summaries.flatten(0, 1))
        return embedded.view(*tokens.shape[:2], -1)

    def encode_text(self, tokens: Int64[Tensor, "B L"]) -> Float[Tensor, "B D"]:
        """Embed sentences, tokenized by open_clip's tokenizer."""
        embedding: Tensor = self.text(tokens)
        return normalize(embedding, dim=1)

    def _embed_summary(self, summary: Float[Tensor, "B _ E"]) -> Float[Tensor, "B D"]:
        pooled = self.memory_pool(summary)[:, 0]
        return normalize(self.memory_projection(pooled), dim=1)


def _video_config(values: dict[str, Any]) -> ConvTokensConfig | TowerTokensConfig | TubeletConfig:
    """Return the configuration whose values these are: each has one that no other has."""
    if "tower" in values:
        return TowerTokensConfig(**values)
    return TubeletConfig(**values) if "tubelet_size" in values else ConvTokensConfig(**values)


def _video(
    config: ConvTokensConfig | TowerTokensConfig | TubeletConfig, generator: torch.Generator
) -> ConvTokens | TowerTokens | TubeletTokens:
    if isinstance(config, TowerTokensConfig):
        return TowerTokens(config, generator)
    if isinstance(config, TubeletConfig):
        return TubeletTokens(config, generator)
    return ConvTokens(config, generator)


def _memory(config: BackboneConfig, generator: torch.Generator) -> TokenMemory:
    width, heads = config.zorro.embed_dim, config.zorro.num_heads
    if config.memory == "mean":
        return MeanMemory(width)
    if config.memory == "transformer":
        combiner = CombinerConfig(
            embed_dim=width,
            num_outputs=config.num_memory_outputs,
            num_layers=config.num_memory_layers,
            num_heads=heads,
        )
        return TransformerCombiner(combiner, generator, time_stamps=config.time_stamps)
    machine = TTMConfig(
        embed_dim=width,
        num_process_tokens=config.num_memory_outputs,
        num_layers=config.num_memory_layers,
        num_heads=heads,
    )
    return TTMCombiner(machine, generator, time_stamps=config.time_stamps)


def _text_tower(config: BackboneConfig, generator: torch.Generator) -> TextTransformer:
    """Build a CLIP's text tower."""
    with seeded_by(generator):
        return TextTransformer(
            context_length=config.text.context_length,
            vocab_size=config.text.vocab_size,
            width=config.text.width,
            heads=config.text.heads,
            layers=config.text.layers,
            output_dim=config.embed_dim,
        )
