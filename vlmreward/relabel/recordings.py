"""Recorded frames on disk, read a chunk at a time.

A recording is an npz file, compressed or not, or a zarr group. Its arrays have one row per frame,
in the order in which one environment showed them:

- `pixels` `[F, H, W, 3]`, uint8: of every episode first the frame of the reset, then those that
  the actions led to;
- `episode_starts` `[F]`, bool: True for frames of resets. Without it, there is one episode;
- `terminated`, `truncated` `[F]`, bool: how the environment itself ended the episode, only on an
  episode's last frame;
- what else the encoder reads, by its own name, `[F, ...]`. Other arrays are ignored.

Axes: `F` frames of a recording.
"""

from __future__ import annotations

import math
import zipfile
import zlib
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from jaxtyping import Bool
from numpy.typing import NDArray

from vlmreward.frames import PIXELS, check_frames

EPISODE_STARTS = "episode_starts"
_FLAGS = ("terminated", "truncated")
_REMEDY = "restore it from a copy or record it again"


class RecordingError(RuntimeError):
    """A recording that is missing, damaged, or laid out otherwise."""


@dataclass(frozen=True)
class Recording:
    """The flags of a recording, and a way to its frames.

    Attributes:
        starts: Which frames are of resets.
        terminated: Where episodes came to a true end.
        truncated: Where they were cut off.
        chunks: Called with a number of frames, goes through the observations once, that many at a
            time.
    """

    starts: Bool[NDArray[Any], " F"]
    terminated: Bool[NDArray[Any], " F"]
    truncated: Bool[NDArray[Any], " F"]
    chunks: Callable[[int], Iterator[Mapping[str, NDArray[Any]]]]

    def __len__(self) -> int:
        return len(self.starts)


def open_recording(
    path: Path, modalities: Sequence[str], optional: Collection[str] = ()
) -> Recording:
    """Opens an npz file or a zarr group, and checks its layout.

    Args:
        path: Where it is.
        modalities: What to read beside the flags.
        optional: Those among them that may be missing, not all at once.

    Raises:
        FrameError: If `pixels` are no frames.
        RecordingError: If there is none, if an array is missing, of another length or damaged, or
            if the flags contradict each other.
    """
    if path.is_dir():
        return _open_zarr(path, modalities, optional)
    if path.is_file():
        return _open_npz(path, modalities, optional)
    raise RecordingError(f"there is no recording at {path}: expected an npz file or a zarr folder")


@contextmanager
def open_npz(path: Path) -> Iterator[np.lib.npyio.NpzFile]:
    """Opens an npz file of plain arrays, and closes it however it is damaged."""
    with path.open("rb") as file:
        if not zipfile.is_zipfile(file):
            raise zipfile.BadZipFile("it is no zip archive")
        file.seek(0)
        with np.load(file, allow_pickle=False) as arrays:
            yield arrays


