"""What the benchmarks share: a rate, a row beside its baseline, and printing."""

import json
import time
from collections.abc import Callable, Mapping, Sequence

from rich.console import Console
from rich.table import Table

Row = dict[str, str | float]


def rate(work: Callable[[], int], min_seconds: float = 2.0) -> float:
    """Units of work done in a second, after one call to warm up."""
    work()
    done, began = 0, time.perf_counter()
    while time.perf_counter() - began < min_seconds:
        done += work()
    return done / (time.perf_counter() - began)


def interleaved(
    works: Mapping[str, Callable[[], int]],
    num_rounds: int,
    clock: Callable[[], float] = time.perf_counter,
) -> dict[str, float]:
    """Units of work done in a second by each, in its fastest round, after one to warm up.

    All take turns, so that whatever else the machine is doing disturbs them alike. Seconds are
    those of ``clock``: ``time.process_time`` counts the processor's.
    """
    fastest = dict.fromkeys(works, 0.0)
    for number in range(num_rounds + 1):
        for name, work in works.items():
            began = clock()
            units = work() / (clock() - began)
            if number:
                fastest[name] = max(fastest[name], units)
    return fastest


def row(name: str, unit: str, value: float, baseline: str, baseline_value: float) -> Row:
    """A measurement beside its baseline; ``ratio`` is how many times the value is the larger."""
    return {
        "name": name,
        "value": value,
        "unit": unit,
        "baseline": f"{baseline}: {baseline_value:,.4g}",
        "ratio": value / baseline_value,
    }


def show(rows: Sequence[Row], *, as_json: bool) -> None:
    """Print the rows as a table, or as one JSON object ``{"rows": [...]}``."""
    if as_json:
        print(json.dumps({"rows": rows}))
        return
    table = Table("name", "value", "unit", "baseline", "ratio")
    for line in rows:
        table.add_row(
            str(line["name"]),
            f"{line['value']:,.4g}",
            str(line["unit"]),
            str(line["baseline"]),
            f"{line['ratio']:.2f}",
        )
    Console().print(table)
