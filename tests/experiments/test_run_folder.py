import errno
import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from run_folder import Arrays, RunFolder


@dataclass(frozen=True)
class Settings:
    seed: int = 0


def test_a_stage_is_computed_once(tmp_path: Path) -> None:
    calls = []

    def compute() -> Arrays:
        calls.append(1)
        return {"values": np.arange(3)}

    for _ in range(2):
        found = RunFolder(tmp_path, Settings()).stage("first", compute)
        assert found["values"].tolist() == [0, 1, 2]
    assert len(calls) == 1
    assert set(RunFolder(tmp_path, Settings()).seconds()) == {"first"}


def test_a_killed_stage_is_computed_again_and_the_finished_ones_kept(tmp_path: Path) -> None:
    run = RunFolder(tmp_path, Settings())
    run.stage("first", lambda: {"values": np.ones(2)})

    def killed() -> Arrays:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run.stage("second", killed)
    again = RunFolder(tmp_path, Settings())
    assert again.stage("first", killed)["values"].tolist() == [1, 1]
    assert again.stage("second", lambda: {"values": np.zeros(1)})["values"].tolist() == [0]


def test_other_settings_are_refused_by_name(tmp_path: Path) -> None:
    RunFolder(tmp_path, Settings(0))
    with pytest.raises(ValueError, match=r"\['seed'\] differ"):
        RunFolder(tmp_path, Settings(1))


@pytest.mark.parametrize(
    ("source", "other"), [("small", "large"), (None, "large"), ("small", None)]
)
def test_another_source_is_refused(tmp_path: Path, source: str | None, other: str | None) -> None:
    for _ in range(2):
        assert RunFolder(tmp_path, Settings(), source).source == source
    with pytest.raises(ValueError, match=r"\['source'\] differ"):
        RunFolder(tmp_path, Settings(), other)


def test_a_full_disk_is_told_and_finished_stages_are_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = RunFolder(tmp_path, Settings())
    run.stage("first", lambda: {"values": np.arange(3)})

    def write(*args: object, **arrays: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(np, "savez_compressed", write)
    with pytest.raises(OSError, match=r"second.npz could not be written .*free some space"):
        run.stage("second", lambda: {"values": np.arange(3)})
    assert run.finished("first")["values"].tolist() == [0, 1, 2]
    assert sorted(file.name for file in tmp_path.iterdir()) == ["first.npz", "settings.json"]
