"""Observations embedded once: an exact cache in front of any encoder.

Screens, menus, grid worlds and agents that stand still show the same frame again and again, in one
environment or in many. A frame seen before costs a hash in place of a forward pass.

Axes: `B` batch, `D` width of the embedding, `K` some rows, `L` bytes of one row of a modality, `M`
new rows.
"""

from __future__ import annotations

import hashlib
import math
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias, cast

import numpy as np
import torch
from jaxtyping import Float, Int, UInt8
from numpy.typing import NDArray

from vlmreward.encoders.base import EncoderWrapper, ImageTextEncoder, require_modalities
from vlmreward.frames import PIXELS, check_frames

Digest: TypeAlias = Callable[[memoryview], bytes]
"""Bytes to a hash of fixed length, long enough that no two contents share one."""


def blake2b(content: memoryview) -> bytes:
    """Hashes to 128 bits."""
    return hashlib.blake2b(content, digest_size=16).digest()


@dataclass(frozen=True)
class CacheStatistics:
    """What a cache has done so far.

    Attributes:
        hits: Rows that were not encoded, because they were in the cache or earlier in their batch.
        misses: Rows that were.
        evictions: Embeddings given up for newer ones.
        num_frames: Embeddings held now.
        max_frames: How many it holds at most.
    """

    hits: int
    misses: int
    evictions: int
    num_frames: int
    max_frames: int

    @property
    def hit_rate(self) -> float:
        """Share of all rows that were not encoded, 0 before the first."""
        return self.hits / max(1, self.hits + self.misses)


class CachedEncoder(EncoderWrapper):
    """An encoder that remembers what it has embedded.

    Takes the place of the encoder it is given: give one to every reward model and wrapper that
    should share it. Two observations are the same if every modality that the encoder reads has the
    same bytes, dtype and shape. The embedding of an observation is the row first computed for it,
    bit for bit; a row repeated within a batch goes through the encoder once. When full, it gives up
    the embeddings not asked for the longest. Texts pass through.

    Memory is `4 D` bytes a frame and about 300 for its key, taken as frames come. Hashing happens
    on the CPU, about 1 ms per megabyte: frames that are on a GPU are copied to the host for it, so
    hand over those that the environment drew on the CPU. A cache is for one thread, and for
    weights that do not change: after changing them, call `clear`.

    Args:
        encoder: Embeds what is new.
        max_frames: How many embeddings to hold at most.
        digest: Hashes the bytes of one row. Where hashing is felt, `xxhash.xxh3_128_digest` is far
            faster, and no protection against frames made to collide.

    Example:
        >>> import numpy as np
        >>> from vlmreward import FakeEncoder
        >>> from vlmreward.encoders import CachedEncoder
        >>> encoder = CachedEncoder(FakeEncoder(), max_frames=1000)
        >>> black, white = np.zeros((8, 8, 3), np.uint8), np.full((8, 8, 3), 255, np.uint8)
        >>> embedding = encoder.encode_obs({"pixels": np.stack([black, white, black, black])})
        >>> encoder.statistics
        CacheStatistics(hits=2, misses=2, evictions=0, num_frames=2, max_frames=1000)

    Raises:
        ValueError: If `max_frames` is not positive.
    """

    def __init__(
        self, encoder: ImageTextEncoder, *, max_frames: int = 100_000, digest: Digest = blake2b
    ) -> None:
        if max_frames < 1:
            raise ValueError(f"expected a positive max_frames, got {max_frames}")
        super().__init__(encoder)
        self.max_frames = max_frames
        self._digest = digest
        self._hits = self._misses = self._evictions = 0
        self._slot_of: OrderedDict[bytes, int] = OrderedDict()  # the longest unused first
        self._rows = torch.empty(0, encoder.embed_dim, device=encoder.device)

    @property
    def statistics(self) -> CacheStatistics:
        """Counts since the beginning, which `clear` leaves alone."""
        return CacheStatistics(
            self._hits, self._misses, self._evictions, len(self._slot_of), self.max_frames
        )

    def clear(self) -> None:
        """Forgets all embeddings."""
        self._slot_of.clear()
        self._rows = self._rows[:0].clone()

    def encode_obs(self, obs: Mapping[str, Any]) -> Float[torch.Tensor, "B D"]:
        """Embeds the observations that are new and looks up the others; see `ImageTextEncoder`.

        Raises:
            TypeError: If a modality is neither an array nor a tensor.
            ValueError: If the modalities are not equally many rows.
        """
        require_modalities(obs, self)
        read = {modality: obs[modality] for modality in self.modalities}
        keys = _keys(read, self._digest)
        known = [row for row, key in enumerate(keys) if key in self._slot_of]
        new: dict[bytes, int] = {}  # the first row of each
        for row, key in enumerate(keys):
            if key not in self._slot_of:
                new.setdefault(key, row)

        if len(new) == len(keys):  # nothing to look up, and no frame to copy
            embedding = encoded = self.encoder.encode_obs(read)
        else:
            embedding = torch.empty(len(keys), self.embed_dim, device=self.device)
            slots = [self._slot_of[keys[row]] for row in known]
            embedding[self._index(known)] = self._rows[self._index(slots)]
            encoded = embedding[:0]
            if new:
                encoded = self.encoder.encode_obs(_take(read, list(new.values())))
                number = {key: position for position, key in enumerate(new)}
                unknown = [row for row, key in enumerate(keys) if key in new]
                source = [number[keys[row]] for row in unknown]
                embedding[self._index(unknown)] = encoded[self._index(source)]
        for row in known:
            self._slot_of.move_to_end(keys[row])
        self._store(list(new), encoded)
        self._hits += len(keys) - len(new)
        self._misses += len(new)
        return embedding

    def _store(self, keys: list[bytes], encoded: Float[torch.Tensor, "M D"]) -> None:
        surplus = max(0, len(keys) - self.max_frames)
        self._evictions += surplus
        slots = []
        for key in keys[surplus:]:
            slot = len(self._slot_of)
            if slot == self.max_frames:
                _, slot = self._slot_of.popitem(last=False)
                self._evictions += 1
            self._slot_of[key] = slot
            slots.append(slot)
        if len(self._slot_of) > len(self._rows):
            size = min(self.max_frames, max(len(self._slot_of), 2 * len(self._rows)))
            larger = torch.empty(size, self.embed_dim, device=self.device)
            larger[: len(self._rows)] = self._rows
            self._rows = larger
        self._rows[self._index(slots)] = encoded[surplus:]

    def _index(self, rows: list[int]) -> Int[torch.Tensor, " K"]:
        return torch.tensor(rows, dtype=torch.long, device=self.device)


