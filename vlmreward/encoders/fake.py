"""A small encoder without weights, for tests and documentation.

Axes: `B` batch, `H W` image, `N` texts, `D` width of the embedding.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from jaxtyping import Float, UInt8
from torch.nn.functional import normalize

from vlmreward.encoders.base import check_texts, require_modalities
from vlmreward.frames import PIXELS, to_tensor
from vlmreward.heads import Head

COLORS: Mapping[str, tuple[int, int, int]] = {
    "black": (0, 0, 0),
    "red": (255, 0, 0),
    "green": (0, 255, 0),
    "blue": (0, 0, 255),
    "yellow": (255, 255, 0),
    "white": (255, 255, 255),
}
"""Colour words that the fake encoder understands, as RGB bytes."""

_QUADRANTS = 4


class FakeEncoder:
    """Sees mean colours and reads colour words: cosines that can be worked out by hand.

    A frame is cut into quadrants. Each gives its mean red, green and blue in [0, 1], and darkness,
    one less the largest of them; together, scaled to unit length, they are the embedding
    (`D = 16`). A text is embedded as a frame in the first colour it names. So a red frame has
    cosine 1 to "a red room", 0 to "a green room" and to "a black room", and `1/sqrt(2)` to "a
    yellow room". A text that names no colour gets a direction of its own, from a hash of its
    letters.

    Args:
        text_embeddings: Embeddings of particular texts, of width 16, scaled to unit length here.
        logit_scale: What it claims to be its model's own: 1 / temperature.
        logit_bias: What it claims to be its model's own, None for a softmax model.
        calibrated_head: What it claims to be its measured head.

    Example:
        >>> import numpy as np
        >>> encoder = FakeEncoder()
        >>> frames = np.zeros((1, 8, 8, 3), np.uint8)
        >>> frames[..., 0] = 255
        >>> text = encoder.encode_text(["a red room", "a green room"])
        >>> encoder.encode_obs({"pixels": frames}) @ text.T
        tensor([[1., 0.]])
    """

    name = "fake"
    modalities = (PIXELS,)
    embed_dim = 4 * _QUADRANTS
    device = torch.device("cpu")
    context_length = 77

    def __init__(
        self,
        text_embeddings: Mapping[str, Sequence[float]] | None = None,
        *,
        logit_scale: float = 100.0,
        logit_bias: float | None = None,
        calibrated_head: Head | None = None,
    ) -> None:
        self.logit_scale = logit_scale
        self.logit_bias = logit_bias
        self.calibrated_head = calibrated_head
        self._known: dict[str, torch.Tensor] = {}
        for text, values in (text_embeddings or {}).items():
            vector = torch.tensor(values, dtype=torch.float32)
            if vector.shape != (self.embed_dim,) or vector.norm() == 0:
                raise ValueError(
                    f"expected {self.embed_dim} numbers, not all zero, for {text!r}, got {values}"
                )
            self._known[text] = normalize(vector, dim=0)

    def encode_obs(self, obs: Mapping[str, Any]) -> Float[torch.Tensor, "B D"]:
        """Embeds frames by the mean colour of their quadrants; see `ImageTextEncoder`."""
        require_modalities(obs, self)
        return _embed(to_tensor(obs[PIXELS], self.device))

    def encode_text(self, texts: Sequence[str]) -> Float[torch.Tensor, "N D"]:
        """Embeds texts by the first colour they name; see `ImageTextEncoder`."""
        return torch.stack([self._encode_one(text) for text in check_texts(texts)])

    def _encode_one(self, text: str) -> Float[torch.Tensor, " D"]:
        if text in self._known:
            return self._known[text]
        for word in text.lower().split():
            if word in COLORS:
                return _embed(torch.tensor(COLORS[word], dtype=torch.uint8).expand(1, 2, 2, 3))[0]
        digest = hashlib.sha256(text.encode()).digest()[: self.embed_dim]
        vector = torch.tensor(list(digest), dtype=torch.float32) - 127.5
        return normalize(vector, dim=0)


def _embed(frames: UInt8[torch.Tensor, "B H W 3"]) -> Float[torch.Tensor, "B D"]:
    height, width = frames.shape[1:3]
    # A frame of one pixel has one quadrant; the others repeat its last row or column.
    rows = (slice(0, max(1, height // 2)), slice(min(height // 2, height - 1), None))
    columns = (slice(0, max(1, width // 2)), slice(min(width // 2, width - 1), None))
    parts = []
    for row in rows:
        for column in columns:
            # Whole numbers until the division: the sum does not depend on its order.
            block = frames[:, row, column].long()
            mean = block.sum(dim=(1, 2)).double() / (255 * block.shape[1] * block.shape[2])
            parts += [mean, 1 - mean.amax(dim=1, keepdim=True)]
    embedding = torch.cat(parts, dim=1)
    return normalize(embedding, dim=1).float()
