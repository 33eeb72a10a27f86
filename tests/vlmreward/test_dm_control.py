"""Real dm_control, in a process of its own: it chooses how to draw when it is imported.

Torch's compiler, loaded after a software renderer, crashes the process.
"""

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


@pytest.mark.timeout(1200)
def test_what_on_dm_control_says(tmp_path):
    for package in ("dm_control", "shimmy"):
        if importlib.util.find_spec(package) is None:
            pytest.skip(f"{package} is not installed")
    chosen = os.environ.get("MUJOCO_GL")
    candidates = [chosen] if chosen else ["egl", "osmesa"]
    draws = (c for c in candidates if execute(["-c", PROBE], c, tmp_path).returncode == 0)
    backend = next(draws, "disable")
    script = Path(__file__).with_name("on_dm_control.py")
    config = Path(__file__).parents[2] / "setup.cfg"
    pytest_on = ["-m", "pytest", "-n", "0", "-q", "-c", str(config), str(script)]
    done = execute([*pytest_on, "-p", "no:cacheprovider"], backend, tmp_path)
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
    if backend == "disable":
        pytest.skip(INSTALL)
    assert "skipped" not in done.stdout
