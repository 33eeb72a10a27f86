r"""A causal model over chunks (the autoregressive part of Mirasol3B, Piergiovanni et al. 2023).

A combiner makes :math:`m` features :math:`x_t` of each chunk. Block-causal attention makes latents
of them, :math:`h_t = f(x_1, \dots, x_t)`: all :math:`m` of a chunk see each other and the chunks
before, as far back as the context reaches, never one after. Two linear heads say from :math:`h_t`
what the chunk was and what the next one will be; neither target has a gradient:

.. math::
    L_\mathrm{present} = \lVert W_0 h_t - \mathrm{sg}(x_t) \rVert^2 / mD, \quad
    L_\mathrm{next} = \lVert W_1 h_t - \mathrm{sg}(x_{t+1}) \rVert^2 / mD

Features that are all the same are easy to predict: a loss of their own has to keep them apart.

Chunks are told their place in the episode by sines and cosines (`sinusoidal_stamps`), so that an
episode may be of any length; features should be of the size of those, as after a LayerNorm.

Axis letters: ``B`` batch, ``S`` steps, ``T`` chunks, ``C`` steps of a chunk, ``M`` tokens of a
chunk, ``P`` tokens that are kept, ``D`` width, ``X`` whatever there is of a step.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int64, Shaped
from torch import Tensor, nn
from torch.nn import functional as F

from vlmreward.backbone.combiner import sinusoidal_stamps
from vlmreward.backbone.layers import Block, learned, linear
from vlmreward.backbone.state import StateError, check_is_first, check_state_shape


@dataclass(frozen=True)
class LatentConfig:
    """Shape of a `CausalLatentModel`.

    Attributes:
        embed_dim: Width of a token.
        tokens_per_chunk: Features and latents of a chunk.
        context_chunks: Chunks that a layer looks at together, the present one and those before it.
        num_layers: Transformer blocks.
        num_heads: Attention heads; they divide ``embed_dim``.
        mlp_dim: Width of the hidden layer of each block's MLP.

    Raises:
        ValueError: If a size is below 1, or the width is odd.
    """

    embed_dim: int = 128
    tokens_per_chunk: int = 8
    context_chunks: int = 32
    num_layers: int = 4
    num_heads: int = 4
    mlp_dim: int = 512

    def __post_init__(self) -> None:
        for name, size in vars(self).items():
            if size < 1:
                raise ValueError(f"got {name}={size}, expected at least 1")
        if self.embed_dim % 2:
            raise ValueError(f"got embed_dim={self.embed_dim}, expected an even number")


@dataclass(frozen=True)
class Latents:
    """What the model makes of chunks.

    Attributes:
        latents: Each chunk in the light of those before it.
        present: What the heads take each chunk's own features to have been.
        next: What they expect the next chunk's to be.
    """

    latents: Float[Tensor, "B T M D"]
    present: Float[Tensor, "B T M D"]
    next: Float[Tensor, "B T M D"]


@dataclass(frozen=True)
class LatentState:
    """What the model keeps of the chunks before.

    Attributes:
        kept: What each block was handed for the chunks of the context, but for one.
        num_chunks: Chunks of the episode so far.
    """

    kept: tuple[Float[Tensor, "B P D"], ...]
    num_chunks: Int64[Tensor, " B"]


class CausalLatentModel(nn.Module):
    """A transformer over chunks that looks at no later chunk and at no other episode.

    Called with all chunks at once or fed one `step` after the other, it gives the same; the cost of
    a step is that of the context, however long the episode.

    Args:
        config: Shape of the model.
        generator: Draws the initial weights.
    """

    def __init__(self, config: LatentConfig, generator: torch.Generator) -> None:
        super().__init__()
        self.config = config
        width = config.embed_dim
        self.token_positions = learned(config.tokens_per_chunk, width, generator=generator)
        self.blocks = nn.ModuleList(
            Block(width, config.num_heads, config.mlp_dim, generator)
            for _ in range(config.num_layers)
        )
        self.final_norm = nn.LayerNorm(width)
        self.present_head = linear(width, width, generator)
        self.next_head = linear(width, width, generator)

    def forward(self, features: Float[Tensor, "B T M D"], is_first: Bool[Tensor, "B T"]) -> Latents:
        """Return latents of every chunk, and what they say of it and of the next.

        Args:
            features: A combiner's, of every chunk.
            is_first: Chunks that start an episode; the first of a row does so in any case.

        Raises:
            ValueError: If there is another number of tokens in a chunk.
        """
        self._check_tokens(features.shape[2])
        starts = episode_starts(is_first)
        places = torch.arange(features.shape[1], device=features.device) - starts
        stamps = sinusoidal_stamps(places.flatten(), self.config.embed_dim).view(*places.shape, -1)
        hidden = (features + stamps[:, :, None] + self.token_positions).flatten(1, 2)
        mask = block_causal_mask(starts, features.shape[2], self.config.context_chunks)
        for block in self.blocks:
            hidden = block(hidden, mask)
        return self._predict(hidden.view_as(features))

    def initial_state(self, batch_size: int) -> LatentState:
        """What is known before an episode's first chunk."""
        kept = self.token_positions.new_zeros(self._shape_kept(batch_size))
        num_chunks = torch.zeros(batch_size, dtype=torch.long, device=kept.device)
        return LatentState((kept,) * self.config.num_layers, num_chunks)

    def step(
        self, features: Float[Tensor, "B M D"], is_first: Tensor, state: LatentState | None
    ) -> tuple[Latents, LatentState]:
        """Take in one chunk of every row.

        Args:
            features: The chunk's.
            is_first: Rows of which this chunk starts an episode, bool `[B]`; what was kept of them
                is forgotten.
            state: What the step before returned; `initial_state` if None.

        Returns:
            Latents of this one chunk, and the state for the next step.

        Raises:
            StateError: If the state is of another model or batch, or flags are not one a row.
            ValueError: If there is another number of tokens in the chunk.
        """
        num_rows, num_tokens = features.shape[:2]
        self._check_tokens(num_tokens)
        check_is_first(is_first, num_rows)
        state = self.initial_state(num_rows) if state is None else state
        self._check_state(state, num_rows)
        num_chunks = state.num_chunks.masked_fill(is_first, 0)
        ages = torch.arange(self.config.context_chunks - 1, 0, -1, device=features.device)
        is_kept = (ages <= num_chunks[:, None]).repeat_interleave(num_tokens, dim=1)
        mask = torch.cat([is_kept, is_kept.new_ones(num_rows, num_tokens)], dim=1)
        mask = mask[:, None].expand(-1, num_tokens, -1)
        stamps = sinusoidal_stamps(num_chunks, self.config.embed_dim)
        hidden = features + stamps[:, None] + self.token_positions
        kept = []
        for block, before in zip(self.blocks, state.kept, strict=True):
            # NaN of an episode that is over would not stay where it is masked.
            past = torch.where(is_kept[..., None], before, 0.0)
            kept.append(torch.cat([past, hidden], dim=1)[:, num_tokens:])
            hidden = block(hidden, mask, past=past)
        return self._predict(hidden[:, None]), LatentState(tuple(kept), num_chunks + 1)

    def _predict(self, hidden: Float[Tensor, "B T M D"]) -> Latents:
        latents = self.final_norm(hidden)
        return Latents(latents, self.present_head(latents), self.next_head(latents))

    def _shape_kept(self, batch_size: int) -> tuple[int, int, int]:
        num_kept = (self.config.context_chunks - 1) * self.config.tokens_per_chunk
        return batch_size, num_kept, self.config.embed_dim

    def _check_state(self, state: LatentState, batch_size: int) -> None:
        if len(state.kept) != self.config.num_layers:
            raise StateError(
                f"got a state of {len(state.kept)} layers, expected {self.config.num_layers}: it "
                "is of another model"
            )
        for kept in state.kept:
            check_state_shape("a state", kept, self._shape_kept(batch_size))

    def _check_tokens(self, num_tokens: int) -> None:
        if num_tokens != self.config.tokens_per_chunk:
            raise ValueError(
                f"got chunks of {num_tokens} tokens, expected "
                f"tokens_per_chunk={self.config.tokens_per_chunk}"
            )


