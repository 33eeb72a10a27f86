import os
from functools import partial
from pathlib import Path

import pytest

from jobs import run_jobs


@pytest.fixture(autouse=True)
def importable_in_new_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Jobs are functions of this module, which new processes import by its name."""
    monkeypatch.syspath_prepend(Path(__file__).parents[2])


def write(path: Path) -> None:
    path.write_text("done")


def fail_at_first(path: Path, how: str) -> None:
    """Fail the first time, by an error or by dying, and succeed the second."""
    first = path.with_suffix(".first")
    if not first.exists():
        first.touch()
        if how == "dies":
            os._exit(1)
        raise RuntimeError("the first time")
    write(path)


def fail(how: str) -> None:
    if how == "dies":
        os._exit(1)
    raise ValueError("bad settings")


def test_a_job_that_fails_is_tried_once_more_and_the_others_go_on(tmp_path: Path) -> None:
    jobs = {
        "plain": partial(write, tmp_path / "plain"),
        "raises once": partial(fail_at_first, tmp_path / "raises", "raises"),
        "dies once": partial(fail_at_first, tmp_path / "dies", "dies"),
        "raises": partial(fail, "raises"),
        "dies": partial(fail, "dies"),
        "last": partial(write, tmp_path / "last"),
    }
    failed = run_jobs(jobs, num_workers=2)
    assert list(failed) == ["raises", "dies"]
    assert failed["raises"] == "ValueError: bad settings"
    assert "BrokenProcessPool" in failed["dies"]
    for name in ("plain", "raises", "dies", "last"):
        assert (tmp_path / name).read_text() == "done"


def test_no_jobs_are_no_trouble() -> None:
    assert run_jobs({}) == {}


def test_without_workers_jobs_run_in_this_process(tmp_path: Path) -> None:
    seen: list[int] = []
    jobs = {
        "here": lambda: seen.append(os.getpid()),
        "raises once": partial(fail_at_first, tmp_path / "raises", "raises"),
        "raises": partial(fail, "raises"),
    }
    assert run_jobs(jobs, num_workers=0) == {"raises": "ValueError: bad settings"}
    assert seen == [os.getpid()]
    assert (tmp_path / "raises").exists()


def test_the_same_on_ray(tmp_path: Path) -> None:
    pytest.importorskip("ray")
    jobs = {
        "plain": partial(write, tmp_path / "plain"),
        "raises once": partial(fail_at_first, tmp_path / "raises", "raises"),
        "raises": partial(fail, "raises"),
    }
    assert list(run_jobs(jobs, backend="ray")) == ["raises"]
    assert (tmp_path / "plain").read_text() == (tmp_path / "raises").read_text() == "done"
