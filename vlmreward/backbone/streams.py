r"""Who may read whom: the masks of Zorro (Recasens et al. 2023).

Each token :math:`i` belongs to a stream :math:`s_i`, and may read token :math:`j` if

.. math:: m_{ij} = (s_i = s_j) \lor (s_i = \mathrm{FUSION})

(`arXiv 2301.09595 <https://arxiv.org/abs/2301.09595>`_). Rows read, columns are read: sound and
video stay pure however deep the network, and the fusion tokens read everything. Transposed, the
mask would do the reverse and let the pure streams read the fused one.

Axis letters: ``K`` tokens, ``S`` streams.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import IntEnum

import torch
from jaxtyping import Bool, Int64
from torch import Tensor


class Stream(IntEnum):
    """Where a token belongs."""

    AUDIO = 0
    VIDEO = 1
    FUSION = 2


def streams_of(num_tokens: Mapping[Stream, int], device: torch.device) -> Int64[Tensor, " K"]:
    """The stream of every token, for tokens that lie stream after stream in the given order.

    Example:
        >>> streams_of({Stream.AUDIO: 2, Stream.FUSION: 1}, torch.device("cpu"))
        tensor([0, 0, 2])
    """
    return torch.cat(
        [
            torch.full((count,), int(stream), dtype=torch.int64, device=device)
            for stream, count in num_tokens.items()
        ]
    )


def stream_mask(streams: Int64[Tensor, " K"]) -> Bool[Tensor, "K K"]:
    """Which token (columns) each token (rows) may read: its own stream, or all from fusion."""
    return _same(streams) | _reads_all(streams)


def window_mask(streams: Int64[Tensor, " K"], window: int, shift: int) -> Bool[Tensor, "K K"]:
    """The stream mask where pure streams read only within windows, as in a Swin transformer.

    Each stream is cut into windows of neighbouring tokens, in the order in which they lie (Liu et
    al. 2021, `arXiv 2103.14030 <https://arxiv.org/abs/2103.14030>`_, cut all axes of the image).
    Layers that alternate between two shifts pass on what they read from window to window. Fusion
    tokens read everything.

    Args:
        streams: Of every token.
        window: Tokens of a window.
        shift: By how many tokens the first window is shorter.
    """
    places = _same(streams).tril().sum(dim=1) - 1
    windows = (places + shift) // window
    return _same(streams) & (windows[:, None] == windows) | _reads_all(streams)


def pool_mask(streams: Int64[Tensor, " K"]) -> Bool[Tensor, "S K"]:
    """Which token the pooling query of each stream may read: those of its own stream alone."""
    return torch.arange(len(Stream), device=streams.device)[:, None] == streams


def _same(streams: Int64[Tensor, " K"]) -> Bool[Tensor, "K K"]:
    return streams[:, None] == streams


def _reads_all(streams: Int64[Tensor, " K"]) -> Bool[Tensor, "K 1"]:
    return (streams == Stream.FUSION)[:, None]
