"""Learning histories on disk: zarr arrays laid out [history, time].

A chunk is a block of whole histories. Histories are appended while sources still train: rows are
written first and counted last, so a kill loses no more than the block being appended. Every chunk
carries a checksum and is written even when it is all zeros, so damage is found, not read as data.

Axis letters: ``H`` histories, ``T`` time steps of the longest.
"""

from __future__ import annotations

import json
import math
import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from jaxtyping import Int
from zarr.codecs import ZstdCodec

from algdistill.histories.schema import STEP_FIELDS, LearningHistory
from algdistill.tasks import TaskSpace

FORMAT_VERSION = 2
_COLUMNS = (*STEP_FIELDS, "lengths", "task_ids")
_MOST_HISTORIES_IN_A_CHUNK = 64
_MOST_BYTES_IN_A_CHUNK = 2**25


class HistoryStoreError(RuntimeError):
    """A store that is missing, damaged, or of another format."""


class HistoryStore:
    """Learning histories of one space, on disk. Make one with `create`, reopen it with `open`.

    Attributes:
        space: Observation and action spaces of all histories.
        num_steps: Most time steps of a history.
        metadata: Where the histories come from.
        num_dropped: Histories found half-written on opening, and left out.

    Example:
        >>> import tempfile, torch
        >>> from algdistill.sources import TabularQLearning, TabularQLearningConfig
        >>> from algdistill.tasks import TaskSpace
        >>> from algdistill.tasks_fake import dark_room_tasks
        >>> tasks = dark_room_tasks(size=3)
        >>> fleet = TabularQLearning(tasks, TabularQLearningConfig(num_episodes=5), tasks.task_ids)
        >>> folder = Path(tempfile.mkdtemp()) / "histories"
        >>> store = HistoryStore.create(folder, TaskSpace.of(tasks), num_steps=100)
        >>> store.append(fleet.train())
        >>> HistoryStore.open(folder)
        HistoryStore(9 histories of up to 100 steps)
    """

    def __init__(self, group: zarr.Group, path: Path, num_dropped: int) -> None:
        self._group = group
        self._path = path
        self._arrays = {name: _array(group, name, path) for name in _COLUMNS}
        self._num_histories = int(_integer(group, "num_histories"))
        self.num_dropped = num_dropped
        header: dict[str, Any] = json.loads(str(group.attrs["header"]))
        self.space = TaskSpace.from_dict(header["space"])
        self.num_steps: int = header["num_steps"]
        self.block_size: int = header["block_size"]
        self.metadata: dict[str, object] = header["metadata"]

    @classmethod
    def create(
        cls,
        path: Path,
        space: TaskSpace,
        *,
        num_steps: int,
        block_size: int | None = None,
        reward_dtype: str = "float32",
        metadata: Mapping[str, object] | None = None,
    ) -> HistoryStore:
        """Make an empty store.

        Args:
            path: A folder that does not exist yet.
            space: Observation and action spaces of the histories to come.
            num_steps: Most time steps of a history.
            block_size: Histories in a chunk, which is read and written as a whole; without it 64,
                or as many as keep observations below 32 MiB.
            reward_dtype: Type of the stored rewards; ``"uint8"`` suits binary ones.
            metadata: Kept with the store, and given to each history read from it.

        Raises:
            FileExistsError: If there is something at ``path``.
            ValueError: If a size is below 1.
        """
        if path.exists():
            raise FileExistsError(f"{path} exists: open it, or choose a folder that does not")
        if block_size is None:
            bytes_of_step = space.observations.stored_dtype.itemsize * math.prod(
                space.observations.shape
            )
            affordable = _MOST_BYTES_IN_A_CHUNK // (max(num_steps, 1) * bytes_of_step)
            block_size = min(max(affordable, 1), _MOST_HISTORIES_IN_A_CHUNK)
        if num_steps < 1 or block_size < 1:
            raise ValueError(
                f"got num_steps={num_steps} and block_size={block_size}, expected at least 1"
            )
        group = zarr.create_group(path)
        step_types: dict[str, Any] = {
            "observations": space.observations.stored_dtype,
            "actions": space.actions.stored_dtype,
            "rewards": np.dtype(reward_dtype),
            "env_rewards": np.dtype(reward_dtype),
            "terminated": np.dtype(bool),
            "truncated": np.dtype(bool),
        }
        shapes: dict[str, tuple[int, ...]] = dict.fromkeys(step_types, (num_steps,))
        shapes["observations"] = (num_steps, *space.observations.shape)
        shapes["actions"] = (num_steps, *space.actions.shape)
        for name, dtype in {**step_types, "lengths": "int64", "task_ids": "int64"}.items():
            rest = shapes.get(name, ())
            group.create_array(
                name,
                shape=(0, *rest),
                chunks=(block_size, *rest),
                dtype=dtype,
                compressors=ZstdCodec(level=3, checksum=True),
            )
        header = {
            "space": space.to_dict(),
            "num_steps": num_steps,
            "block_size": block_size,
            "metadata": dict(metadata or {}),
        }
        group.attrs.update(
            {"format_version": FORMAT_VERSION, "header": json.dumps(header), "num_histories": 0}
        )
        return cls(group, path, num_dropped=0)

    @classmethod
    def open(cls, path: Path, *, read_only: bool = True) -> HistoryStore:
        """Open a store that `create` made.

        Warns when histories were left half-written by a kill; a writable store is rid of them.

        Raises:
            HistoryStoreError: If there is no store, it is of another format, or parts are missing.
        """
        try:
            group = zarr.open_group(path, mode="r" if read_only else "r+")
        except (FileNotFoundError, ValueError) as error:
            raise HistoryStoreError(
                f"no history store at {path}: make one with `algdistill collect` or "
                "`HistoryStore.create`"
            ) from error
        version = group.attrs.get("format_version")
        if version != FORMAT_VERSION:
            raise HistoryStoreError(
                f"{path} has format version {version!r}, expected {FORMAT_VERSION}: record it "
                "again, or read it with the version of algdistill that wrote it"
            )
        unknown = sorted({name for name, _ in group.members()} - set(_COLUMNS))
        if unknown:
            raise HistoryStoreError(
                f"{path} holds {unknown}, expected no more than {list(_COLUMNS)}: move them out, "
                "or read it with the version of algdistill that wrote it"
            )
        committed = _integer(group, "num_histories")
        rows = {name: _array(group, name, path).shape[0] for name in _COLUMNS}
        short = {name: count for name, count in rows.items() if count < committed}
        if short:
            raise HistoryStoreError(
                f"{path} was cut short: {committed} histories were committed, but found only "
                f"{short}: restore it from a copy or record it again"
            )
        num_dropped = max(rows.values()) - committed
        if num_dropped:
            warnings.warn(
                f"{path}: {num_dropped} histories after the first {committed} were only "
                "half-written, probably by a killed run; they are left out",
                stacklevel=2,
            )
        store = cls(group, path, num_dropped)
        if num_dropped and not read_only:
            store._resize(committed)
        return store

    def __len__(self) -> int:
        return self._num_histories

    def __repr__(self) -> str:
        return f"HistoryStore({len(self)} histories of up to {self.num_steps} steps)"

    def append(self, histories: Sequence[LearningHistory]) -> None:
        """Add histories; they count once all of them are written.

        Raises:
            ValueError: If one is of another space, too long, or has rewards that the store's
                reward type cannot hold without loss.
        """
        if not histories:
            return
        old, new = len(self), len(self) + len(histories)
        columns = {name: self._column(name, histories) for name in STEP_FIELDS}
        columns["lengths"] = np.array([len(history) for history in histories])
        columns["task_ids"] = np.array([history.task_id for history in histories])
        self._resize(new)
        for name, column in columns.items():
            self._arrays[name][old:new] = column
        self._group.attrs.update({"num_histories": new})
        self._num_histories = new

    def _resize(self, num_histories: int) -> None:
        """Give every array that many rows."""
        for array in self._arrays.values():
            array.resize((num_histories, *array.shape[1:]))

    def _column(self, name: str, histories: Sequence[LearningHistory]) -> np.ndarray:
        """One field of several histories, padded to ``num_steps``, in the stored type."""
        array = self._arrays[name]
        column = np.zeros((len(histories), *array.shape[1:]), array.dtype)
        for row, history in enumerate(histories):
            if history.space != self.space:
                raise ValueError(f"got a history of {history.space}, expected {self.space}")
            if len(history) > self.num_steps:
                raise ValueError(
                    f"got a history of {len(history)} steps, expected at most {self.num_steps}: "
                    "create the store with a larger `num_steps`"
                )
            values = getattr(history, name)
            with np.errstate(invalid="ignore"):
                stored = values.astype(array.dtype)
            if not np.array_equal(stored, values):
                raise ValueError(
                    f"got {name} that {array.dtype} cannot hold without loss: create the store "
                    'with another `reward_dtype`, such as "float32"'
                )
            column[row, : len(history)] = stored
        return column

    def lengths(self) -> Int[np.ndarray, " H"]:
        """Time steps of each history."""
        return self._read_column("lengths", 0, len(self))

    def task_ids(self) -> Int[np.ndarray, " H"]:
        """Task of each history."""
        return self._read_column("task_ids", 0, len(self))

    def read(self, start: int = 0, stop: int | None = None) -> list[LearningHistory]:
        """Histories ``start … stop - 1``, all by default; whole blocks are read at once.

        Raises:
            HistoryStoreError: If a chunk is missing or damaged.
            IndexError: If the range leaves the store.
        """
        stop = len(self) if stop is None else stop
        if not 0 <= start <= stop <= len(self):
            raise IndexError(
                f"got histories {start} to {stop}, expected a range in 0 to {len(self)}"
            )
        if start == stop:
            return []
        columns = {name: self._read_column(name, start, stop) for name in _COLUMNS}
        for name in ("rewards", "env_rewards"):
            columns[name] = columns[name].astype(np.float32)
        return [
            LearningHistory(
                space=self.space,
                task_id=int(columns["task_ids"][row]),
                metadata=self.metadata,
                **{name: columns[name][row, :length] for name in STEP_FIELDS},
            )
            for row, length in enumerate(columns["lengths"])
        ]

    def blocks(self) -> Iterator[list[LearningHistory]]:
        """All histories, one chunk's worth at a time."""
        for start in range(0, len(self), self.block_size):
            yield self.read(start, min(start + self.block_size, len(self)))

    def _read_column(self, name: str, start: int, stop: int) -> np.ndarray:
        """Rows of one array, with damage reported by name."""
        array = self._arrays[name]
        # zarr would read a missing chunk as zeros.
        for block in range(start // self.block_size, -(-stop // self.block_size)):
            chunk = array.metadata.encode_chunk_key((block, *[0] * (array.ndim - 1)))
            if not (self._path / name / chunk).exists():
                raise HistoryStoreError(
                    f"{self._path}: {name} lacks the chunk {chunk}: restore the store from a copy "
                    "or record it again"
                )
        try:
            return np.asarray(array[start:stop])
        except (RuntimeError, ValueError, OSError) as error:
            raise HistoryStoreError(
                f"{self._path}: {name} of histories {start} to {stop} is damaged ({error}): "
                "restore the store from a copy or record it again"
            ) from error


def _array(group: zarr.Group, name: str, path: Path) -> zarr.Array[Any]:
    """A member that must be an array, set to write chunks of zeros as well."""
    array = group.get(name)
    if not isinstance(array, zarr.Array):
        raise HistoryStoreError(
            f"{path} has no array {name!r}: restore it from a copy or record it again"
        )
    return array.with_config({"write_empty_chunks": True})


def _integer(group: zarr.Group, name: str) -> int:
    """An attribute that must be a number."""
    value = group.attrs[name]
    assert isinstance(value, int)
    return value
