"""The documentation is run, and kept complete."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PAGES = sorted([*(ROOT / "docs").glob("*.md"), ROOT / "README.md"])
CODE_BLOCK = re.compile(r"^```python\n(.*?)^```", re.DOTALL | re.MULTILINE)
LINK = re.compile(r"\]\((?!https?:|#)([^)#]+)")
METRIC = re.compile(r'"((?:rollout|vlm_reward|env_reward|train|eval|time)/\w+)"')


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_code_on_a_page_runs_from_top_to_bottom(page, tmp_path, monkeypatch):
    blocks = CODE_BLOCK.findall(page.read_text(encoding="utf-8"))
    if not blocks:
        pytest.skip("no Python on this page")
    monkeypatch.chdir(tmp_path)
    namespace = {"__name__": "docs"}
    for number, block in enumerate(blocks, start=1):
        exec(compile(block, f"{page.name}, block {number}", "exec"), namespace)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page):
    targets = LINK.findall(page.read_text(encoding="utf-8"))
    assert [target for target in targets if not (page.parent / target).exists()] == []


def test_every_logged_metric_is_explained():
    sources = [
        path for name in ("vlmreward", "algdistill", "envs") for path in (ROOT / name).rglob("*.py")
    ]
    logged = {name for path in sources for name in METRIC.findall(path.read_text(encoding="utf-8"))}
    assert "env_reward/success_rate" in logged
    page = (ROOT / "docs" / "metrics.md").read_text(encoding="utf-8")
    assert sorted(name for name in logged if f"`{name}`" not in page) == []
