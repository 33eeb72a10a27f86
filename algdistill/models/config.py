"""Shape of the model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from algdistill.task_space import TaskSpace


@dataclass(frozen=True)
class FrameEncoderConfig:
    """Shape of the encoder of frames, `algdistill.models.observation_encoder.FrameEncoder`.

    Attributes:
        channels: Channels of each block of convolutions.
        kernel_size: Side of the convolutions' windows, an odd number of pixels.
        linear_dim: Width of the layer after the blocks.

    Raises:
        ValueError: If there is no block, a size is below 1, or the kernel is even.
    """

    channels: tuple[int, ...] = (16, 32, 32)
    kernel_size: int = 3
    linear_dim: int = 128

    def __post_init__(self) -> None:
        if not self.channels or min(*self.channels, self.linear_dim) < 1:
            raise ValueError(
                f"got channels={self.channels} and linear_dim={self.linear_dim}, expected at least "
                "one block and sizes of at least 1"
            )
        if self.kernel_size < 1 or self.kernel_size % 2 == 0:
            raise ValueError(f"got kernel_size={self.kernel_size}, expected an odd number")

    @classmethod
    def paper(cls) -> FrameEncoderConfig:
        """Shape of the image encoder of Laskin et al. 2022."""
        return cls(channels=(128, 128, 128), kernel_size=5, linear_dim=256)


@dataclass(frozen=True)
class ADTransformerConfig:
    """Shape of the model.

    Attributes:
        space: Observation and action spaces of the tasks.
        context_length: Most time steps the model can look at together, itself included.
        embed_dim: Width of a token.
        num_layers: Transformer blocks.
        num_heads: Attention heads; they divide ``embed_dim``.
        mlp_dim: Width of the hidden layer of each block's MLP.
        norm: Whether a block normalises what it reads (``"pre"``) or the sum of what it read and
            what it makes of it (``"post"``; Vaswani et al. 2017).
        positions: A vector for each place in the context, added to its token (``"learned"``), or
            queries and keys turned by their places (``"rotary"``; Su et al. 2021).
        tokens_per_step: One token for all that is known at a time step, or three: previous action,
            previous reward, observation.
        dropout: Probability that a number is dropped, in training, wherever a block or a position
            writes to the residual stream. Attention weights are never dropped.
        frames: Shape of the encoder of frames, where tasks show frames.

    Raises:
        ValueError: If a size is below 1, the heads do not divide the width, or an option is
            unknown or out of its range.

    Example:
        >>> space = TaskSpace.symbolic((9, 9), num_actions=5)
        >>> ADTransformerConfig(space, positions="rotary").num_tokens
        100
        >>> ADTransformerConfig.paper(space, context_length=80).num_tokens
        240
    """

    space: TaskSpace
    context_length: int = 100
    embed_dim: int = 64
    num_layers: int = 4
    num_heads: int = 4
    mlp_dim: int = 256
    norm: str = "pre"
    positions: str = "learned"
    tokens_per_step: int = 1
    dropout: float = 0.0
    frames: FrameEncoderConfig = field(default_factory=FrameEncoderConfig)

    def __post_init__(self) -> None:
        for name in ("context_length", "embed_dim", "num_layers", "num_heads", "mlp_dim"):
            if getattr(self, name) < 1:
                raise ValueError(f"got {name}={getattr(self, name)}, expected at least 1")
        if self.embed_dim % self.num_heads:
            raise ValueError(
                f"got embed_dim={self.embed_dim}, expected a multiple of num_heads={self.num_heads}"
            )
        for name, allowed in (
            ("norm", ("pre", "post")),
            ("positions", ("learned", "rotary")),
            ("tokens_per_step", (1, 3)),
        ):
            if getattr(self, name) not in allowed:
                raise ValueError(f"got {name}={getattr(self, name)!r}, expected one of {allowed}")
        if self.positions == "rotary" and self.head_dim % 2:
            raise ValueError(
                f"got embed_dim={self.embed_dim} for num_heads={self.num_heads}, expected an even "
                "number for each head: rotary positions turn pairs"
            )
        if not 0.0 <= self.dropout < 1.0:
            raise ValueError(f"got dropout={self.dropout}, expected 0 up to, not including, 1")

    @classmethod
    def paper(cls, space: TaskSpace, *, context_length: int) -> ADTransformerConfig:
        """Shape of the model of Laskin et al. 2022; its attention dropout is left out."""
        return cls(
            space,
            context_length=context_length,
            embed_dim=64,
            num_layers=4,
            num_heads=4,
            mlp_dim=2048,
            norm="post",
            positions="learned",
            tokens_per_step=3,
            dropout=0.1,
            frames=FrameEncoderConfig.paper(),
        )

    @property
    def num_tokens(self) -> int:
        """Tokens of a full context."""
        return self.context_length * self.tokens_per_step

    @property
    def head_dim(self) -> int:
        """Width of an attention head."""
        return self.embed_dim // self.num_heads

    def to_dict(self) -> dict[str, Any]:
        """Everything as data that JSON can hold."""
        return {**asdict(self), "space": self.space.to_dict()}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> ADTransformerConfig:
        """Read what `to_dict` made, options that it does not name being the default."""
        values = {**data, "space": TaskSpace.from_dict(data["space"])}
        if "frames" in values:
            frames = values["frames"]
            channels = tuple(frames["channels"])
            values["frames"] = FrameEncoderConfig(**{**frames, "channels": channels})
        return cls(**values)
