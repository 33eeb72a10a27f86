r"""The causal transformer of Algorithm Distillation (Laskin et al. 2022), one token a step.

Pre-norm blocks over tokens :math:`x_t` of `TimestepEncoder` with learned positions :math:`p_t`:

.. math::
    h^0_t &= x_t + p_t \\
    u^l &= h^{l-1} + \mathrm{Attention}(\mathrm{LayerNorm}(h^{l-1})) \\
    h^l &= u^l + \mathrm{MLP}(\mathrm{LayerNorm}(u^l)) \\
    \pi(a \mid \text{history up to } t) &= \mathrm{softmax}(W\,\mathrm{LayerNorm}(h^L_t))

Paper → code: embedding size → ``embed_dim``, token masking → the ``masked`` argument.

Axis letters: ``B`` batch, ``T`` new time steps, ``P`` cached time steps, ``H`` heads, ``D`` width,
``A`` actions.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn import functional as F

from algdistill.models.timestep_encoder import TimestepEncoder
from algdistill.tasks import TaskSpace
from algdistill.timesteps import TimestepBatch


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

    Raises:
        ValueError: If a size is below 1 or the heads do not divide the width.
    """

    space: TaskSpace
    context_length: int = 100
    embed_dim: int = 64
    num_layers: int = 4
    num_heads: int = 4
    mlp_dim: int = 256

    def __post_init__(self) -> None:
        for name in ("context_length", "embed_dim", "num_layers", "num_heads", "mlp_dim"):
            if getattr(self, name) < 1:
                raise ValueError(f"got {name}={getattr(self, name)}, expected at least 1")
        if self.embed_dim % self.num_heads:
            raise ValueError(
                f"got embed_dim={self.embed_dim}, expected a multiple of num_heads={self.num_heads}"
            )


class KeyValueCache:
    """Keys and values of the time steps seen so far, for acting one step at a time.

    Args:
        config: Shape of the model.
        batch_size: Sequences that advance together.
        device: Where the model is.
    """

    def __init__(self, config: ADTransformerConfig, batch_size: int, device: torch.device) -> None:
        shape = (
            config.num_layers,
            2,
            batch_size,
            config.num_heads,
            config.context_length,
            config.embed_dim // config.num_heads,
        )
        self._storage = torch.zeros(shape, device=device)
        self.num_steps = 0

    @property
    def capacity(self) -> int:
        """Most time steps the cache can hold."""
        return self._storage.shape[4]

    def clear(self) -> None:
        """Forget every step; the storage is used again."""
        self.num_steps = 0

    def extend(
        self, layer: int, keys: Float[Tensor, "B H T K"], values: Float[Tensor, "B H T K"]
    ) -> tuple[Float[Tensor, "B H P K"], Float[Tensor, "B H P K"]]:
        """Add a layer's new keys and values and return all it has, old and new."""
        end = self.num_steps + keys.shape[2]
        self._storage[layer, 0, :, :, self.num_steps : end] = keys
        self._storage[layer, 1, :, :, self.num_steps : end] = values
        return self._storage[layer, 0, :, :, :end], self._storage[layer, 1, :, :, :end]


class _Block(nn.Module):
    """Pre-norm attention and MLP, each with a residual connection."""

    def __init__(self, config: ADTransformerConfig, layer: int) -> None:
        super().__init__()
        self.layer = layer
        self.num_heads = config.num_heads
        width = config.embed_dim
        self.attention_norm = nn.LayerNorm(width)
        self.query_key_value = nn.Linear(width, 3 * width)
        self.attention_out = nn.Linear(width, width)
        self.mlp_norm = nn.LayerNorm(width)
        self.mlp_in = nn.Linear(width, config.mlp_dim)
        self.mlp_out = nn.Linear(config.mlp_dim, width)

    def forward(
        self, hidden: Float[Tensor, "B T D"], cache: KeyValueCache | None
    ) -> Float[Tensor, "B T D"]:
        mixed = self.query_key_value(self.attention_norm(hidden))
        query, keys, values = mixed.unflatten(-1, (3, self.num_heads, -1)).permute(2, 0, 3, 1, 4)
        num_new = query.shape[2]
        if cache is not None:
            keys, values = cache.extend(self.layer, keys, values)
        # A single new step may look at everything; several must not look at later ones.
        attended = F.scaled_dot_product_attention(query, keys, values, is_causal=num_new > 1)
        hidden = hidden + self.attention_out(attended.transpose(1, 2).flatten(2))
        expanded = F.gelu(self.mlp_in(self.mlp_norm(hidden)), approximate="tanh")
        output: Float[Tensor, "B T D"] = hidden + self.mlp_out(expanded)
        return output


