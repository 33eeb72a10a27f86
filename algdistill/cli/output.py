"""What all commands write alike."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from rich.console import Console

MESSAGES = Console(stderr=True)
"""Progress and advice, apart from results."""


def write_json(path: Path, data: Any) -> None:
    """Write data to a file; a kill leaves the old one or the new one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_suffix(".partial")
    unfinished.write_text(json.dumps(data, indent=2) + "\n", encoding="utf-8")
    os.replace(unfinished, path)
