"""The documentation is run, and kept complete."""

import re
from pathlib import Path

import pytest

from vlmreward import heads

ROOT = Path(__file__).resolve().parents[1]
PAGES = sorted([*(ROOT / "docs").rglob("*.md"), ROOT / "README.md"])
HEADS = sorted(name for name in heads.__all__ if name.endswith("Head") and name != "Head")
HEAD_PAGES = sorted((ROOT / "docs" / "heads").glob("*.md"))
HEADINGS = (
    "What it is",
    "Symbols",
    "Range and needs",
    "Example",
    "What the picture shows",
    "Right and fooled",
    "Goes with",
)
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


def test_heads_are_found_by_their_name():
    kinds = [getattr(heads, name) for name in heads.__all__]
    scoring = {kind.__name__ for kind in kinds if isinstance(kind, type) and hasattr(kind, "score")}
    assert scoring - {"Head"} == set(HEADS)


@pytest.mark.parametrize("head", HEADS)
def test_every_head_has_a_page_with_its_picture(head):
    stem = re.sub(r"(?<!^)(?=[A-Z])", "_", head.removesuffix("Head")).lower()
    page = ROOT / "docs" / "heads" / f"{stem}.md"
    assert page in HEAD_PAGES, "write its page, and draw it in experiments/reward_heads.py"
    text = page.read_text(encoding="utf-8")
    assert text.startswith(f"# {head}\n")
    assert f"](../images/heads_{stem}.png)" in text
    overview = (ROOT / "docs" / "heads.md").read_text(encoding="utf-8")
    assert f"[`{head}`](heads/{stem}.md)" in overview


@pytest.mark.parametrize("page", HEAD_PAGES, ids=lambda page: page.stem)
def test_pages_of_heads_have_the_same_headings(page):
    text = page.read_text(encoding="utf-8")
    assert tuple(re.findall(r"^## (.*)$", text, re.MULTILINE)) == HEADINGS


def test_every_logged_metric_is_explained():
    sources = [
        path for name in ("vlmreward", "algdistill", "envs") for path in (ROOT / name).rglob("*.py")
    ]
    logged = {name for path in sources for name in METRIC.findall(path.read_text(encoding="utf-8"))}
    assert "env_reward/success_rate" in logged
    page = (ROOT / "docs" / "metrics.md").read_text(encoding="utf-8")
    assert sorted(name for name in logged if f"`{name}`" not in page) == []