class ADTransformer(nn.Module):
    """Predicts the source's action at every time step from the steps up to it.

    Args:
        config: Shape of the model.
        generator: Draws the initial weights.
    """

    def __init__(self, config: ADTransformerConfig, generator: torch.Generator) -> None:
        super().__init__()
        self.config = config
        self.encoder = TimestepEncoder(config.space, config.embed_dim, generator)
        self.positions = nn.Parameter(torch.empty(config.context_length, config.embed_dim))
        self.mask_token = nn.Parameter(torch.empty(config.embed_dim))
        self.blocks = nn.ModuleList(_Block(config, layer) for layer in range(config.num_layers))
        self.final_norm = nn.LayerNorm(config.embed_dim)
        self.action_head = nn.Linear(config.embed_dim, config.space.num_actions)
        self._initialise(generator)

    def _initialise(self, generator: torch.Generator) -> None:
        """Small normal weights; the layers that write to the residual stream start smaller."""
        for name, parameter in self.named_parameters():
            if "norm" in name or name.startswith("encoder."):
                continue
            if name.endswith("bias"):
                nn.init.zeros_(parameter)
                continue
            residual = name.endswith(("attention_out.weight", "mlp_out.weight"))
            std = 0.02 / math.sqrt(2 * self.config.num_layers) if residual else 0.02
            nn.init.normal_(parameter, std=std, generator=generator)

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.positions.device

    def forward(
        self,
        steps: TimestepBatch,
        masked: Bool[Tensor, "B T"] | None = None,
        cache: KeyValueCache | None = None,
    ) -> Float[Tensor, "B T A"]:
        """Logits of the action at every time step: `encode`, then `predict`.

        Args:
            steps: What is known at each step.
            masked: Steps whose whole token is hidden behind the mask token.
            cache: See `predict`.

        Raises:
            ValueError: See `predict`.
        """
        tokens = self.encode(steps)
        if masked is not None:
            tokens = torch.where(masked[..., None], self.mask_token, tokens)
        return self.predict(tokens, cache)

    def encode(self, steps: TimestepBatch) -> Float[Tensor, "B T D"]:
        """Turn time steps into tokens, each by itself: a token says nothing of its neighbours."""
        tokens: Float[Tensor, "B T D"] = self.encoder(steps)
        return tokens

    def predict(
        self, tokens: Float[Tensor, "B T D"], cache: KeyValueCache | None = None
    ) -> Float[Tensor, "B T A"]:
        """Logits of the action at every time step, from the tokens of the steps up to it.

        Args:
            tokens: What `encode` made of the steps.
            cache: Filled with the new steps. One that already holds steps takes one more at a
                time; an empty one takes any number.

        Raises:
            ValueError: If there are more steps than the context holds, or several new ones for a
                cache that is not empty.
        """
        num_new = tokens.shape[1]
        past = 0 if cache is None else cache.num_steps
        if past and num_new > 1:
            raise ValueError(
                f"got {num_new} steps for a cache that holds {past}, expected one at a "
                "time: clear the cache to fill it anew"
            )
        end = past + num_new
        if end > self.config.context_length:
            raise ValueError(
                f"got {end} time steps, expected at most context_length="
                f"{self.config.context_length}: drop the oldest ones"
            )
        hidden = tokens + self.positions[past:end]
        for block in self.blocks:
            hidden = block(hidden, cache)
        if cache is not None:
            cache.num_steps = end
        logits: Float[Tensor, "B T A"] = self.action_head(self.final_norm(hidden))
        return logits
