"""The commands, from a shell's point of view: calibrate, then score and evaluate."""

import json
import subprocess
import sys

import numpy as np
import pytest
import torch

from vlmreward import cli
from vlmreward_envs.playroom import Action, Family, PlayroomRooms, all_goals

GOAL = "the person is holding the red ball"
LIFTED = [goal.sentence for goal in all_goals(Family.LIFT)]
NEGATIVES = ["the person is holding nothing", *(text for text in LIFTED if text != GOAL)]


def labelled_frames(path, seed, num_rooms=160):
    """Rooms of a random walk in which the first object was lifted now and then."""
    rooms = PlayroomRooms(num_rooms, GOAL)
    rooms.reset(torch.arange(num_rooms) + seed)
    generator = torch.Generator().manual_seed(seed)
    for _ in range(60):
        actions = torch.randint(0, 7, (num_rooms,), generator=generator)
        actions = torch.where(rooms.success, int(Action.STAY), actions)
        rooms.step(actions)
    labels = rooms.success.numpy()
    np.savez(path, pixels=rooms.render().numpy(), labels=labels)
    return labels


def run(capsys, *arguments):
    sys.argv = ["vlmreward", *map(str, arguments)]
    cli.main()
    return capsys.readouterr()


@pytest.fixture
def reward(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["vlmreward"])
    labelled_frames(tmp_path / "calibration.npz", seed=0)
    path = tmp_path / "reward.json"
    out = run(
        capsys, "calibrate", tmp_path / "calibration.npz", path,
        "--goal", GOAL, "--negatives", *NEGATIVES, "--value", 0.02,
    ).out  # fmt: skip
    assert "split-conformal" in out
    return path


def test_calibrate_score_and_evaluate(tmp_path, reward, capsys):
    labels = labelled_frames(tmp_path / "test.npz", seed=1000)
    scored = json.loads(run(capsys, "score", reward, tmp_path / "test.npz", "--as-json").out)
    card = json.loads(reward.read_text())
    assert card["calibration"]["target"] == 0.02
    paid = np.array(scored["score"]) > card["head"]["threshold"]
    assert np.array_equal(paid, np.array(scored["reward"]) == 1)
    found = json.loads(
        run(
            capsys, "evaluate", reward, tmp_path / "test.npz", "--as-json", "--num-resamples", 50
        ).out
    )
    assert found["recall"]["value"] == pytest.approx(paid[labels].mean())
    assert found["false_positive_rate"]["value"] == pytest.approx(paid[~labels].mean())
    assert found["average_precision"]["value"] > 0.9
    assert "average_precision" in run(capsys, "evaluate", reward, tmp_path / "test.npz").out
    table = run(capsys, "score", reward, tmp_path / "test.npz").out
    assert table.count("│") >= 2 * len(labels)


def test_a_prompt_that_names_a_deed_gets_a_hint(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["vlmreward"])
    labelled_frames(tmp_path / "frames.npz", seed=0)
    err = run(
        capsys, "calibrate", tmp_path / "frames.npz", tmp_path / "reward.json",
        "--goal", "pick up the red ball", "--negatives", "the person is holding nothing",
        "--value", 0.02, "--unlabelled",
    ).err  # fmt: skip
    assert "pick" in err
    assert json.loads((tmp_path / "reward.json").read_text())["calibration"]["target"] == 0.02


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"frames": np.zeros((3, 8, 8, 3), np.uint8)}, "expected an array 'pixels'"),
        (
            {"pixels": np.zeros((3, 8, 8), np.uint8), "labels": np.arange(3) > 1},
            "add the batch axis",
        ),
        ({"pixels": np.zeros((3, 8, 8, 3), np.uint8)}, "expected an array 'labels'"),
        ({"pixels": np.array([{"a": 1}], dtype=object)}, "plain arrays"),
    ],
)
def test_bad_files_end_in_one_line(tmp_path, reward, arrays, message):
    np.savez(tmp_path / "bad.npz", **arrays)
    sys.argv = ["vlmreward", "evaluate", str(reward), str(tmp_path / "bad.npz")]
    with pytest.raises(SystemExit, match=message):
        cli.main()


def test_the_command_is_installed():
    command = [sys.executable, "-c", "from vlmreward.cli import main; main()", "--help"]
    shown = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    for name in ("score", "evaluate", "calibrate"):
        assert name in shown
