"""Collect learning histories, inspect them, train a model on them, and evaluate it in context.

Tasks are named by where they are made, as in `vlmreward_envs.dark_room:DarkRoomTasks`. Naming a
module runs its code, as `python` would: name only what you trust.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import tyro

from algdistill.cli.collecting import collect
from algdistill.cli.evaluating import evaluate
from algdistill.cli.inspecting import inspect
from algdistill.cli.training import train
from algdistill.histories import HistoryStoreError

__all__ = ["main"]


def main() -> None:
    """Run the command that was typed; errors of input end in one line."""
    commands: dict[str, Callable[..., Any]] = {
        "collect": collect,
        "inspect": inspect,
        "train": train,
        "evaluate": evaluate,
    }
    try:
        tyro.extras.subcommand_cli_from_dict(commands, prog="algdistill", description=__doc__)
    except (
        ValueError,
        TypeError,
        FileExistsError,
        FileNotFoundError,
        HistoryStoreError,
    ) as error:
        sys.exit(f"algdistill: {error}")
