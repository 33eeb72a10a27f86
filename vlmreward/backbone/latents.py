r"""A causal model over chunks (the autoregressive part of Mirasol3B, Piergiovanni et al. 2023).

A combiner makes :math:`m` features :math:`x_t` of each chunk. Block-causal attention makes latents
of them, :math:`h_t = f(x_1, \dots, x_t)`: all :math:`m` of a chunk see each other and every chunk
before, never one after. Two linear heads say from :math:`h_t` what the chunk was and what the next
one will be; neither target has a gradient:

.. math::
    L_\mathrm{present} = \lVert W_0 h_t - \mathrm{sg}(x_t) \rVert^2 / mD, \quad
    L_\mathrm{next} = \lVert W_1 h_t - \mathrm{sg}(x_{t+1}) \rVert^2 / mD

Features that are all the same are easy to predict: a loss of their own has to keep them apart.

Axis letters: ``B`` batch, ``S`` steps, ``T`` chunks, ``C`` steps of a chunk, ``M`` tokens of a
chunk, ``D`` width, ``X`` whatever there is of a step.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int64, Shaped
from torch import Tensor, nn
from torch.nn import functional as F

from vlmreward.backbone.layers import Block, learned, linear


@dataclass(frozen=True)
class LatentConfig:
    """Shape of a `CausalLatentModel`.

    Attributes:
        embed_dim: Width of a token.
        tokens_per_chunk: Features and latents of a chunk.
        max_chunks: Most chunks the model can look at together.
        num_layers: Transformer blocks.
        num_heads: Attention heads; they divide ``embed_dim``.
        mlp_dim: Width of the hidden layer of each block's MLP.

    Raises:
        ValueError: If a size is below 1.
    """

    embed_dim: int = 128
    tokens_per_chunk: int = 8
    max_chunks: int = 32
    num_layers: int = 4
    num_heads: int = 4
    mlp_dim: int = 512

    def __post_init__(self) -> None:
        for name, size in vars(self).items():
            if size < 1:
                raise ValueError(f"got {name}={size}, expected at least 1")


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


class CausalLatentModel(nn.Module):
    """A transformer over chunks that looks at no later chunk and at no other episode.

    Args:
        config: Shape of the model.
        generator: Draws the initial weights.
    """

    def __init__(self, config: LatentConfig, generator: torch.Generator) -> None:
        super().__init__()
        self.config = config
        width = config.embed_dim
        self.chunk_positions = learned(config.max_chunks, width, generator=generator)
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
            ValueError: If there are more chunks than the context holds, or another number of
                tokens in a chunk.
        """
        num_chunks, num_tokens = features.shape[1:3]
        if num_chunks > self.config.max_chunks or num_tokens != self.config.tokens_per_chunk:
            raise ValueError(
                f"got {num_chunks} chunks of {num_tokens} tokens, expected at most "
                f"max_chunks={self.config.max_chunks} of "
                f"tokens_per_chunk={self.config.tokens_per_chunk}: drop the oldest chunks"
            )
        starts = episode_starts(is_first)
        places = torch.arange(num_chunks, device=features.device) - starts
        positions = self.chunk_positions[places][:, :, None] + self.token_positions
        mask = block_causal_mask(starts, num_tokens)
        hidden = (features + positions).flatten(1, 2)
        for block in self.blocks:
            hidden = block(hidden, mask)
        latents = self.final_norm(hidden).unflatten(1, (num_chunks, num_tokens))
        return Latents(latents, self.present_head(latents), self.next_head(latents))


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


def block_causal_mask(starts: Int64[Tensor, "B T"], num_tokens: int) -> Bool[Tensor, "B K K"]:
    """Return which token may look at which: at those of its own episode up to its own chunk.

    Args:
        starts: Of `episode_starts`.
        num_tokens: Tokens of a chunk; ``K`` is all of them.
    """
    places = torch.arange(starts.shape[1], device=starts.device)
    of_episode = places >= starts[:, :, None]
    mask = of_episode & (places <= places[:, None])
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
