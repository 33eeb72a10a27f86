r"""Fewer tokens out of many, by weights that are learned (Ryoo et al. 2022, Token Turing Machines).

.. math::
    S_k(V) = \mathrm{softmax}(\mathrm{MLP}(\mathrm{LayerNorm}(V)))^\top V

The softmax is over the tokens, so each of the :math:`k` outputs is a weighted mean of the inputs,
which are not normalised: no output lies outside what the inputs span.

Paper → code: :math:`V` → ``tokens``, :math:`k` → ``num_outputs``.

Axis letters: ``B`` batch, ``K`` tokens, ``M`` outputs, ``D`` width.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from vlmreward.backbone.layers import linear


class TokenSummariser(nn.Module):
    """Summarises any number of tokens in a fixed number.

    The tokens have no positions: their order changes nothing.

    Args:
        embed_dim: D.
        num_outputs: M.
        generator: Draws the initial weights.
        hidden_dim: Width of the MLP's hidden layer.

    Raises:
        ValueError: If a size is below 1.
    """

    def __init__(
        self,
        embed_dim: int,
        num_outputs: int,
        generator: torch.Generator,
        hidden_dim: int = 64,
    ) -> None:
        super().__init__()
        if min(embed_dim, num_outputs, hidden_dim) < 1:
            raise ValueError(
                f"got embed_dim={embed_dim}, num_outputs={num_outputs} and hidden_dim={hidden_dim},"
                " expected sizes of at least 1"
            )
        self.norm = nn.LayerNorm(embed_dim)
        self.mlp_in = linear(embed_dim, hidden_dim, generator)
        self.mlp_out = linear(hidden_dim, num_outputs, generator)

    def weights(self, tokens: Float[Tensor, "B K D"]) -> Float[Tensor, "B M K"]:
        """How much of each token every output has; sums to 1 over the tokens."""
        scores = self.mlp_out(F.gelu(self.mlp_in(self.norm(tokens))))
        weights: Float[Tensor, "B M K"] = scores.mT.softmax(dim=-1)
        return weights

    def forward(self, tokens: Float[Tensor, "B K D"]) -> Float[Tensor, "B M D"]:
        """Weighted means of the tokens.

        Raises:
            ValueError: If there are no tokens.
        """
        if tokens.shape[1] == 0:
            raise ValueError("got no tokens, expected at least 1: there is nothing to summarise")
        return self.weights(tokens) @ tokens
