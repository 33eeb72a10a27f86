"""``algdistill inspect``: are stored learning histories worth distilling?"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

from rich.console import Console
from rich.progress import track
from tyro.conf import Positional, arg

from algdistill.cli.output import MESSAGES
from algdistill.histories import HistoryStore
from algdistill.histories.quality import measure_quality
from algdistill.histories.quality_report import quality_table


def inspect(
    store: Positional[Path],
    *,
    context_length: int,
    keep_every: int = 1,
    figure: Path | None = None,
    as_json: Annotated[bool, arg(name="json")] = False,
) -> None:
    """Report how fast the sources of a store learn, and what a context shows of it.

    Args:
        store: Folder of the store.
        context_length: Time steps of the context to train for.
        keep_every: Look at every so many whole episodes only.
        figure: Draw the report as well, to a file such as `report.png`.
        as_json: Print one JSON object instead of a table.
    """
    histories = HistoryStore.open(store)
    num_blocks = -(-len(histories) // histories.block_size)
    blocks = track(
        histories.blocks(), "inspect", total=num_blocks, console=MESSAGES, transient=True
    )
    quality = measure_quality(blocks, context_length=context_length, keep_every=keep_every)
    if figure is not None:
        # Matplotlib comes with an extra.
        from algdistill.histories.quality_plot import plot_quality  # noqa: PLC0415

        plot_quality(quality, figure)
    if as_json:
        print(json.dumps(quality.to_dict()))
        return
    Console().print(quality_table(quality))
