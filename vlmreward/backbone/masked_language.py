"""Masked language modelling on goal sentences: what a text tower can learn without a frame.

Devlin et al. 2019 (BERT, `arXiv 1810.04805 <https://arxiv.org/abs/1810.04805>`_), section 3.1: of
each sentence some tokens are to be guessed from the others. Most of them are hidden behind a mask
token, some replaced by another token and some left as they are, so that the model must form an
opinion of every token.

Axis letters: ``B`` sentences, ``K`` tokens, ``V`` vocabulary.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F

NOT_GUESSED = -100
"""The target of a token that is not to be guessed."""


@dataclass(frozen=True)
class MaskingConfig:
    """Which tokens are to be guessed, and what the model is shown in their place.

    Attributes:
        vocab_size: V, the mask token included.
        mask_token: What hides a token. Tokenizers of CLIPs have none: give their vocabulary one
            more token.
        special_tokens: Padding, begin and end: never to be guessed, and never shown in the place
            of another token.
        rate: Probability that a token is to be guessed.
        masked_share: Share of those that is hidden behind the mask token.
        random_share: Share of those that is replaced by an ordinary token; the rest is kept.

    Raises:
        ValueError: If a token is not in the vocabulary, a probability is out of its range, or no
            ordinary token is left.
    """

    vocab_size: int
    mask_token: int
    special_tokens: tuple[int, ...]
    rate: float = 0.15
    masked_share: float = 0.8
    random_share: float = 0.1

    def __post_init__(self) -> None:
        for token in (self.mask_token, *self.special_tokens):
            if not 0 <= token < self.vocab_size:
                raise ValueError(f"got token {token}, expected one of 0 to {self.vocab_size - 1}")
        if not 0.0 < self.rate <= 1.0:
            raise ValueError(f"got rate={self.rate}, expected more than 0 and at most 1")
        shares = (self.masked_share, self.random_share)
        if min(shares) < 0.0 or sum(shares) > 1.0 + 1e-9:
            raise ValueError(
                f"got masked_share={shares[0]} and random_share={shares[1]}, expected shares of "
                "one whole: not negative, and 1 together at most"
            )
        if len(self.never_guessed) == self.vocab_size:
            raise ValueError(
                f"all {self.vocab_size} tokens are special, expected at least one ordinary one"
            )

    @property
    def never_guessed(self) -> tuple[int, ...]:
        """The special tokens and the mask token, each once."""
        return tuple(sorted({self.mask_token, *self.special_tokens}))


@dataclass(frozen=True)
class MaskedTokens:
    """Sentences with some tokens to guess.

    Attributes:
        tokens: What the model is shown.
        targets: The true token where it is to be guessed, `NOT_GUESSED` elsewhere.
    """

    tokens: Int[Tensor, "B K"]
    targets: Int[Tensor, "B K"]


def mask_tokens(
    tokens: Int[Tensor, "B K"], config: MaskingConfig, generator: torch.Generator
) -> MaskedTokens:
    """Choose the tokens to guess, each on its own, and hide them.

    Args:
        tokens: Whole sentences, padded.
        config: How many, and behind what.
        generator: Draws the choice. How much it draws depends on the shape alone.

    Raises:
        ValueError: If a token is not in the vocabulary.

    Example:
        >>> config = MaskingConfig(vocab_size=10, mask_token=9, special_tokens=(0,), rate=1.0,
        ...                        masked_share=1.0, random_share=0.0)
        >>> masked = mask_tokens(torch.tensor([[4, 5, 0]]), config, torch.Generator())
        >>> masked.tokens.tolist(), masked.targets.tolist()
        ([[9, 9, 0]], [[4, 5, -100]])
    """
    if tokens.numel() and not 0 <= int(tokens.min()) <= int(tokens.max()) < config.vocab_size:
        raise ValueError(
            f"got tokens {int(tokens.min())} to {int(tokens.max())}, expected 0 to "
            f"{config.vocab_size - 1}: does the tokenizer belong to this vocabulary?"
        )
    ordinary = torch.ones(config.vocab_size, dtype=torch.bool)
    ordinary[list(config.never_guessed)] = False
    replacements = ordinary.nonzero().flatten().to(tokens)
    device = generator.device
    choice, fate = torch.rand((2, *tokens.shape), generator=generator, device=device).to(
        tokens.device
    )
    places = torch.randint(len(replacements), tokens.shape, generator=generator, device=device).to(
        tokens.device
    )
    guessed = ordinary.to(tokens.device)[tokens] & (choice < config.rate)
    hidden = guessed & (fate < config.masked_share)
    replaced = guessed & ~hidden & (fate < config.masked_share + config.random_share)
    shown = tokens.masked_fill(hidden, config.mask_token)
    shown = torch.where(replaced, replacements[places], shown)
    return MaskedTokens(shown, tokens.masked_fill(~guessed, NOT_GUESSED))


def masked_language_loss(
    logits: Float[Tensor, "B K V"], targets: Int[Tensor, "B K"]
) -> Float[Tensor, ""]:
    """Return the mean cross-entropy of the tokens to guess, in nats.

    It is log V where the model knows nothing, and 0 in a batch without a token to guess. It is
    computed in float32, whatever the logits come in.

    Args:
        logits: What the model says each token is.
        targets: See `MaskedTokens`.
    """
    total = F.cross_entropy(
        logits.float().flatten(0, 1),
        targets.flatten().long(),
        ignore_index=NOT_GUESSED,
        reduction="sum",
    )
    return total / (targets != NOT_GUESSED).sum().clamp(min=1)
