"""One HTML file that shows a run: what was found, against what was hoped for, in pictures.

The file holds its images and needs no network, no script and no other file. It is built from the
data of `summary.json` and images only, so that a report can be drawn again from a finished run.
"""

from __future__ import annotations

import base64
import html
import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from run_folder import write_atomically

Summary = Mapping[str, Any]

REQUIRED = (
    "seconds",
    "encoder.ap_seen",
    "encoder.ap_held_out",
    "encoder.false_positive_rate",
    "agent.success_vlm",
    "agent.success_env",
    "in_context.returns",
    "in_context.optimum",
    "in_context.random",
    "source.final_return",
    "versions",
    "command",
)
_MEDIA_TYPES = {b"\x89PNG": "image/png", b"GIF8": "image/gif"}


@dataclass(frozen=True)
class Figure:
    """A picture and how to read it.

    Attributes:
        title: A few words.
        caption: What is drawn and what to look for, in plain sentences.
        image: Bytes of a PNG or GIF.
    """

    title: str
    caption: str
    image: bytes

    def __post_init__(self) -> None:
        if self.image[:4] not in _MEDIA_TYPES:
            raise ValueError(
                f"{self.title!r}: expected the bytes of a PNG or GIF, got {self.image[:4]!r}…"
            )

    @property
    def data_uri(self) -> str:
        """The image as an address that carries its own data."""
        encoded = base64.b64encode(self.image).decode("ascii")
        return f"data:{_MEDIA_TYPES[self.image[:4]]};base64,{encoded}"

    def save(self, folder: Path, number: int) -> Path:
        """Write the image into ``folder``, named after its number and title."""
        folder.mkdir(parents=True, exist_ok=True)
        kind = _MEDIA_TYPES[self.image[:4]].removeprefix("image/")
        words = "".join(c if c.isalnum() else " " for c in self.title.lower()).split()
        path = folder / f"{number}_{'_'.join(words)}.{kind}"
        path.write_bytes(self.image)
        return path

    @property
    def width(self) -> int:
        """Width to show it at, in pixels of a page of 96 per inch: text is then of one size."""
        with Image.open(io.BytesIO(self.image)) as image:
            pixels_per_inch = image.info.get("dpi", (96, 96))[0]
            return round(image.width * 96 / pixels_per_inch)


@dataclass(frozen=True)
class Target:
    """A number the project sets out to reach.

    Attributes:
        label: What is measured.
        measure: Reads it from a summary: a number, or a mapping of value, low and high.
        bound: What it is to reach.
        at_most: Whether smaller is better.
        percent: Whether it is shown in percent.
    """

    label: str
    measure: Callable[[Summary], Any]
    bound: float
    at_most: bool = False
    percent: bool = False

    def is_met(self, summary: Summary) -> bool:
        """Return whether the measured value itself, not its interval, is within the bound."""
        value = _value(self.measure(summary))
        return value <= self.bound if self.at_most else value >= self.bound

    def show(self, quantity: Any) -> str:
        """Return a quantity as text, with its interval if it has one."""
        form: Callable[[float], str] = (
            (lambda number: f"{100 * number:.2f} %") if self.percent else (lambda n: f"{n:.3g}")
        )
        if isinstance(quantity, Mapping):
            low, high = form(quantity["low"]), form(quantity["high"])
            return f"{form(quantity['value'])} ({low} to {high})"
        return form(quantity)


def targets(summary: Summary) -> tuple[Target, ...]:
    """Return the targets that a run of this many in-context episodes can be held to."""
    common = (
        Target("Average precision, trained pairs", lambda s: s["encoder"]["ap_seen"], 0.95),
        Target("Average precision, held-out pairs", lambda s: s["encoder"]["ap_held_out"], 0.80),
        Target(
            "False-positive rate at the threshold",
            lambda s: s["encoder"]["false_positive_rate"],
            0.01,
            at_most=True,
            percent=True,
        ),
        Target("Success, trained on VLM reward ÷ trained on true reward", success_ratio, 0.9),
        Target("In context: last five episodes ÷ first five", last_over_first, 3.0),
    )
    if len(summary["in_context"]["returns"]) < 50:
        return common
    return (
        *common,
        Target("In context: episodes 41–50 ÷ optimum", lambda s: over_optimum(s, 40, 50), 0.7),
        Target("In context: episode 1 ÷ optimum", lambda s: over_optimum(s, 0, 1), 0.15, True),
    )


