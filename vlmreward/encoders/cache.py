"""Text embeddings, each computed once.

Axes: `N` texts, `D` width of the embedding.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from jaxtyping import Float


class TextEmbeddingCache:
    """Remembers the embedding of every text it was asked for, by the exact string.

    Args:
        encode: Embeds the texts that are not known yet, in one call.
    """

    def __init__(self, encode: Callable[[list[str]], Float[torch.Tensor, "N D"]]) -> None:
        self._encode = encode
        self._embeddings: dict[str, torch.Tensor] = {}

    def __len__(self) -> int:
        return len(self._embeddings)

    def __call__(self, texts: Sequence[str]) -> Float[torch.Tensor, "N D"]:
        """Returns one row per text, in order."""
        unknown = [text for text in dict.fromkeys(texts) if text not in self._embeddings]
        if unknown:
            self._embeddings.update(zip(unknown, self._encode(unknown), strict=True))
        return torch.stack([self._embeddings[text] for text in texts])