def _open_npz(path: Path, modalities: Sequence[str], optional: Collection[str]) -> Recording:
    try:
        with open_npz(path) as file:
            names = list(file.files)
            modalities = _there(path, names, modalities, optional)
            flags = {name: file[name] for name in (EPISODE_STARTS, *_FLAGS) if name in names}
        with ExitStack() as stack:
            members = {name: _NpzMember(path, name, stack) for name in modalities}
    except (KeyError, ValueError, OSError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise RecordingError(
            f"{path} is no npz file of plain arrays, or it is damaged ({error}): {_REMEDY}"
        ) from error
    shapes = {name: (member.shape, member.dtype) for name, member in members.items()}

    def chunks(size: int) -> Iterator[Mapping[str, NDArray[Any]]]:
        with ExitStack() as stack:
            members = {name: _NpzMember(path, name, stack) for name in modalities}
            num_frames = shapes[modalities[0]][0][0]
            for begin in range(0, num_frames, size):
                num_rows = min(size, num_frames - begin)
                yield {name: member.read(num_rows) for name, member in members.items()}

    return _recording(path, flags, shapes, chunks)


class _NpzMember:
    """One array of an npz file, read from its beginning to its end."""

    def __init__(self, path: Path, name: str, stack: ExitStack) -> None:
        self._where = f"{path}: {name}"
        archive = stack.enter_context(zipfile.ZipFile(path))
        self._file = stack.enter_context(archive.open(f"{name}.npy"))
        version = np.lib.format.read_magic(self._file)
        read_header = {
            (1, 0): np.lib.format.read_array_header_1_0,
            (2, 0): np.lib.format.read_array_header_2_0,
        }[version]
        self.shape, fortran_order, self.dtype = read_header(self._file)
        if fortran_order or self.dtype.hasobject:
            raise RecordingError(
                f"{self._where} is no plain array in C order, got dtype {self.dtype}, "
                f"fortran_order={fortran_order}: save numpy.ascontiguousarray of it"
            )

    def read(self, num_rows: int) -> NDArray[Any]:
        shape = (num_rows, *self.shape[1:])
        size = math.prod(shape) * self.dtype.itemsize
        try:
            data = self._file.read(size)  # at the end of the member, its checksum is compared
        except (OSError, EOFError, zipfile.BadZipFile, zlib.error) as error:
            raise RecordingError(f"{self._where} is damaged ({error}): {_REMEDY}") from error
        if len(data) != size:
            raise RecordingError(f"{self._where} was cut short: {_REMEDY}")
        return np.frombuffer(bytearray(data), self.dtype).reshape(shape)  # writable


def _open_zarr(path: Path, modalities: Sequence[str], optional: Collection[str]) -> Recording:
    try:
        group = zarr.open_group(path, mode="r")
    except (FileNotFoundError, ValueError) as error:
        raise RecordingError(f"{path} is no zarr group: {_REMEDY}") from error
    arrays = dict(group.arrays())
    modalities = _there(path, list(arrays), modalities, optional)
    for name in modalities:
        found, expected = arrays[name].nchunks_initialized, arrays[name].nchunks
        if found < expected:
            # zarr would read a missing chunk as zeros, which are black frames.
            raise RecordingError(
                f"{path}: {name} has {found} of its {expected} chunks: {_REMEDY}. If the missing "
                "frames are black, write them with the array's config write_empty_chunks=True"
            )

    def read(name: str, begin: int = 0, end: int | None = None) -> NDArray[Any]:
        try:
            return np.asarray(arrays[name][begin:end])
        except (RuntimeError, ValueError, OSError) as error:
            raise RecordingError(f"{path}: {name} is damaged ({error}): {_REMEDY}") from error

    def chunks(size: int) -> Iterator[Mapping[str, NDArray[Any]]]:
        num_frames = arrays[modalities[0]].shape[0]
        for begin in range(0, num_frames, size):
            yield {name: read(name, begin, begin + size) for name in modalities}

    flags = {name: read(name) for name in (EPISODE_STARTS, *_FLAGS) if name in arrays}
    shapes = {name: (arrays[name].shape, np.dtype(arrays[name].dtype)) for name in modalities}
    return _recording(path, flags, shapes, chunks)


def _there(
    path: Path, names: Sequence[str], modalities: Sequence[str], optional: Collection[str]
) -> list[str]:
    """Returns the modalities that there are, if none is missing that must not be."""
    there = [name for name in modalities if name in names]
    required = [name for name in modalities if name not in optional or not there]
    missing = [name for name in (*required, *_FLAGS) if name not in names]
    if missing:
        raise RecordingError(
            f"{path} lacks {missing}, got {sorted(names)}: see docs/relabelling.md for the layout"
        )
    return there


def _recording(
    path: Path,
    flags: Mapping[str, NDArray[Any]],
    shapes: Mapping[str, tuple[tuple[int, ...], np.dtype[Any]]],
    chunks: Callable[[int], Iterator[Mapping[str, NDArray[Any]]]],
) -> Recording:
    """Puts a recording together whose parts agree."""
    if PIXELS in shapes:
        shape, dtype = shapes[PIXELS]
        check_frames(np.empty((min(1, *shape[:1]), *shape[1:]), dtype))
    lengths = {name: shape[:1] for name, (shape, _) in shapes.items()}
    lengths |= {name: np.shape(values) for name, values in flags.items()}
    if len(set(lengths.values())) != 1:
        raise RecordingError(
            f"{path}: expected one row per frame in every array, got {lengths}: flags have one for "
            "each frame of a reset too"
        )
    for name, values in flags.items():
        if values.dtype != np.bool_:
            raise RecordingError(f"{path}: expected {name} as bool, got dtype {values.dtype}")
    terminated, truncated = (np.asarray(flags[name]) for name in _FLAGS)
    starts = flags.get(EPISODE_STARTS)
    if starts is None:
        starts = np.arange(len(terminated)) == 0
    if not starts[:1].all():
        raise RecordingError(f"{path}: expected {EPISODE_STARTS} to be True at the first frame")
    ended = terminated | truncated
    goes_on = np.flatnonzero(ended[:-1] & ~starts[1:])
    if len(goes_on):
        raise RecordingError(
            f"{path}: an episode has ended at frame {goes_on[0]} and goes on, expected "
            f"{EPISODE_STARTS} to be True at the frame that follows"
        )
    if (ended & starts).any():
        raise RecordingError(
            f"{path}: frame {np.flatnonzero(ended & starts)[0]} starts an episode and ends one: "
            "the next episode's first frame stands where the last one's own belongs"
        )
    return Recording(starts, terminated, truncated, chunks)
