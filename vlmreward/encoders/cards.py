"""Encoders as two files: a card, JSON, that says what a model is, and its weights beside it."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from vlmreward.encoders.open_clip import CheckpointError


def write_card(path: str | Path, card: Mapping[str, Any], model: torch.nn.Module) -> Path:
    """Writes a card and the weights of its model; each file appears whole or not at all.

    Weight matrices are stored in half precision, everything of fewer dimensions in full: half the
    size, and cosines that differ by about a thousandth.

    Args:
        path: Where to write, such as `runs/clip/encoder`: `.json` and `.safetensors` are added.
        card: JSON types.
        model: Whose weights to write.

    Returns:
        The path of the card.
    """
    path = Path(path)
    if path.suffix in (".json", ".safetensors"):
        path = path.with_suffix("")
    path.parent.mkdir(parents=True, exist_ok=True)
    text = json.dumps(card, indent=2)
    state = {key: _compact(value) for key, value in model.state_dict().items()}
    _replace(_add(path, ".safetensors"), lambda part: save_file(state, part))
    _replace(_add(path, ".json"), lambda part: part.write_text(text + "\n"))
    return _add(path, ".json")


def read_card(
    path: Path, keys: Sequence[str], card_format: int, *, written_by: str
) -> dict[str, Any]:
    """Reads a card back.

    Args:
        path: Of the card.
        keys: What it must have.
        card_format: The format that this version reads.
        written_by: The function that writes such cards, for the error.

    Raises:
        CheckpointError: If there is none, or it is of something else, or of another format.
    """
    if not path.is_file():
        raise CheckpointError(f"expected an encoder saved by {written_by}, found none at {path}")
    try:
        card: dict[str, Any] = json.loads(path.read_text())
        missing = [key for key in ("format", *keys) if key not in card]
    except (json.JSONDecodeError, TypeError) as error:
        raise CheckpointError(
            f"{path} is no encoder saved by {written_by} ({type(error).__name__}: {error})"
        ) from error
    if missing:
        raise CheckpointError(f"{path} is no encoder saved by {written_by}: it lacks {missing}")
    if card["format"] != card_format:
        raise CheckpointError(
            f"{path} has format {card['format']}, this version reads {card_format}: update "
            "vlmreward"
        )
    return card


def _compact(tensor: torch.Tensor) -> torch.Tensor:
    tensor = tensor.detach().cpu().contiguous()
    return tensor.half() if tensor.is_floating_point() and tensor.ndim >= 2 else tensor


def _add(path: Path, suffix: str) -> Path:
    return path.with_name(path.name + suffix)


def _replace(path: Path, write: Callable[[Path], Any]) -> None:
    part = _add(path, ".part")
    write(part)
    os.replace(part, path)
