"""Backbones by name: shipped with the package, or saved by you."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from vlmreward.backbone.encoder import MultimodalEncoder, Scored
from vlmreward.backbone.model import BackboneConfig, MultimodalBackbone
from vlmreward.encoders import build_tokenizer
from vlmreward.encoders.cards import read_card, write_card
from vlmreward.encoders.open_clip import Tokenizer, misfit, read_weights
from vlmreward.heads import Head, head_config, head_from_config

FORMAT = 1
_ASSETS = Path(__file__).parents[1] / "assets" / "backbones"


def shipped_backbones() -> list[str]:
    """Names the backbones whose weights are part of this package."""
    return sorted(path.stem for path in _ASSETS.glob("*.json"))


def tokenizer_of(config: BackboneConfig) -> Tokenizer:
    """Returns the tokenizer of a backbone's text tower: open_clip's own."""
    text_cfg = {"context_length": config.text.context_length, "vocab_size": config.text.vocab_size}
    return build_tokenizer({"text_cfg": text_cfg})


def save_backbone(
    backbone: MultimodalBackbone,
    path: str | Path,
    *,
    temperatures: Mapping[str, float] | None = None,
    heads: Mapping[str, Head] | None = None,
    training: Mapping[str, Any] | None = None,
) -> Path:
    """Writes a backbone as two files that `load_backbone` reads back.

    Weight matrices are stored in half precision; see `vlmreward.encoders.cards`.

    Args:
        backbone: The trained model.
        path: Where to write, such as `runs/backbone/small`: `.json` and `.safetensors` are added.
        temperatures: Of each stream, as calibrated; see `MultimodalEncoder`.
        heads: The head that was measured for each of what `MultimodalEncoder` can score.
        training: How it was made (command, seed, metrics), as JSON types.

    Returns:
        The path of the `.json` file, to give to `load_backbone`.
    """
    card = {
        "format": FORMAT,
        "backbone": backbone.config.to_dict(),
        "temperatures": None if temperatures is None else dict(temperatures),
        "heads": {stream: head_config(head) for stream, head in (heads or {}).items()},
        "training": dict(training or {}),
    }
    return write_card(path, card, backbone)


def load_backbone(
    name: str | Path, *, stream: Scored = "episode", device: str | torch.device | None = None
) -> MultimodalEncoder:
    """Loads a backbone as an encoder.

    Args:
        name: A shipped backbone, or the `.json` file that `save_backbone` wrote.
        stream: What is scored; see `MultimodalEncoder`.
        device: A CUDA device if there is one, else the CPU, if None.

    Raises:
        ValueError: If the name is unknown (the message suggests the nearest), or the stream is.
        CheckpointError: If the files cannot be read or belong to another model.
    """
    name = str(name)
    if name in shipped_backbones():
        path = _ASSETS / f"{name}.json"
    elif name.endswith(".json"):
        path = Path(name)
    else:
        near = difflib.get_close_matches(name, shipped_backbones(), n=3, cutoff=0.4)
        hint = f" Did you mean {' or '.join(map(repr, near))}?" if near else ""
        raise ValueError(
            f"unknown backbone {name!r}.{hint} Known are {shipped_backbones()}, and the .json "
            "files that save_backbone wrote"
        )
    keys = ("backbone", "temperatures", "heads", "training")
    card = read_card(path, keys, FORMAT, written_by="save_backbone")
    config = BackboneConfig.from_dict(card["backbone"])
    backbone = MultimodalBackbone(config, torch.Generator().manual_seed(0))
    weights = path.with_suffix(".safetensors")
    state = read_weights(weights)
    try:
        backbone.load_state_dict(state)
    except RuntimeError as error:
        raise misfit(weights, backbone, state) from error
    device = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    head = card["heads"].get(stream)
    return MultimodalEncoder(
        backbone.to(device),
        tokenizer_of(config),
        name=path.stem,
        stream=stream,
        temperatures=card["temperatures"],
        calibrated_head=head_from_config(head) if head else None,
        training=card["training"],
    )