def _keys(obs: Mapping[str, Any], digest: Digest) -> list[bytes]:
    """Returns one key per row: a hash of how its modalities are laid out, then one of each."""
    if PIXELS in obs:
        check_frames(obs[PIXELS])
    layout, contents = [], []
    for modality, values in obs.items():
        if not isinstance(values, np.ndarray | torch.Tensor) or values.ndim == 0:
            raise TypeError(
                f"expected {modality!r} as a batched NumPy array or torch tensor, got "
                f"{type(values).__name__}"
            )
        layout.append((modality, str(values.dtype).removeprefix("torch."), *values.shape[1:]))
        contents.append(_as_bytes(values))
    if len({len(rows) for rows in contents}) > 1:
        shapes = {modality: list(values.shape) for modality, values in obs.items()}
        raise ValueError(f"expected equally many rows of every modality, got shapes {shapes}")
    prefix = digest(memoryview(repr(layout).encode()))
    return [
        prefix + b"".join(digest(memoryview(row)) for row in rows)
        for rows in zip(*contents, strict=True)
    ]


def _as_bytes(values: NDArray[Any] | torch.Tensor) -> UInt8[NDArray[Any], "B L"]:
    length = math.prod(values.shape[1:]) * values.dtype.itemsize
    if isinstance(values, torch.Tensor):
        flat = values.detach().cpu().contiguous().flatten().view(torch.uint8).numpy()
    else:
        flat = np.ascontiguousarray(values).reshape(-1).view(np.uint8)
    return cast(NDArray[Any], flat.reshape(len(values), length))


def _take(obs: Mapping[str, Any], rows: list[int]) -> dict[str, Any]:
    return {modality: values[rows] for modality, values in obs.items()}
