"""What a user who installs the project gets."""

import configparser
import os
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path, PurePosixPath

import pytest
from setuptools import find_packages

ROOT = Path(__file__).resolve().parents[1]
PACKAGE_DIRS = {
    "vlmreward": ROOT / "vlmreward",
    "algdistill": ROOT / "algdistill",
    "vlmreward_envs": ROOT / "envs" / "vlmreward_envs",
}


@pytest.fixture(scope="module")
def setup_cfg():
    parser = configparser.ConfigParser()
    parser.read(ROOT / "setup.cfg")
    return parser


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """Build a wheel from a copy of the sources, as pip does, and return its path."""
    copy = tmp_path_factory.mktemp("sources")
    for name in ("setup.cfg", "pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, copy)
    for name in ("vlmreward", "algdistill", "envs", "experiments"):
        shutil.copytree(ROOT / name, copy / name, ignore=shutil.ignore_patterns("__pycache__"))
    build = "from setuptools import build_meta; build_meta.build_wheel('dist')"
    subprocess.run(
        [sys.executable, "-c", build], cwd=copy, check=True, capture_output=True, timeout=120
    )
    (path,) = (copy / "dist").glob("*.whl")
    return path


def test_every_package_is_listed(setup_cfg):
    listed = setup_cfg["options"]["packages"].split()
    found = find_packages(
        str(ROOT), include=["vlmreward", "vlmreward.*", "algdistill", "algdistill.*"]
    )
    found += find_packages(str(ROOT / "envs"))
    assert sorted(listed) == sorted(found)


def test_the_wheel_holds_the_three_packages_and_nothing_else(wheel):
    names = [PurePosixPath(name) for name in zipfile.ZipFile(wheel).namelist()]
    top_level = {name.parts[0] for name in names if not name.parts[0].endswith(".dist-info")}
    assert top_level == set(PACKAGE_DIRS)
    assert any(name.name == "LICENSE" for name in names)


def test_the_wheel_holds_every_source_file_marker_and_asset(wheel):
    shipped = set(zipfile.ZipFile(wheel).namelist())
    expected = {
        f"{package}/{path.relative_to(folder).as_posix()}"
        for package, folder in PACKAGE_DIRS.items()
        for path in folder.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert {f"{package}/py.typed" for package in PACKAGE_DIRS} <= expected
    assert expected - shipped == set()


def test_the_wheel_imports_away_from_the_checkout(wheel, tmp_path):
    site = tmp_path / "site"
    zipfile.ZipFile(wheel).extractall(site)
    code = (
        "import vlmreward, algdistill, vlmreward_envs;"
        "print(vlmreward.__file__, algdistill.__file__, vlmreward_envs.__file__, sep='\\n')"
    )
    result = subprocess.run(
        [sys.executable, "-W", "error", "-c", code],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(site)},
        check=True,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert all(Path(line).is_relative_to(site) for line in result.stdout.splitlines())


def test_versions_agree(setup_cfg):
    version = setup_cfg["metadata"]["version"]
    assert f"\nversion: {version}\n" in (ROOT / "CITATION.cff").read_text()
    newest = re.search(r"^## \[(\d.*?)\]", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert newest is not None
    assert newest[1] == version


def test_constraints_pin_every_requirement(setup_cfg):
    """An unpinned dependency would make a fresh checkout depend on the day it is installed."""
    pins = (ROOT / "constraints.txt").read_text()
    pinned = {normalise(name) for name in re.findall(r"^([\w.-]+)==", pins, re.MULTILINE)}
    requirements = setup_cfg["options"]["install_requires"]
    requirements += "".join(setup_cfg["options.extras_require"].values())
    required = {normalise(name) for name in re.findall(r"^([\w.-]+)", requirements, re.MULTILINE)}
    assert required - pinned - {"vlmreward"} == set()


def normalise(name):
    return re.sub(r"[-_.]+", "-", name).lower()