def success_ratio(summary: Summary) -> float:
    """Return the success of the agent trained on VLM reward over that trained on true reward."""
    agent = summary["agent"]
    baseline = _value(agent["success_env"])
    return _value(agent["success_vlm"]) / baseline if baseline else float("nan")


def over_optimum(summary: Summary, first: int, last: int) -> float:
    """Return the mean return of episodes [first, last) as a share of the optimum."""
    in_context = summary["in_context"]
    return _mean(in_context["returns"][first:last]) / _value(in_context["optimum"])


def last_over_first(summary: Summary) -> Any:
    """Return the run's own ratio with its interval, or else the ratio of the mean returns."""
    in_context = summary["in_context"]
    if "last_over_first" in in_context:
        return in_context["last_over_first"]
    first = _mean(in_context["returns"][:5])
    return _mean(in_context["returns"][-5:]) / first if first else float("nan")


def write_report(
    run_dir: Path,
    summary: Summary,
    figures: Sequence[Figure],
    *,
    limitations: Sequence[str] = (),
) -> Path:
    """Write `report.html` into the run's folder and return its path.

    Args:
        run_dir: An existing folder.
        summary: What `summary.json` holds; numbers may be mappings of value, low and high.
        figures: Pictures, in the order to be shown.
        limitations: What a reader should not conclude, one plain sentence each.

    Raises:
        ValueError: If the summary lacks something that a report shows.
    """
    missing = [name for name in REQUIRED if not _has(summary, name)]
    if missing:
        raise ValueError(f"the summary lacks {', '.join(missing)}; finish every stage first")
    return write_page(
        run_dir,
        summary,
        figures,
        title="Playroom: from a sentence to an agent that learns in context",
        lead=_lead(summary),
        numbers=_target_table(summary),
        limitations=limitations,
    )


