"""What the checkout itself must and must not contain."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
LARGEST_FILE = 10 * 2**20  # bytes: the shipped encoder may not be larger

# Written in pieces, so that this file does not contain what it looks for.
MACHINE_PATH = re.compile(r"(?<![\w.])/(?:" + "|".join(["home", "root", "Users", "work"]) + r")/\w")
INDEX_HOST = re.compile(
    "|".join(["pypi" + r"\.org", "python" + "hosted", r"download\.py" + "torch"])
)


@pytest.fixture(scope="module")
def files():
    """Files that git tracks or would track."""
    if shutil.which("git") is None or not (ROOT / ".git").exists():
        pytest.skip("not a git checkout")
    listing = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"],
        cwd=ROOT,
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    paths = [ROOT / name for name in listing.split("\0") if name]
    return [path for path in paths if path.is_file()]


def text_of(path):
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        return ""


def test_patterns_find_what_they_are_for():
    assert MACHINE_PATH.search("see " + "/" + "home/someone/x")
    assert not MACHINE_PATH.search("https://example.org/" + "home/page")
    assert INDEX_HOST.search("--index-url https://pypi" + ".org/simple")


@pytest.mark.parametrize("pattern", [MACHINE_PATH, INDEX_HOST], ids=["machine path", "index host"])
def test_no_file_depends_on_the_machine_it_was_written_on(files, pattern):
    found = [str(path.relative_to(ROOT)) for path in files if pattern.search(text_of(path))]
    assert found == []


def test_no_file_is_large(files):
    assert [str(path) for path in files if path.stat().st_size > LARGEST_FILE] == []


def test_no_generated_file_is_tracked(files):
    generated = {"runs", "__pycache__", ".venv", "build", "dist", ".mypy_cache"}
    found = [path for path in files if generated & set(path.relative_to(ROOT).parts)]
    assert found == []


def test_continuous_integration_runs_the_same_command_as_people(files):
    script = ROOT / ".ci" / "run"
    assert script in files
    assert script.stat().st_mode & 0o111, "must be executable"
    assert "make test" in script.read_text()
