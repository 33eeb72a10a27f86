"""A run's folder: every stage writes its result once, so a killed run goes on where it was."""

import json
import os
import platform
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

Arrays = dict[str, NDArray[Any]]
_PACKAGES = ("vlmreward", "torch", "open_clip_torch", "gymnasium", "stable-baselines3", "zarr")


@dataclass(frozen=True)
class RunFolder:
    """A folder under ``runs/`` that belongs to one set of settings.

    Attributes:
        path: The folder.
        settings: A data class.
        source: Name of the trained model that the run goes on from, if there is one.

    Raises:
        ValueError: The folder holds a run with other settings, or from another source.
    """

    path: Path
    settings: Any
    source: str | None = None

    def __post_init__(self) -> None:
        self.path.mkdir(parents=True, exist_ok=True)
        wanted = json.loads(json.dumps(asdict(self.settings)))
        if self.source is not None:
            wanted["source"] = self.source
        file = self.path / "settings.json"
        if not file.exists():
            write_atomically(file, json.dumps(wanted, indent=2).encode())
        elif (found := json.loads(file.read_text())) != wanted:
            keys = wanted.keys() | found.keys()
            differing = sorted(key for key in keys if found.get(key) != wanted.get(key))
            raise ValueError(
                f"{self.path} belongs to a run with other settings ({differing} differ); choose "
                "another --run-name or delete the folder"
            )

    def stage(self, name: str, compute: Callable[[], Arrays]) -> Arrays:
        """Return the arrays of a stage, computing them unless an earlier run did."""
        file = self.path / f"{name}.npz"
        if not self.is_finished(name):
            print(f"── {name}", flush=True)
            started = time.perf_counter()
            arrays = compute()
            seconds = np.float64(time.perf_counter() - started)
            _write_arrays(file, {"seconds": seconds, **arrays})
        return self.finished(name)

    def is_finished(self, name: str) -> bool:
        """Whether a stage was computed."""
        return (self.path / f"{name}.npz").exists()

    def finished(self, name: str) -> Arrays:
        """Return the arrays of a stage that was computed."""
        with np.load(self.path / f"{name}.npz", allow_pickle=False) as stored:
            return {name: stored[name] for name in stored.files if name != "seconds"}

    def seconds(self) -> dict[str, float]:
        """Return what each finished stage took."""
        found = {}
        for file in sorted(self.path.glob("*.npz"), key=lambda file: file.stat().st_mtime):
            with np.load(file, allow_pickle=False) as stored:
                found[file.stem] = round(float(stored["seconds"]), 1)
        return found


def _write_arrays(file: Path, arrays: Mapping[str, Any]) -> None:
    partial = file.with_suffix(".part")
    try:
        with partial.open("wb") as stream:
            np.savez_compressed(stream, **arrays)
        os.replace(partial, file)
    except OSError as error:
        partial.unlink(missing_ok=True)
        raise OSError(
            error.errno,
            f"{file} could not be written ({error.strerror}); finished stages are kept: free some "
            "space and run the same command again",
        ) from error


def seconds_of(run: RunFolder, folders: Mapping[str, RunFolder]) -> dict[str, float]:
    """Return what each finished stage of a run and of the folders in it took."""
    inside = {
        f"{name}/{stage}": seconds
        for name, folder in folders.items()
        for stage, seconds in folder.seconds().items()
    }
    return run.seconds() | inside


def write_atomically(path: Path, data: bytes) -> None:
    """Write a file so that a kill leaves either the old one or the new one."""
    partial = path.with_name(path.name + ".part")
    partial.write_bytes(data)
    os.replace(partial, path)


def write_json(path: Path, value: Mapping[str, Any]) -> None:
    """Write JSON atomically."""
    write_atomically(path, (json.dumps(value, indent=2) + "\n").encode())


def versions() -> dict[str, str]:
    """Return the versions of Python and of the packages that decide a result."""
    return {"python": platform.python_version(), **{name: version(name) for name in _PACKAGES}}


def machine() -> str:
    """Describe the machine in words."""
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else "no GPU"
    return f"{platform.machine()}, {os.cpu_count()} cores, {gpu}"
