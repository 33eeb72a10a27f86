"""The whole experiment in small: it runs, resumes, and writes what its readers expect."""

import json
from pathlib import Path

import pytest

import playroom

REQUIRED = {
    "seconds": None,
    "encoder": {"ap_seen", "ap_held_out", "false_positive_rate"},
    "agent": {"success_vlm", "success_env"},
    "in_context": {"returns", "optimum", "random"},
    "source": {"final_return"},
    "versions": None,
    "command": None,
}


def test_debug_preset_runs_and_resumes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    playroom.main("debug", num_threads=1)
    run = tmp_path / "runs" / "playroom_debug"
    first = json.loads((run / "summary.json").read_text())
    for key, names in REQUIRED.items():
        assert key in first
        assert names is None or names <= set(first[key])
    assert len(first["in_context"]["returns"]) == playroom.PRESETS["debug"].num_episodes
    report = (run / "report.html").read_text()
    assert report.count("data:image/png") == 4
    assert report.count("data:image/gif") == 4

    # A kill after the sources: what follows is done again, what came before is kept.
    for stage in ("distil_0", "in_context"):
        (run / f"{stage}.npz").unlink()
    (run / "report.html").unlink()
    capsys.readouterr()
    playroom.main("debug", num_threads=1)
    stages = [line for line in capsys.readouterr().out.splitlines() if line.startswith("──")]
    assert stages == ["── distil_0", "── in_context"]
    second = json.loads((run / "summary.json").read_text())
    assert second["in_context"]["returns"] == first["in_context"]["returns"]
    assert (run / "report.html").exists()
