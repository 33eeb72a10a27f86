r"""What the transformer is stacked of: attention with a cache, and an MLP.

Rotary positions (Su et al. 2021, "RoFormer", `arXiv 2104.09864
<https://arxiv.org/abs/2104.09864>`_) turn pair :math:`i` of a query's or key's :math:`K` numbers,
at place :math:`m` of the context, by the angle :math:`m\,\theta_i` with
:math:`\theta_i = 10000^{-2i/K}`: of their places, the product of a query and a key depends only on
how far apart they are. Pair :math:`i` is numbers :math:`i` and :math:`i + K/2`.

Axis letters: ``B`` batch, ``T`` new tokens, ``P`` tokens old and new, ``H`` heads, ``D`` width,
``K`` width of a head.
"""

from __future__ import annotations

import math

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn import functional as F

from algdistill.models.config import ADTransformerConfig

_ROTARY_BASE = 10_000.0


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
            config.num_tokens,
            config.head_dim,
        )
        self._storage = torch.zeros(shape, device=device)
        self.num_tokens = 0

    @property
    def capacity(self) -> int:
        """Most tokens the cache can hold."""
        return self._storage.shape[4]

    def clear(self) -> None:
        """Forget every step; the storage is used again."""
        self.num_tokens = 0

    def extend(
        self, layer: int, keys: Float[Tensor, "B H T K"], values: Float[Tensor, "B H T K"]
    ) -> tuple[Float[Tensor, "B H P K"], Float[Tensor, "B H P K"]]:
        """Add a layer's new keys and values and return all it has, old and new."""
        end = self.num_tokens + keys.shape[2]
        self._storage[layer, 0, :, :, self.num_tokens : end] = keys
        self._storage[layer, 1, :, :, self.num_tokens : end] = values
        return self._storage[layer, 0, :, :, :end], self._storage[layer, 1, :, :, :end]


class RotaryPositions(nn.Module):
    """Turns queries and keys by their places in the context.

    Args:
        num_tokens: Places of the context.
        head_dim: Width ``K`` of a head.
    """

    def __init__(self, num_tokens: int, head_dim: int) -> None:
        super().__init__()
        exponents = torch.arange(0, head_dim, 2, dtype=torch.float64) / head_dim
        places = torch.arange(num_tokens, dtype=torch.float64)
        angles = torch.outer(places, _ROTARY_BASE**-exponents)
        self.register_buffer("cos", angles.cos().repeat(1, 2).float(), persistent=False)
        self.register_buffer("sin", angles.sin().repeat(1, 2).float(), persistent=False)
        self.cos: Tensor
        self.sin: Tensor

    def forward(self, vectors: Float[Tensor, "*B T K"], first: int) -> Float[Tensor, "*B T K"]:
        """Turn vectors that stand side by side, the first of them at place ``first``."""
        places = slice(first, first + vectors.shape[-2])
        left, right = vectors.chunk(2, dim=-1)
        swapped = torch.cat([-right, left], dim=-1)
        turned = vectors * self.cos[places] + swapped * self.sin[places]
        return turned.to(vectors.dtype)


def dropped(
    values: Float[Tensor, "*shape"], rate: float, generator: torch.Generator | None
) -> Float[Tensor, "*shape"]:
    """Zero each number with probability ``rate`` and scale up the others; all stay without a draw.

    torch's own dropout draws from the global generator.
    """
    if generator is None or rate == 0.0:
        return values
    kept = torch.rand(values.shape, generator=generator, device=values.device) >= rate
    return values * kept / (1.0 - rate)


