r"""What the transformers of the backbone are stacked of.

Attention (Vaswani et al. 2017, `arXiv 1706.03762 <https://arxiv.org/abs/1706.03762>`_) of queries
:math:`q` over keys :math:`k` and values :math:`v`, with a mask :math:`m` of what may be read, in a
block with the norm before each part:

.. math::
    \mathrm{Attention}(x, c)_i &= W_o \sum_j a_{ij} v_j, \quad
        a_{ij} \propto m_{ij} \exp(q_i \cdot k_j / \sqrt{d}) \\
    u &= x + \mathrm{Attention}(\mathrm{LN}(x), \mathrm{LN}(x)) \\
    y &= u + W_2\,\mathrm{GELU}(W_1\,\mathrm{LN}(u))

A query that may read nothing gets exactly 0. Nothing here normalises over the batch or over tokens,
so that a mask is all there is to say about what reads what.

Axis letters: ``B`` batch, ``Q`` queries, ``K`` tokens, ``P`` tokens of before, ``H`` heads, ``D``
width.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn import functional as F

Mask = Bool[Tensor, "Q K"] | Bool[Tensor, "B Q K"]
"""Which token (columns) each query (rows) may read, for all rows of the batch or for each."""
_FIRST_SHARE = 0.1


def linear(in_features: int, out_features: int, generator: torch.Generator) -> nn.Linear:
    """A linear layer with normal weights of variance 1 / `in_features`, and biases 0."""
    # Made without weights first: drawing them would use the global generator.
    layer = nn.Linear(in_features, out_features, device="meta").to_empty(device="cpu")
    nn.init.normal_(layer.weight, std=in_features**-0.5, generator=generator)
    nn.init.zeros_(layer.bias)
    return layer


def learned(*shape: int, generator: torch.Generator) -> nn.Parameter:
    """Learned tokens, queries or positions: normal with standard deviation 0.02."""
    return nn.Parameter(torch.empty(shape).normal_(std=0.02, generator=generator))


@contextmanager
def seeded_by(generator: torch.Generator) -> Iterator[None]:
    """Let modules of other libraries, which draw from torch's own generator, draw from ours."""
    seed = int(torch.randint(2**62, (), generator=generator))
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)  # not the devices' as well
        yield


def dropped(
    values: Float[Tensor, "*shape"], rate: float, generator: torch.Generator | None
) -> Float[Tensor, "*shape"]:
    """Zero each number with probability `rate` and scale up the others; all stay without a draw.

    torch's own dropout draws from the global generator.
    """
    if generator is None or rate == 0.0:
        return values
    kept = torch.rand(values.shape, generator=generator, device=values.device) >= rate
    return values * kept / (1.0 - rate)


class Attention(nn.Module):
    """Attention of some tokens over others, or over themselves.

    Args:
        embed_dim: Width of the tokens.
        num_heads: Heads, which divide the width.
        generator: Draws the initial weights.
        context_dim: Width of what is read; that of the tokens by default.

    Raises:
        ValueError: If the heads do not divide the width.
    """

    def __init__(
        self,
        embed_dim: int,
        num_heads: int,
        generator: torch.Generator,
        *,
        context_dim: int | None = None,
    ) -> None:
        super().__init__()
        if num_heads < 1 or embed_dim % num_heads:
            raise ValueError(
                f"got embed_dim={embed_dim} and num_heads={num_heads}, expected a number of heads "
                "that divides the width"
            )
        self.num_heads = num_heads
        self.query = linear(embed_dim, embed_dim, generator)
        self.key_value = linear(context_dim or embed_dim, 2 * embed_dim, generator)
        self.out = linear(embed_dim, embed_dim, generator)

    def forward(
        self,
        queries: Float[Tensor, "B Q D"],
        context: Float[Tensor, "B K E"],
        mask: Mask | None = None,
    ) -> Float[Tensor, "B Q D"]:
        """What each query reads of the context; 0 where the mask leaves it nothing."""
        query = self.query(queries).unflatten(-1, (self.num_heads, -1)).transpose(1, 2)
        mixed = self.key_value(context).unflatten(-1, (2, self.num_heads, -1))
        keys, values = mixed.permute(2, 0, 3, 1, 4)
        if mask is None:
            attended = F.scaled_dot_product_attention(query, keys, values)
            return self._put_together(attended)
        reads_any = mask.any(dim=-1, keepdim=True)
        # Such a row would divide 0 by 0: it reads anything here, and is emptied below.
        allowed = mask | ~reads_any
        per_head = allowed if allowed.ndim == 2 else allowed[:, None]
        attended = F.scaled_dot_product_attention(query, keys, values, attn_mask=per_head)
        return torch.where(reads_any, self._put_together(attended), 0.0)

    def _put_together(self, attended: Float[Tensor, "B H Q E"]) -> Float[Tensor, "B Q D"]:
        output: Float[Tensor, "B Q D"] = self.out(attended.transpose(1, 2).flatten(2))
        return output


