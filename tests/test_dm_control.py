"""Real dm_control, in processes of its own: it chooses how to draw when it is imported."""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

PROBE = """
from dm_control import suite
assert suite.load("cartpole", "balance").physics.render(8, 8).std() > 0
"""
INSTALL = (
    "tried without pictures alone, since no renderer for MuJoCo was found: install libegl1 and "
    "libgl1 (MUJOCO_GL=egl), or libosmesa6 (MUJOCO_GL=osmesa)"
)


def execute(arguments, backend, folder):
    # Elsewhere than in the checkout: MuJoCo writes its warnings to a file where it runs.
    return subprocess.run(
        [sys.executable, *arguments],
        env={**os.environ, "MUJOCO_GL": backend},
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=900,
        check=False,
    )


@pytest.fixture(scope="module")
def backend(tmp_path_factory):
    """Which graphics library dm_control can draw with here; none is "disable"."""
    for package in ("dm_control", "shimmy"):
        if importlib.util.find_spec(package) is None:
            pytest.skip(f"{package} is not installed")
    folder = tmp_path_factory.mktemp("probe")
    chosen = os.environ.get("MUJOCO_GL")
    candidates = [chosen] if chosen else ["egl", "osmesa"]
    draws = (c for c in candidates if execute(["-c", PROBE], c, folder).returncode == 0)
    return next(draws, "disable")


@pytest.mark.timeout(1200)
@pytest.mark.parametrize(
    "script", ["vlmreward/on_dm_control.py", "experiments/on_dm_control_reacher.py"]
)
def test_what_is_said_of_dm_control(script, backend, tmp_path):
    tests = Path(__file__).parent
    config = ["-c", str(tests.parent / "setup.cfg"), "-n", "0", "-p", "no:cacheprovider"]
    done = execute(["-m", "pytest", *config, str(tests / script)], backend, tmp_path)
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
    if backend == "disable":
        pytest.skip(INSTALL)
    assert "skipped" not in done.stdout