class Block(nn.Module):
    """Attention and MLP, each with a residual connection and a norm before or after it."""

    def __init__(self, config: ADTransformerConfig, layer: int) -> None:
        super().__init__()
        self.layer = layer
        self.num_heads = config.num_heads
        self.norm_first = config.norm == "pre"
        self.dropout = config.dropout
        width = config.embed_dim
        self.attention_norm = nn.LayerNorm(width)
        self.query_key_value = nn.Linear(width, 3 * width)
        self.attention_out = nn.Linear(width, width)
        self.mlp_norm = nn.LayerNorm(width)
        self.mlp_in = nn.Linear(width, config.mlp_dim)
        self.mlp_out = nn.Linear(config.mlp_dim, width)

    def forward(
        self,
        hidden: Float[Tensor, "B T D"],
        cache: KeyValueCache | None = None,
        rotary: RotaryPositions | None = None,
        generator: torch.Generator | None = None,
    ) -> Float[Tensor, "B T D"]:
        """Mix each token with those before it, then change each by itself."""
        if self.norm_first:
            attended = self._attend(self.attention_norm(hidden), cache, rotary)
            hidden = hidden + dropped(attended, self.dropout, generator)
            return hidden + dropped(self._expand(self.mlp_norm(hidden)), self.dropout, generator)
        attended = self._attend(hidden, cache, rotary)
        hidden = self.attention_norm(hidden + dropped(attended, self.dropout, generator))
        expanded = dropped(self._expand(hidden), self.dropout, generator)
        output: Float[Tensor, "B T D"] = self.mlp_norm(hidden + expanded)
        return output

    def attention_weights(
        self, hidden: Float[Tensor, "B T D"], rotary: RotaryPositions | None = None
    ) -> Float[Tensor, "B H T T"]:
        """How much of each token, second ``T``, every token reads, first ``T``; sums to 1."""
        read = self.attention_norm(hidden) if self.norm_first else hidden
        query, keys, _ = self._projected(read, 0, rotary)
        scores = query @ keys.mT / math.sqrt(query.shape[-1])
        later = ~_earlier(query.shape[2], 0, query.device)
        return scores.masked_fill(later, -math.inf).softmax(dim=-1)

    def _attend(
        self,
        hidden: Float[Tensor, "B T D"],
        cache: KeyValueCache | None,
        rotary: RotaryPositions | None,
    ) -> Float[Tensor, "B T D"]:
        past = 0 if cache is None else cache.num_tokens
        query, keys, values = self._projected(hidden, past, rotary)
        if cache is not None:
            keys, values = cache.extend(self.layer, keys, values)
        # In bfloat16, attention on CPUs is ten times slower than in float32.
        with torch.autocast("cpu", enabled=False):
            attended = _attention(query, keys, values)
        output: Float[Tensor, "B T D"] = self.attention_out(attended.transpose(1, 2).flatten(2))
        return output

    def _projected(
        self, hidden: Float[Tensor, "B T D"], past: int, rotary: RotaryPositions | None
    ) -> tuple[Float[Tensor, "B H T K"], Float[Tensor, "B H T K"], Float[Tensor, "B H T K"]]:
        """Queries, keys and values of tokens of which the first is at place ``past``."""
        mixed = self.query_key_value(hidden)
        query, keys, values = mixed.unflatten(-1, (3, self.num_heads, -1)).permute(2, 0, 3, 1, 4)
        if rotary is not None:
            query, keys = rotary(query, past), rotary(keys, past)
        return query, keys, values

    def _expand(self, hidden: Float[Tensor, "B T D"]) -> Float[Tensor, "B T D"]:
        expanded: Float[Tensor, "B T D"] = self.mlp_out(F.gelu(self.mlp_in(hidden)))
        return expanded


def _attention(
    query: Float[Tensor, "B H T K"],
    keys: Float[Tensor, "B H P K"],
    values: Float[Tensor, "B H P K"],
) -> Float[Tensor, "B H T K"]:
    """What each of the new tokens, the last ``T`` of ``P``, reads of those up to itself."""
    num_new, past = query.shape[2], keys.shape[2] - query.shape[2]
    if query.device.type == "cpu":
        query, keys, values = query.float(), keys.float(), values.float()
    if num_new == 1:  # on CPUs, two products are faster than the fused kernel
        return (query @ keys.mT / math.sqrt(query.shape[-1])).softmax(dim=-1) @ values
    mask = _earlier(num_new, past, query.device) if past else None
    return F.scaled_dot_product_attention(
        query, keys, values, attn_mask=mask, is_causal=mask is None
    )


def _earlier(num_new: int, past: int, device: torch.device) -> Bool[Tensor, "T P"]:
    """Which tokens, old and new, each of several new ones may look at: those up to itself."""
    everything = torch.ones(num_new, past + num_new, dtype=torch.bool, device=device)
    return everything.tril(past)
