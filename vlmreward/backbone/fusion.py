r"""Letting one stream read another, from nothing at all at the start.

Gated cross-attention (Alayrac et al. 2022, "Flamingo", `arXiv 2204.14198
<https://arxiv.org/abs/2204.14198>`_) of tokens :math:`x` over a context :math:`c`, with gates
:math:`a, b` that begin at 0, so that a trained stream is at first left exactly as it was:

.. math::
    u &= x + \tanh(a)\,\mathrm{Attention}(\mathrm{LN}(x), \mathrm{LN}(c)) \\
    y &= u + \tanh(b)\,\mathrm{MLP}(\mathrm{LN}(u))

Gates per modality weigh one vector of each modality by how much to believe it:

.. math:: y = \sum_m \sigma(w_m \cdot \mathrm{LN}(x_m) + b_m)\, x_m

Axis letters: ``B`` batch, ``Q`` tokens, ``K`` tokens of the context, ``D`` width, ``E`` width of
the context.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from vlmreward.backbone.layers import Attention, FeedForward, Mask, linear


class GatedCrossAttention(nn.Module):
    """Cross-attention and a feed-forward part behind gates that begin closed.

    Args:
        embed_dim: Width of the tokens.
        num_heads: Heads, which divide the width.
        mlp_dim: Width of the feed-forward part.
        generator: Draws the initial weights.
        context_dim: Width of the context; that of the tokens by default.
    """

    def __init__(
        self,
        embed_dim: int,
        num_heads: int,
        mlp_dim: int,
        generator: torch.Generator,
        *,
        context_dim: int | None = None,
    ) -> None:
        super().__init__()
        self.query_norm = nn.LayerNorm(embed_dim)
        self.context_norm = nn.LayerNorm(context_dim or embed_dim)
        self.attention = Attention(embed_dim, num_heads, generator, context_dim=context_dim)
        self.attention_gate = nn.Parameter(torch.zeros(()))
        self.mlp_norm = nn.LayerNorm(embed_dim)
        self.mlp = FeedForward(embed_dim, mlp_dim, generator)
        self.mlp_gate = nn.Parameter(torch.zeros(()))

    def forward(
        self,
        tokens: Float[Tensor, "B Q D"],
        context: Float[Tensor, "B K E"],
        mask: Mask | None = None,
    ) -> Float[Tensor, "B Q D"]:
        """Add to each token what it reads of the context, as far as the gates are open.

        Args:
            tokens: Of the stream that reads.
            context: What is read. NaN would pass even closed gates, unless no token may read it.
            mask: Which token of the context each token may read; None: all.
        """
        if mask is not None:
            context = torch.where(mask.any(dim=-2)[..., None], context, 0.0)
        read = self.attention(self.query_norm(tokens), self.context_norm(context), mask)
        hidden = tokens + self.attention_gate.tanh() * read
        expanded = self.mlp(self.mlp_norm(hidden))
        output: Float[Tensor, "B Q D"] = hidden + self.mlp_gate.tanh() * expanded
        return output


class ModalityGates(nn.Module):
    """A sum of one vector of each modality, weighted by gates between 0 and 1.

    Args:
        modalities: Their names.
        embed_dim: Width of the vectors.
        generator: Draws the initial weights.
    """

    def __init__(
        self, modalities: Sequence[str], embed_dim: int, generator: torch.Generator
    ) -> None:
        super().__init__()
        self.gate = nn.ModuleDict(
            {
                name: nn.Sequential(nn.LayerNorm(embed_dim), linear(embed_dim, 1, generator))
                for name in modalities
            }
        )

    def forward(
        self,
        vectors: Mapping[str, Float[Tensor, "B D"]],
        present: Mapping[str, Bool[Tensor, " B"]] | None = None,
    ) -> Float[Tensor, "B D"]:
        """Sum up the vectors that are there.

        Args:
            vectors: At least one; a modality that is left out adds nothing.
            present: In which rows a modality is there; one that is left out is there in all.

        Raises:
            ValueError: If there is no vector, or one of an unknown modality.
        """
        unknown = set(vectors) - set(self.gate)
        if unknown or not vectors:
            raise ValueError(
                f"got vectors of {sorted(vectors)}, expected some of {sorted(self.gate)}"
            )
        total = torch.zeros_like(next(iter(vectors.values())))
        for name, given in vectors.items():
            is_there = None if present is None else present.get(name)
            # Before the gate: NaN times 0 in a gradient would be NaN.
            vector = given if is_there is None else torch.where(is_there[:, None], given, 0.0)
            total = total + self.gates(name, vector)[:, None] * vector
        return total

    def gates(self, modality: str, vectors: Float[Tensor, "B D"]) -> Float[Tensor, " B"]:
        """How far the gate of a modality is open for each of its vectors."""
        openness: Float[Tensor, " B"] = self.gate[modality](vectors).squeeze(-1).sigmoid()
        return openness
