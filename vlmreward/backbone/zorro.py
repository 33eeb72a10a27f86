r"""One transformer over sound, video and fusion tokens, in which sound and video stay pure.

Zorro (Recasens et al. 2023, `arXiv 2301.09595 <https://arxiv.org/abs/2301.09595>`_): all tokens go
through the same blocks, and the masks of `vlmreward.backbone.streams` decide what they read. The
outputs of the pure streams are those of a network that never had the other modality, so one model
serves sound alone, video alone and both.

Three forms: in ``"vit"`` a token reads its whole stream. In ``"swin"`` it reads a window of it,
shifted in every other layer. In ``"hip"``, after the hierarchical perceiver (Carreira et al. 2022,
`arXiv 2202.10890 <https://arxiv.org/abs/2202.10890>`_), the lower half of the layers sees groups of
neighbouring tokens of one stream; each group is condensed to half as many latents, and those go
through the upper half, where the fusion tokens join.

Otherwise than there, a stream's pool adds the maximum over its tokens to what its query reads,
under the same mask: what is seen in one place only is learned in far fewer steps.

Axis letters: ``B`` batch, ``A`` tokens of sound, ``V`` of video, ``F`` of fusion, ``K`` all tokens,
``G`` groups, ``L`` latents, ``D`` width.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor, nn

from vlmreward.backbone.layers import (
    AttentionPool,
    Block,
    MaxAttentionPool,
    learned,
    small_at_first,
)
from vlmreward.backbone.streams import Stream, pool_mask, stream_mask, streams_of, window_mask

_FORMS = ("vit", "swin", "hip")


@dataclass(frozen=True)
class ZorroConfig:
    """Shape of a Zorro.

    Attributes:
        embed_dim: Width of the tokens.
        num_layers: Blocks.
        num_heads: Heads, which divide the width.
        num_fusion_tokens: Learned tokens that read everything.
        mlp_ratio: Width of the feed-forward part, in widths.
        form: What a pure token reads of its stream, "vit", "swin" or "hip", see the module.
        window: Tokens of a window of the form "swin", or of a group of the form "hip".

    Raises:
        ValueError: If a number is out of range.
    """

    embed_dim: int = 128
    num_layers: int = 4
    num_heads: int = 4
    num_fusion_tokens: int = 8
    mlp_ratio: int = 4
    form: str = "vit"
    window: int = 16

    def __post_init__(self) -> None:
        for name in ("embed_dim", "num_layers", "num_heads", "num_fusion_tokens", "mlp_ratio"):
            if getattr(self, name) < 1:
                raise ValueError(f"got {name}={getattr(self, name)}, expected at least 1")
        if self.embed_dim % self.num_heads:
            raise ValueError(
                f"got embed_dim={self.embed_dim} and num_heads={self.num_heads}, expected a number "
                "of heads that divides the width"
            )
        if self.form not in _FORMS:
            raise ValueError(f"got form={self.form!r}, expected one of {_FORMS}")
        if self.window < 2 or self.window % 2:
            raise ValueError(f"got window={self.window}, expected an even number of tokens")
        if self.form == "hip" and self.num_layers < 2:
            raise ValueError(
                f"got num_layers={self.num_layers}, expected at least 2: the form 'hip' has layers "
                "below its bottleneck and above it"
            )


@dataclass(frozen=True)
class ZorroOutput:
    """One vector for each stream.

    Attributes:
        audio: Of the sound alone; None without sound, 0 in rows that have none.
        video: Of the video alone; None without video, 0 in rows that have none.
        fusion: Of everything there is.
        fusion_tokens: What `fusion` is pooled from.
    """

    audio: Float[Tensor, "B D"] | None
    video: Float[Tensor, "B D"] | None
    fusion: Float[Tensor, "B D"]
    fusion_tokens: Float[Tensor, "B F D"]


class Zorro(nn.Module):
    """Sound, video or both to one vector for each stream.

    Args:
        config: Shape of the model.
        generator: Draws the initial weights.

    Example:
        >>> zorro = Zorro(ZorroConfig(embed_dim=16), torch.Generator().manual_seed(0))
        >>> output = zorro(audio=torch.zeros(2, 5, 16), video=None)
        >>> output.audio.shape, output.video, output.fusion_tokens.shape
        (torch.Size([2, 16]), None, torch.Size([2, 8, 16]))
    """

    def __init__(self, config: ZorroConfig, generator: torch.Generator) -> None:
        super().__init__()
        self.config = config
        width = config.embed_dim
        self.modality = learned(2, width, generator=generator)
        self.fusion_tokens = learned(config.num_fusion_tokens, width, generator=generator)
        num_grouped = config.num_layers // 2 if config.form == "hip" else 0
        self.groups = GroupEncoder(config, num_grouped, generator) if num_grouped else None
        self.blocks = _blocks(config, config.num_layers - num_grouped, generator)
        self.fusion_norm = nn.LayerNorm(width)
        self.pool = MaxAttentionPool(width, config.num_heads, len(Stream), generator)

    def forward(
        self,
        audio: Float[Tensor, "B A D"] | None,
        video: Float[Tensor, "B V D"] | None,
        has_audio: Bool[Tensor, " B"] | None = None,
        has_video: Bool[Tensor, " B"] | None = None,
    ) -> ZorroOutput:
        """Run the tokens that are there through the blocks, and pool each stream.

        Args:
            audio: Tokens with their positions; None if no row has sound.
            video: Tokens with their positions; None if no row has video.
            has_audio: Which rows have sound; None: all, if there are tokens. What stands in the
                other rows is never read.
            has_video: Which rows have video, likewise.

        Raises:
            ValueError: If a row has neither sound nor video, if tokens that are there contain NaN
                or infinity, or if tokens do not fill the groups of the form "hip".
        """
        given = [
            (stream, tokens, has)
            for stream, tokens, has in (
                (Stream.AUDIO, audio, has_audio),
                (Stream.VIDEO, video, has_video),
            )
            if tokens is not None
        ]
        _check_given(audio, video, has_audio, has_video)
        pure = torch.cat([self._ready(*modality) for modality in given], dim=1)
        num_tokens = {stream: tokens.shape[1] for stream, tokens, _ in given}
        is_there = _is_there(given)
        if self.groups is not None:
            pure, num_tokens = self.groups(pure, num_tokens)
            is_there = None if is_there is None else self.groups.condensed(is_there)
        num_tokens |= {Stream.FUSION: self.config.num_fusion_tokens}
        fusion = self.fusion_tokens.expand(len(pure), -1, -1)
        hidden = torch.cat([pure, fusion], dim=1)
        streams = streams_of(num_tokens, hidden.device)
        readable = _readable(is_there, self.config.num_fusion_tokens)
        masks = [_limited(mask, readable) for mask in self._masks(streams)]
        for layer, block in enumerate(self.blocks):
            hidden = block(hidden, masks[layer % len(masks)])
        pooled = self.pool(hidden, _limited(pool_mask(streams), readable))
        return ZorroOutput(
            audio=None if audio is None else pooled[:, Stream.AUDIO],
            video=None if video is None else pooled[:, Stream.VIDEO],
            fusion=pooled[:, Stream.FUSION],
            fusion_tokens=self.fusion_norm(hidden[:, -self.config.num_fusion_tokens :]),
        )

    def _ready(
        self, stream: Stream, tokens: Float[Tensor, "B N D"], has: Bool[Tensor, " B"] | None
    ) -> Float[Tensor, "B N D"]:
        """Say which modality the tokens are, and put zeros where there are none."""
        if has is not None:
            # A masked NaN would still spoil a sum: 0 · NaN is NaN.
            tokens = torch.where(has[:, None, None], tokens, 0.0)
        if not bool(tokens.isfinite().all()):
            raise ValueError(
                f"{stream.name.lower()} tokens contain NaN or infinity, expected finite numbers: "
                f"if a row has none, say so with has_{stream.name.lower()}"
            )
        return tokens + self.modality[stream]

    def _masks(self, streams: Int64[Tensor, " K"]) -> list[Bool[Tensor, "K K"]]:
        """The masks that the layers take in turns."""
        if self.config.form != "swin":
            return [stream_mask(streams)]
        window = self.config.window
        return [window_mask(streams, window, shift) for shift in (0, window // 2)]


class GroupEncoder(nn.Module):
    """The lower half of the form "hip": groups of neighbouring tokens, each for itself.

    Args:
        config: Shape of the model.
        num_layers: Blocks that see one group at a time.
        generator: Draws the initial weights.
    """

    def __init__(self, config: ZorroConfig, num_layers: int, generator: torch.Generator) -> None:
        super().__init__()
        self.group_size = config.window
        self.num_latents = config.window // 2
        self.blocks = _blocks(config, num_layers, generator)
        self.pool = AttentionPool(config.embed_dim, config.num_heads, self.num_latents, generator)

    def forward(
        self, tokens: Float[Tensor, "B K D"], num_tokens: dict[Stream, int]
    ) -> tuple[Float[Tensor, "B L D"], dict[Stream, int]]:
        """Condense each group to latents, and count those of each stream.

        Raises:
            ValueError: If the tokens of a stream do not fill its groups.
        """
        for stream, count in num_tokens.items():
            if count % self.group_size:
                raise ValueError(
                    f"got {count} {stream.name.lower()} tokens, expected a multiple of "
                    f"window={self.group_size} in the form 'hip': choose a window that divides it"
                )
        groups = tokens.reshape(-1, self.group_size, tokens.shape[-1])
        for block in self.blocks:
            groups = block(groups)
        latents = self.pool(groups).reshape(len(tokens), -1, tokens.shape[-1])
        return latents, {stream: count // 2 for stream, count in num_tokens.items()}

    def condensed(self, is_there: Bool[Tensor, "B K"]) -> Bool[Tensor, "B L"]:
        """Which latents come from tokens that are there; a group has all of its tokens or none."""
        return is_there[:, :: self.group_size].repeat_interleave(self.num_latents, dim=1)


def _blocks(config: ZorroConfig, num_layers: int, generator: torch.Generator) -> nn.ModuleList:
    width = config.embed_dim
    # What modules before it make of a frame reaches the pool from the first step of training on.
    return nn.ModuleList(
        small_at_first(Block(width, config.num_heads, config.mlp_ratio * width, generator))
        for _ in range(num_layers)
    )


def _check_given(
    audio: Tensor | None, video: Tensor | None, has_audio: Tensor | None, has_video: Tensor | None
) -> None:
    """Every row has sound or video, and no row is said to have what is not given."""
    if audio is None and video is None:
        raise ValueError("got neither audio nor video tokens, expected at least one of them")
    for name, tokens, has in (("audio", audio, has_audio), ("video", video, has_video)):
        if tokens is None and has is not None:
            raise ValueError(f"got has_{name} without {name} tokens: pass both or neither")
    has_one = [
        torch.as_tensor(tokens is not None) if has is None else has
        for tokens, has in ((audio, has_audio), (video, has_video))
    ]
    has_none = ~(has_one[0] | has_one[1])
    if bool(has_none.any()):
        row = int(has_none.nonzero()[0])
        raise ValueError(f"row {row} has neither audio nor video: leave it out of the batch")


def _is_there(
    given: list[tuple[Stream, Tensor, Bool[Tensor, " B"] | None]],
) -> Bool[Tensor, "B N"] | None:
    """Which tokens of the pure streams are there in each row; None: all of them."""
    if all(has is None for _, _, has in given):
        return None
    return torch.cat(
        [
            tokens.new_ones(tokens.shape[:2], dtype=torch.bool)
            if has is None
            else has[:, None].expand(tokens.shape[:2])
            for _, tokens, has in given
        ],
        dim=1,
    )


def _readable(
    is_there: Bool[Tensor, "B N"] | None, num_fusion_tokens: int
) -> Bool[Tensor, "B 1 K"] | None:
    """The same for all tokens: those of fusion are always there."""
    if is_there is None:
        return None
    return nn.functional.pad(is_there, (0, num_fusion_tokens), value=True)[:, None]


def _limited(
    mask: Bool[Tensor, "Q K"], readable: Bool[Tensor, "B 1 K"] | None
) -> Bool[Tensor, "Q K"] | Bool[Tensor, "B Q K"]:
    return mask if readable is None else mask & readable