class FeedForward(nn.Module):
    """Two linear layers with a GELU between them, for each token by itself.

    Args:
        embed_dim: Width of the tokens.
        mlp_dim: Width between the layers.
        generator: Draws the initial weights.
    """

    def __init__(self, embed_dim: int, mlp_dim: int, generator: torch.Generator) -> None:
        super().__init__()
        self.expand = linear(embed_dim, mlp_dim, generator)
        self.out = linear(mlp_dim, embed_dim, generator)

    def forward(self, hidden: Float[Tensor, "*B D"]) -> Float[Tensor, "*B D"]:
        """Change each token by itself."""
        output: Float[Tensor, "*B D"] = self.out(F.gelu(self.expand(hidden)))
        return output


class Block(nn.Module):
    """Self-attention and a feed-forward part, each with a residual connection and the norm before.

    Args:
        embed_dim: Width of the tokens.
        num_heads: Heads, which divide the width.
        mlp_dim: Width of the feed-forward part.
        generator: Draws the initial weights.
        dropout: Share of what each part adds that is dropped, in training.
    """

    def __init__(
        self,
        embed_dim: int,
        num_heads: int,
        mlp_dim: int,
        generator: torch.Generator,
        *,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        if not 0.0 <= dropout < 1.0:
            raise ValueError(f"got dropout={dropout}, expected it in [0, 1)")
        self.dropout = dropout
        self.attention_norm = nn.LayerNorm(embed_dim)
        self.attention = Attention(embed_dim, num_heads, generator)
        self.mlp_norm = nn.LayerNorm(embed_dim)
        self.mlp = FeedForward(embed_dim, mlp_dim, generator)

    def forward(
        self,
        hidden: Float[Tensor, "B Q D"],
        mask: Mask | None = None,
        generator: torch.Generator | None = None,
        *,
        past: Float[Tensor, "B P D"] | None = None,
    ) -> Float[Tensor, "B Q D"]:
        """Mix the tokens as the mask allows, then change each by itself.

        Args:
            hidden: Tokens.
            mask: `[Q, K]` or `[B, Q, K]`, the tokens of the past first; None: every token reads
                every other, and the past.
            generator: Draws what is dropped; without it, and in eval mode, nothing is.
            past: What this block was handed before, which the tokens read as well.
        """
        draws = generator if self.training else None
        read = self.attention_norm(hidden)
        context = read if past is None else torch.cat([self.attention_norm(past), read], dim=1)
        hidden = hidden + dropped(self.attention(read, context, mask), self.dropout, draws)
        return hidden + dropped(self.mlp(self.mlp_norm(hidden)), self.dropout, draws)


def small_at_first(block: Block) -> Block:
    """Make a block add a tenth of what it would, so that what comes in also comes out at first."""
    for layer in (block.attention.out, block.mlp.out):
        layer.weight.data *= _FIRST_SHARE
    return block


class AttentionPool(nn.Module):
    """Learned queries that each read what they may of the tokens, and become one vector each.

    Args:
        embed_dim: Width of the tokens.
        num_heads: Heads, which divide the width.
        num_queries: Vectors put out.
        generator: Draws the initial weights.
    """

    def __init__(
        self, embed_dim: int, num_heads: int, num_queries: int, generator: torch.Generator
    ) -> None:
        super().__init__()
        self.queries = learned(num_queries, embed_dim, generator=generator)
        self.norm = nn.LayerNorm(embed_dim)
        self.attention = Attention(embed_dim, num_heads, generator)

    def forward(
        self, tokens: Float[Tensor, "B K D"], mask: Mask | None = None
    ) -> Float[Tensor, "B Q D"]:
        """One vector for each query, 0 where the mask leaves it nothing to read.

        Args:
            tokens: To be pooled.
            mask: Which token each query may read, `[Q, K]` or `[B, Q, K]`; None: all.
        """
        queries = self.queries.expand(len(tokens), -1, -1)
        pooled: Float[Tensor, "B Q D"] = self.attention(queries, self.norm(tokens), mask)
        return pooled


class MaxAttentionPool(nn.Module):
    """An attention pool, to which the maximum of each feature over what a query may read is added.

    What is seen in one place of a frame only is in the maximum from the first step of training on;
    attention must find it first.

    Args:
        embed_dim: Width of the tokens.
        num_heads: Heads, which divide the width.
        num_queries: Vectors put out.
        generator: Draws the initial weights.
    """

    def __init__(
        self, embed_dim: int, num_heads: int, num_queries: int, generator: torch.Generator
    ) -> None:
        super().__init__()
        self.attention = AttentionPool(embed_dim, num_heads, num_queries, generator)
        self.norm = nn.LayerNorm(embed_dim)
        self.out = linear(embed_dim, embed_dim, generator)

    def forward(self, tokens: Float[Tensor, "B K D"], mask: Mask) -> Float[Tensor, "B Q D"]:
        """One vector for each query, 0 where the mask leaves it nothing to read.

        Args:
            tokens: To be pooled.
            mask: Which token each query may read, `[Q, K]` or `[B, Q, K]`.
        """
        reads_any = mask.any(dim=-1, keepdim=True)
        # A maximum of nothing would be no number: it is of anything here, and is emptied below.
        hidden = ~(mask | ~reads_any)
        largest = tokens.unsqueeze(-3).masked_fill(hidden[..., None], -torch.inf).amax(dim=-2)
        added = torch.where(reads_any, self.out(self.norm(largest)), 0.0)
        pooled: Float[Tensor, "B Q D"] = self.attention(tokens, mask) + added
        return pooled
