r"""How likely a text is, given what was seen: a causal decoder that reads latents.

A transformer over the text's tokens, with the norm before each part, in which every block also
reads the context :math:`c` by cross-attention (Vaswani et al. 2017). Of a goal :math:`g` of
:math:`n` tokens after the start token, its end token being the last, it gives

.. math::
    \ell(g \mid c) = \frac{1}{n} \sum_{i=1}^{n} \log p(g_i \mid g_{<i}, c), \qquad
    \mathrm{score}(g, c) = \ell(g \mid c) - \ell(g \mid \varnothing)

The first alone favours common goals, and its sum short ones: the score says by how much what was
seen makes a goal more likely. The empty context :math:`\varnothing` has to be known from training,
where some rows, say a tenth, are given none of their context.

Axis letters: ``B`` batch, ``L`` text tokens, ``N`` tokens that are predicted, ``M`` tokens of the
context, ``D`` width, ``V`` vocabulary.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor, nn

from vlmreward.backbone.layers import Attention, FeedForward, learned


@dataclass(frozen=True)
class TextDecoderConfig:
    """Shape of a `TextDecoder`, and the tokens it has to know.

    Attributes:
        vocab_size: Tokens of the tokeniser.
        start_token: Comes first in every text.
        end_token: Comes last; whatever stands after it is padding.
        max_tokens: Longest text, both tokens included.
        embed_dim: Width of a token, and of the context's.
        num_layers: Blocks.
        num_heads: Attention heads; they divide ``embed_dim``.
        mlp_dim: Width of the hidden layer of each block's MLP.

    Raises:
        ValueError: If a size is below 1, fewer than 2 tokens fit, or the start and end tokens are
            the same or not in the vocabulary.
    """

    vocab_size: int
    start_token: int
    end_token: int
    max_tokens: int = 32
    embed_dim: int = 128
    num_layers: int = 2
    num_heads: int = 4
    mlp_dim: int = 512

    def __post_init__(self) -> None:
        for name in ("vocab_size", "embed_dim", "num_layers", "num_heads", "mlp_dim"):
            if getattr(self, name) < 1:
                raise ValueError(f"got {name}={getattr(self, name)}, expected at least 1")
        if self.max_tokens < 2:
            raise ValueError(
                f"got max_tokens={self.max_tokens}, expected at least 2: start and end"
            )
        special = (self.start_token, self.end_token)
        if special[0] == special[1] or not all(0 <= token < self.vocab_size for token in special):
            raise ValueError(
                f"got start_token={self.start_token} and end_token={self.end_token}, expected two "
                f"tokens of the vocabulary, 0 up to {self.vocab_size - 1}"
            )


class TextDecoder(nn.Module):
    """Predicts each token of a text from those before it and from a context.

    Args:
        config: Shape of the decoder.
        generator: Draws the initial weights.
    """

    def __init__(self, config: TextDecoderConfig, generator: torch.Generator) -> None:
        super().__init__()
        self.config = config
        width = config.embed_dim
        self.vocabulary = learned(config.vocab_size, width, generator=generator)
        self.positions = learned(config.max_tokens, width, generator=generator)
        self.context_norm = nn.LayerNorm(width)
        self.blocks = nn.ModuleList(
            _DecoderBlock(config, generator) for _ in range(config.num_layers)
        )
        self.final_norm = nn.LayerNorm(width)

    def forward(
        self,
        text: Int64[Tensor, "B L"],
        context: Float[Tensor, "B M D"],
        context_mask: Bool[Tensor, "B M"] | None = None,
    ) -> Float[Tensor, "B L V"]:
        """Return logits of the token after each one, from those up to it and the context.

        Args:
            text: Each with the start token first.
            context: What was seen, such as the latents of a video.
            context_mask: Which of the context is there; all of it by default. A row of which
                nothing is there has the empty context.

        Raises:
            ValueError: If a text is too long or starts with another token, or the context has no
                tokens: mask them all instead.
        """
        self._check(text, context)
        if context_mask is None:
            context_mask = torch.ones(context.shape[:2], dtype=torch.bool, device=context.device)
        num_tokens = text.shape[1]
        of_context = context_mask[:, None].expand(-1, num_tokens, -1)
        earlier = torch.ones(num_tokens, num_tokens, dtype=torch.bool, device=text.device).tril()
        # What is not there may be anything, NaN too, which would not stay where it is masked.
        context = self.context_norm(torch.where(context_mask[..., None], context, 0.0))
        hidden = self.vocabulary[text] + self.positions[:num_tokens]
        for block in self.blocks:
            hidden = block(hidden, earlier, context, of_context)
        # The same vectors stand for a token where it is read and where it is predicted.
        logits: Float[Tensor, "B L V"] = self.final_norm(hidden) @ self.vocabulary.T
        return logits

    def log_likelihoods(
        self,
        text: Int64[Tensor, "B L"],
        context: Float[Tensor, "B M D"],
        context_mask: Bool[Tensor, "B M"] | None = None,
    ) -> Float[Tensor, "B N"]:
        """Return log p of each token after the first, in nats; 0 for padding.

        Args:
            text: Each with the start token first, and its end token unless it was cut off.
            context: See `forward`.
            context_mask: See `forward`.

        Raises:
            ValueError: See `forward`, and if there is nothing after the start token.
        """
        if text.shape[1] < 2:
            raise ValueError(f"got texts of {text.shape[1]} tokens, expected at least 2")
        log_probabilities = self(text, context, context_mask)[:, :-1].log_softmax(dim=-1)
        of_text = log_probabilities.gather(2, text[:, 1:, None]).squeeze(2)
        return torch.where(self._is_predicted(text), of_text, 0.0)

    def goal_log_likelihood(
        self,
        text: Int64[Tensor, "B L"],
        context: Float[Tensor, "B M D"],
        context_mask: Bool[Tensor, "B M"] | None = None,
    ) -> Float[Tensor, " B"]:
        """Return log p of each text per token; minus its mean is the loss to train with.

        Args:
            text: See `log_likelihoods`.
            context: See `forward`.
            context_mask: See `forward`.
        """
        total = self.log_likelihoods(text, context, context_mask).sum(dim=1)
        return total / self._is_predicted(text).sum(dim=1)

    def goal_score(
        self,
        text: Int64[Tensor, "B L"],
        context: Float[Tensor, "B M D"],
        context_mask: Bool[Tensor, "B M"] | None = None,
    ) -> Float[Tensor, " B"]:
        """Return by how much the context makes each text more likely, in nats per token.

        Args:
            text: See `log_likelihoods`.
            context: See `forward`.
            context_mask: See `forward`.
        """
        nothing = torch.zeros(context.shape[:2], dtype=torch.bool, device=context.device)
        prior = self.goal_log_likelihood(text, context, nothing)
        return self.goal_log_likelihood(text, context, context_mask) - prior

    @torch.no_grad()
    def generate(
        self,
        context: Float[Tensor, "B M D"],
        context_mask: Bool[Tensor, "B M"] | None = None,
    ) -> Int64[Tensor, "B L"]:
        """Say what was seen: the likeliest token after the likeliest, up to the end token.

        Args:
            context: See `forward`.
            context_mask: See `forward`.

        Returns:
            Texts with their start tokens, as long as the longest; the others are filled up with end
            tokens. A text of ``max_tokens`` may have been cut off.
        """
        end = self.config.end_token
        text = torch.full(
            (len(context), 1), self.config.start_token, dtype=torch.long, device=context.device
        )
        while text.shape[1] < self.config.max_tokens and bool((text[:, -1] != end).any()):
            following = self(text, context, context_mask)[:, -1].argmax(dim=-1)
            following = following.masked_fill(text[:, -1] == end, end)
            text = torch.cat([text, following[:, None]], dim=1)
        return text

    def _is_predicted(self, text: Int64[Tensor, "B L"]) -> Bool[Tensor, "B N"]:
        """Which tokens after the first are the text's: those up to its end token."""
        num_ends_before = (text[:, :-1] == self.config.end_token).cumsum(dim=1)
        return num_ends_before == 0

    def _check(self, text: Int64[Tensor, "B L"], context: Float[Tensor, "B M D"]) -> None:
        if text.shape[1] > self.config.max_tokens:
            raise ValueError(
                f"got texts of {text.shape[1]} tokens, expected at most "
                f"max_tokens={self.config.max_tokens}: cut them off"
            )
        if bool((text[:, 0] != self.config.start_token).any()):
            raise ValueError(
                f"got texts that start with {sorted(set(text[:, 0].tolist()))}, expected "
                f"start_token={self.config.start_token} first in each"
            )
        if context.shape[1] == 0:
            raise ValueError(
                "got a context without tokens; for the empty context, hand any with a context_mask "
                "that is all False"
            )


class _DecoderBlock(nn.Module):
    """Attention to the text so far, attention to the context, and an MLP."""

    def __init__(self, config: TextDecoderConfig, generator: torch.Generator) -> None:
        super().__init__()
        width = config.embed_dim
        self.text_norm = nn.LayerNorm(width)
        self.text_attention = Attention(width, config.num_heads, generator)
        self.cross_norm = nn.LayerNorm(width)
        self.cross_attention = Attention(width, config.num_heads, generator)
        self.mlp_norm = nn.LayerNorm(width)
        self.mlp = FeedForward(width, config.mlp_dim, generator)

    def forward(
        self,
        hidden: Float[Tensor, "B L D"],
        earlier: Bool[Tensor, "L L"],
        context: Float[Tensor, "B M D"],
        of_context: Bool[Tensor, "B L M"],
    ) -> Float[Tensor, "B L D"]:
        """Mix each token with those before it and with the context."""
        read = self.text_norm(hidden)
        hidden = hidden + self.text_attention(read, read, earlier)
        hidden = hidden + self.cross_attention(self.cross_norm(hidden), context, of_context)
        output: Float[Tensor, "B L D"] = hidden + self.mlp(self.mlp_norm(hidden))
        return output
