"""Rewards of recordings on disk, written beside them.

Axes: `F` frames of a recording.
"""

from __future__ import annotations

import json
import os
import tempfile
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float32
from numpy.typing import NDArray
from rich.progress import Progress

from vlmreward.encoders.base import may_lack
from vlmreward.relabel.recordings import RecordingError, open_npz, open_recording
from vlmreward.relabel.rows import RowRewards, goals_of_episodes
from vlmreward.reward_model import GoalIndex, RewardModel

FORMAT_VERSION = 1


@dataclass(frozen=True)
class FileRewards:
    """What `relabel_file` wrote.

    Attributes:
        reward: What the action that led to a frame earned; NaN at the frames of resets.
        score: What the head said of the frame, before any threshold; NaN where nothing was scored.
        metadata: What was relabelled, and `reward_model`, its `RewardModel.config()`.
    """

    reward: Float32[NDArray[Any], " F"]
    score: Float32[NDArray[Any], " F"]
    metadata: dict[str, Any]


def rewards_path(recording: Path) -> Path:
    """Returns where the rewards of a recording are written: `<stem>.vlm_reward.npz` beside it."""
    return recording.with_name(f"{recording.stem}.vlm_reward.npz")


def relabel_file(
    path: Path,
    reward_model: RewardModel,
    goal_index: GoalIndex = 0,
    *,
    output: Path | None = None,
    overwrite: bool = False,
    batch_size: int = 1,
    chunk_size: int = 256,
    show_progress: bool = True,
) -> Path:
    """Pays for the frames of a recording, and writes the rewards beside it.

    Memory holds one chunk of frames, and 11 bytes for each frame of the recording. The result is an
    npz file of `reward` and `score` `[F]` and `metadata`, JSON. It appears under its name when it
    is complete; a killed run leaves nothing there.

    Args:
        path: An npz file or a zarr group; see `vlmreward.relabel.recordings` for the layout.
        reward_model: Pays; its `timing` says when, and from how many frames.
        goal_index: One goal for all episodes, or one for each, in order.
        output: Where to write; `rewards_path(path)` if None.
        overwrite: Replace what is there.
        batch_size: Frames in a forward pass. 1 pays what the wrapper of one environment paid, bit
            for bit; more are faster, and agree as `relabel` says.
        chunk_size: Frames read at a time. For zarr, take a multiple of its own chunks.
        show_progress: Draw a progress bar.

    Returns:
        Where the rewards are; `load_rewards` reads them.

    Example:
        >>> from vlmreward import CosineHead, FakeEncoder, Goal
        >>> folder = Path(tempfile.mkdtemp())
        >>> frames = np.zeros((3, 8, 8, 3), np.uint8)  # a reset and two steps
        >>> frames[2, ..., 0] = 255
        >>> never = np.zeros(3, bool)
        >>> np.savez(folder / "rollout.npz", pixels=frames, terminated=never, truncated=never)
        >>> reward_model = RewardModel(FakeEncoder(), Goal("a red room"), CosineHead())
        >>> path = relabel_file(folder / "rollout.npz", reward_model, show_progress=False)
        >>> path.name
        'rollout.vlm_reward.npz'
        >>> load_rewards(path).reward
        array([nan,  0.,  1.], dtype=float32)

    Raises:
        FileExistsError: If there is something at `output`.
        FrameError: If `pixels` are no frames.
        IndexError: If a goal index is out of range.
        RecordingError: If the recording is missing, damaged or laid out otherwise.
        ValueError: If there is another number of goals than of episodes, or a size is below 1.
    """
    output = rewards_path(path) if output is None else output
    if output.exists() and not overwrite:
        raise FileExistsError(f"{output} exists: pass overwrite=True, or another output")
    if chunk_size < 1:
        raise ValueError(f"expected chunk_size of at least 1, got {chunk_size}")
    encoder = reward_model.encoder
    optional = [name for name in encoder.modalities if may_lack(encoder, name)]
    recording = open_recording(path, encoder.modalities, optional)
    goals = goals_of_episodes(goal_index, int(recording.starts.sum()))
    chunk_size = max(chunk_size, batch_size)
    rows = RowRewards(reward_model, lambda: next(goals), batch_size)
    reward, score = np.full((2, len(recording)), np.nan, dtype=np.float32)
    begin = 0
    with Progress(disable=not show_progress) as progress:
        task = progress.add_task(f"Relabelling {path.name}", total=len(recording))
        for obs in recording.chunks(chunk_size):
            end = min(begin + chunk_size, len(recording))
            reward[begin:end], score[begin:end] = rows(
                obs,
                recording.starts[begin:end],
                recording.terminated[begin:end],
                recording.truncated[begin:end],
            )
            progress.update(task, completed=end)
            begin = end
    metadata = {
        "format_version": FORMAT_VERSION,
        "recording": path.name,
        "goal_index": np.asarray(goal_index).tolist(),
        "batch_size": batch_size,
        "reward_model": reward_model.config(),
    }
    _write(output, {"reward": reward, "score": score, "metadata": np.array(json.dumps(metadata))})
    return output


def load_rewards(path: Path) -> FileRewards:
    """Reads what `relabel_file` wrote.

    Raises:
        RecordingError: If it is missing, damaged, or of another format.
    """
    try:
        with open_npz(path) as file:
            metadata = json.loads(str(file["metadata"]))
            reward, score = file["reward"], file["score"]
    except FileNotFoundError:
        raise RecordingError(
            f"there are no rewards at {path}: make them with relabel_file"
        ) from None
    except (KeyError, ValueError, OSError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise RecordingError(
            f"{path} holds no rewards, or is damaged ({error}): relabel the recording again"
        ) from error
    version = metadata.get("format_version")
    if version != FORMAT_VERSION:
        raise RecordingError(f"{path} has format version {version!r}, expected {FORMAT_VERSION}")
    return FileRewards(reward, score, metadata)


def _write(path: Path, arrays: dict[str, NDArray[Any]]) -> None:
    """Writes an npz file that has its name only once it is whole."""
    descriptor, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".tmp", dir=path.parent)
    try:
        with os.fdopen(descriptor, "wb") as file:
            np.savez(file, **arrays)  # type: ignore[arg-type]
            file.flush()
            os.fsync(file.fileno())
        os.replace(name, path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