def cut_chunks(steps: Shaped[Tensor, "B S *X"], chunk_length: int) -> Shaped[Tensor, "B T C *X"]:
    """Cut what there is of every step of episodes into chunks of C steps, frames and sound alike.

    Args:
        steps: Of whole episodes.
        chunk_length: C.

    Raises:
        ValueError: If chunks do not divide the episodes.

    Example:
        >>> cut_chunks(torch.arange(6).view(1, 6), 3)
        tensor([[[0, 1, 2],
                 [3, 4, 5]]])
    """
    num_steps = steps.shape[1]
    if chunk_length < 1 or num_steps < 1 or num_steps % chunk_length:
        raise ValueError(
            f"got episodes of {num_steps} steps and chunks of {chunk_length}, expected chunks to "
            "divide them: take another length, or keep the last steps until more have come"
        )
    shape = (len(steps), num_steps // chunk_length, chunk_length, *steps.shape[2:])
    return steps.reshape(shape)


def episode_starts(is_first: Bool[Tensor, "B T"]) -> Int64[Tensor, "B T"]:
    """Return the place of the chunk with which each chunk's episode started.

    Example:
        >>> episode_starts(torch.tensor([[False, False, True, False]]))
        tensor([[0, 0, 2, 2]])
    """
    places = torch.arange(is_first.shape[1], device=is_first.device)
    return (places * is_first).cummax(dim=1).values


def block_causal_mask(
    starts: Int64[Tensor, "B T"], num_tokens: int, context_chunks: int
) -> Bool[Tensor, "B K K"]:
    """Return which token may look at which: at those of its own episode up to its own chunk.

    Args:
        starts: Of `episode_starts`.
        num_tokens: Tokens of a chunk; ``K`` is all of them.
        context_chunks: Chunks that are looked at together.
    """
    places = torch.arange(starts.shape[1], device=starts.device)
    ages = places[:, None] - places
    of_episode = places >= starts[:, :, None]
    mask = of_episode & (ages >= 0) & (ages < context_chunks)
    return mask.repeat_interleave(num_tokens, dim=1).repeat_interleave(num_tokens, dim=2)


def latent_loss(
    predicted: Latents, features: Float[Tensor, "B T M D"], is_first: Bool[Tensor, "B T"]
) -> dict[str, Float[Tensor, ""]]:
    """Return the losses ``present`` and ``next``, mean squared errors that teach the model only.

    Args:
        predicted: What the model made of the features.
        features: What it was to say; no gradient enters them from here.
        is_first: Chunks that start an episode, which nothing before them is asked to predict. With
            no chunk to predict, ``next`` is 0.
    """
    target = features.detach()
    present = F.mse_loss(predicted.present, target)
    errors = (predicted.next[:, :-1] - target[:, 1:]).square().mean(dim=(2, 3))
    is_asked = ~is_first[:, 1:]
    next_chunk = (errors * is_asked).sum() / is_asked.sum().clamp(min=1)
    return {"present": present, "next": next_chunk}