def write_page(
    run_dir: Path,
    summary: Summary,
    figures: Sequence[Figure],
    *,
    title: str,
    lead: str,
    numbers: str,
    limitations: Sequence[str] = (),
) -> Path:
    """Write `report.html` of any experiment into the run's folder and return its path.

    Args:
        run_dir: An existing folder.
        summary: Holds `command`, `seconds` and `versions`.
        figures: Pictures, in the order to be shown.
        title: The headline, plain text.
        lead: What was found, in a paragraph of plain text.
        numbers: A table, see `table`.
        limitations: What a reader should not conclude, one plain sentence each.
    """
    sections = [
        f'<h1>{html.escape(title)}</h1><p class="lead">{html.escape(lead)}</p>',
        f"<h2>Numbers</h2>{numbers}",
        *(_figure(number, figure) for number, figure in enumerate(figures, start=1)),
        _run_section(summary),
    ]
    if limitations:
        items = "".join(f"<li>{html.escape(item)}</li>" for item in limitations)
        sections.append(f"<h2>Limitations</h2><ul>{items}</ul>")
    path = run_dir / "report.html"
    page = _PAGE.replace("{{title}}", html.escape(title)).replace("{{body}}", "\n".join(sections))
    write_atomically(path, page.encode())
    return path


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return an HTML table of plain texts."""
    head = "".join(f"<th>{html.escape(cell)}</th>" for cell in header)
    body = "".join(
        f"<tr>{''.join(f'<td>{html.escape(cell)}</td>' for cell in row)}</tr>" for row in rows
    )
    return f"<table><tr>{head}</tr>{body}</table>"


def _lead(summary: Summary) -> str:
    agent, encoder, in_context = summary["agent"], summary["encoder"], summary["in_context"]
    returns = in_context["returns"]
    last = returns[-5:]
    return (
        "A small vision-language model was told a goal in words and paid a reward for frames that "
        f"show it. It tells such frames from others with an average precision of "
        f"{_value(encoder['ap_seen']):.3f} for colour–shape pairs it was trained on and "
        f"{_value(encoder['ap_held_out']):.3f} for pairs it never read about. An agent trained on "
        f"that reward alone reached its goal in {_value(agent['success_vlm']):.0%} of episodes; "
        f"the same agent trained on the true reward, in {_value(agent['success_env']):.0%}. "
        "A transformer then imitated the learning of many agents, each with a hidden goal of its "
        "own. With frozen weights, on goals and rooms it never saw, its return per episode went "
        f"from {returns[0]:.2f} in the first episode to {_mean(last):.2f} over the last "
        f"{len(last)}, where random actions give {_value(in_context['random']):.2f}, the agents it "
        f"imitates end at {_value(summary['source']['final_return']):.2f} and "
        f"{_value(in_context['optimum']):.2f} is the best possible."
    )


def _target_table(summary: Summary) -> str:
    rows = []
    for target in targets(summary):
        verdict, mark = ("met", "✓") if target.is_met(summary) else ("missed", "✗")
        sign = "≤" if target.at_most else "≥"
        rows.append(
            f"<tr><td>{html.escape(target.label)}</td>"
            f"<td>{target.show(target.measure(summary))}</td>"
            f"<td>{sign} {target.show(target.bound)}</td>"
            f'<td class="{verdict}">{mark} {verdict}</td></tr>'
        )
    head = "<tr><th>Measured</th><th>Here</th><th>Target</th><th></th></tr>"
    return f"<table>{head}{''.join(rows)}</table>"


def _figure(number: int, figure: Figure) -> str:
    title, caption = html.escape(figure.title), html.escape(figure.caption)
    return (
        f"<figure><h2>{title}</h2>"
        f'<img width="{figure.width}" src="{figure.data_uri}" alt="{title}">'
        f"<figcaption><b>Figure {number}.</b> {caption}</figcaption></figure>"
    )


def _run_section(summary: Summary) -> str:
    seconds = {stage: f"{_value(value):,.0f} s" for stage, value in summary["seconds"].items()}
    return (
        f"<h2>This run</h2><pre>{html.escape(str(summary['command']))}</pre>"
        f'<div class="columns">{_small_table("Time per stage", seconds)}'
        f"{_small_table('Versions', summary['versions'])}</div>"
    )


def _small_table(title: str, rows: Mapping[str, Any]) -> str:
    body = "".join(
        f"<tr><td>{html.escape(str(name))}</td><td>{html.escape(str(value))}</td></tr>"
        for name, value in rows.items()
    )
    return f"<table><caption>{title}</caption>{body}</table>"


def _has(summary: Summary, dotted: str) -> bool:
    node: Any = summary
    for key in dotted.split("."):
        if not isinstance(node, Mapping) or key not in node:
            return False
        node = node[key]
    return True


def _value(quantity: Any) -> float:
    return float(quantity["value"] if isinstance(quantity, Mapping) else quantity)


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


_PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{{title}}</title>
<style>
:root { color-scheme: light dark; --text: #1c1c1c; --page: #fdfdfc; --line: #d5d5d2;
  --soft: #5c5c58; --met: #00724f; --missed: #a63f00; }
@media (prefers-color-scheme: dark) { :root { --text: #e8e6e1; --page: #1b1c1e; --line: #44464a;
  --soft: #a9a8a4; --met: #4fc79c; --missed: #f0955c; } }
body { max-width: 58rem; margin: 2.5rem auto 4rem; padding: 0 1.25rem; color: var(--text);
  background: var(--page); font: 16px/1.55 system-ui, -apple-system, "Segoe UI", sans-serif; }
h1 { font-size: 1.7rem; line-height: 1.25; margin: 0 0 1rem; }
h2 { font-size: 1.15rem; margin: 2.5rem 0 .7rem; }
.lead { font-size: 1.05rem; }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; }
th, td { text-align: left; padding: .35rem .9rem .35rem 0; border-bottom: 1px solid var(--line);
  vertical-align: top; }
th, caption { color: var(--soft); font-weight: 600; font-size: .9rem; text-align: left; }
.met { color: var(--met); white-space: nowrap; }
.missed { color: var(--missed); font-weight: 600; white-space: nowrap; }
figure { margin: 0; break-inside: avoid; }
img { max-width: 100%; height: auto; display: block; margin: 0 auto; background: #fff;
  border-radius: 4px; }
figcaption { color: var(--soft); font-size: .93rem; margin-top: .6rem; }
pre { padding: .8rem 1rem; border: 1px solid var(--line); border-radius: 4px; overflow-x: auto;
  font-size: .9rem; white-space: pre-wrap; }
.columns { display: grid; gap: 2rem; grid-template-columns: repeat(auto-fit, minmax(17rem, 1fr));
  align-items: start; font-size: .93rem; }
@media print { :root { --text: #000; --page: #fff; --line: #bbb; --soft: #333; --met: #000;
  --missed: #000; } body { margin: 0; max-width: none; font-size: 11pt; } }
</style>
</head>
<body>
{{body}}
</body>
</html>
"""
