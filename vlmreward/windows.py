"""The recent past of several environments: embeddings to pool, and frames not yet embedded.

Axes: `N` environments, `D` width of the embedding, `W` window, `K` some environments.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int64
from numpy.typing import NDArray
from torch.nn.functional import normalize

from vlmreward.timing import RewardTiming

Rows = Int64[NDArray[Any], " _"]
"""Which environments, each at most once."""


class EmbeddingWindow:
    """The last W embeddings of every environment, oldest first.

    Args:
        num_envs: N.
        embed_dim: D.
        timing: Says how many, and how they are pooled.
        device: Where the embeddings are.
    """

    def __init__(
        self, num_envs: int, embed_dim: int, timing: RewardTiming, device: torch.device
    ) -> None:
        self._timing = timing
        self._embeddings = torch.zeros(num_envs, timing.window, embed_dim, device=device)
        self._length = torch.zeros(num_envs, dtype=torch.long, device=device)

    def clear(self, rows: Rows) -> None:
        """Forgets some environments' past."""
        index = torch.from_numpy(rows).to(self._length.device)
        self._embeddings[index] = 0.0
        self._length[index] = 0

    def push(self, rows: Rows, embedding: Float[torch.Tensor, "K D"]) -> Float[torch.Tensor, "K D"]:
        """Adds one embedding to some rows, and returns what each of their windows pools to."""
        index = torch.from_numpy(rows).to(embedding.device)
        held = torch.cat([self._embeddings[index, 1:], embedding[:, None]], dim=1)
        self._embeddings[index] = held
        self._length[index] = (self._length[index] + 1).clamp(max=self._timing.window)
        length = self._length[index]
        if self._timing.pooling == "mean":
            pooled = held.sum(dim=1)  # empty places are zero, and the scale goes in `normalize`
        elif self._timing.pooling == "max":
            place = torch.arange(self._timing.window, device=held.device)
            is_empty = place < self._timing.window - length[:, None]
            pooled = held.masked_fill(is_empty[..., None], -torch.inf).amax(dim=1)
        else:
            first = held[torch.arange(len(rows), device=held.device), -length]
            pooled = embedding - first
        return normalize(pooled, dim=1)


class WaitingFrames:
    """Observations that a later score will need, held until it is due.

    Only the last `W - 1` of an environment are held, which with the one that is scored fill its
    window: where scores are further apart than that, the others are never encoded.

    Args:
        num_envs: N.
        window: W.
    """

    def __init__(self, num_envs: int, window: int) -> None:
        self._held: list[deque[dict[str, Any]]]
        self._held = [deque(maxlen=window - 1) for _ in range(num_envs)]

    def hold(self, rows: Rows, obs: Mapping[str, Any], places: Rows | None = None) -> None:
        """Adds copies of some environments' observations.

        Args:
            rows: Whose.
            obs: A batch that has them.
            places: Where in the batch; at `rows` if None.
        """
        for row, place in zip(rows, rows if places is None else places, strict=True):
            # An index that is a list copies: whoever made the batch may write the next into it.
            self._held[row].append({key: values[[place]] for key, values in obs.items()})

    def drop(self, rows: Rows) -> None:
        """Forgets what some environments' episodes left."""
        for row in rows:
            self._held[row].clear()

    def take(self, rows: Rows) -> tuple[list[Rows], list[Mapping[str, Any]]]:
        """Hands over what some environments hold, oldest first.

        Returns:
            Layers of environments, and their observations in the same order, one row each. A layer
            has each environment at most once; in the first layer are all that hold any.
        """
        held = {int(row): list(self._held[row]) for row in rows}
        self.drop(rows)
        layers: list[Rows] = []
        obs: list[Mapping[str, Any]] = []
        for depth in range(max(map(len, held.values()), default=0)):
            layer: Sequence[int] = [row for row, frames in held.items() if depth < len(frames)]
            layers.append(np.array(layer, dtype=np.int64))
            obs += [held[row][depth] for row in layer]
        return layers, obs
