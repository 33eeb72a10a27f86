"""Encoders by name: shipped with the package, saved by you, or known to open_clip."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypedDict

import open_clip
import torch

from vlmreward.encoders.cards import read_card, write_card
from vlmreward.encoders.open_clip import (
    CheckpointError,
    OpenCLIPEncoder,
    build_model,
    build_tokenizer,
    load_weights,
)
from vlmreward.encoders.precision import Precision, choose_precision
from vlmreward.heads import Head, head_config, head_from_config

FORMAT = 2
_ASSETS = Path(__file__).parents[1] / "assets"
_HUB = "hf-hub:"
_RANDOM = "random"


class _Speed(TypedDict):
    batch_size: int | None
    precision: Precision | None
    compile: bool


def shipped_encoders() -> list[str]:
    """Names the encoders whose weights are part of this package."""
    return sorted(path.stem for path in _ASSETS.glob("*.json"))


def load_encoder(
    name: str = "playroom",
    *,
    pretrained: str | None = None,
    checkpoint: str | Path | None = None,
    device: str | torch.device | None = None,
    batch_size: int | None = None,
    precision: Precision | None = None,
    compile: bool = False,
) -> OpenCLIPEncoder:
    """Loads an encoder.

    Args:
        name: One of these: a shipped encoder; the path of an encoder written by `save_encoder`
            (its `.json` file); `hf-hub:organisation/model`; an open_clip architecture, such as
            `ViT-B-32`, with `pretrained` or `checkpoint`.
        pretrained: open_clip's tag of the weights for this architecture, downloaded on first use,
            or `random` for random weights (for timing and for tests).
        checkpoint: A local file of weights for this architecture: safetensors, or a torch file
            that holds nothing but tensors. Frames are prepared as for its published weights.
        device: A CUDA device if there is one, else the CPU, if None.
        batch_size: How many frames go through the model at once, at most; see `OpenCLIPEncoder`.
        precision: Of the image tower; see `OpenCLIPEncoder`. Load an encoder that is to be saved
            again in fp32.
        compile: Whether to compile the image tower; see `OpenCLIPEncoder`.

    Raises:
        ValueError: If the name or the tag is unknown (the message suggests the nearest), or if an
            architecture comes without weights or with two kinds of them, or if the precision is
            unknown or not for the device.
        CheckpointError: If the weights cannot be read or belong to another model.
        ImportError: If the precision is int8 and torchao is not installed.
        RuntimeError: If the image tower is to be compiled and cannot be.
    """
    device = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    choose_precision(precision, device)  # before anything is downloaded
    speed = _Speed(batch_size=batch_size, precision=precision, compile=compile)
    is_saved = name in shipped_encoders() or name.endswith(".json")
    if is_saved or name.startswith(_HUB):
        if pretrained is not None or checkpoint is not None:
            raise ValueError(
                f"{name!r} brings its own weights: leave out `pretrained` and `checkpoint`, which "
                "belong to open_clip architectures"
            )
        if is_saved:
            return _load_saved(name, device, speed)
        model: Any = open_clip.create_model(name, device=device, require_pretrained=True)
        tokenizer = open_clip.get_tokenizer(name)
        return OpenCLIPEncoder(model, tokenizer, name=name, **speed)

    model_cfg = open_clip.get_model_config(name)
    if model_cfg is None:
        known = shipped_encoders() + open_clip.list_models()
        if (_ASSETS / "backbones" / f"{name}.json").exists():
            raise ValueError(
                f"{name!r} is a backbone: load it with vlmreward.backbone.load_backbone({name!r})"
            )
        raise ValueError(f"unknown encoder {name!r}.{_suggest(name, known)}")
    if (pretrained is None) == (checkpoint is None):
        given = "neither" if pretrained is None else "both"
        tags = open_clip.list_pretrained_tags_by_model(name)
        raise ValueError(
            f"expected either `pretrained` or `checkpoint` for architecture {name!r}, got {given}: "
            f"its tags are {tags}, and {_RANDOM!r} gives random weights"
        )
    if checkpoint is not None:
        model = build_model(model_cfg, preprocess_cfg=_published_preprocessing(name))
        load_weights(model, checkpoint)
        full_name = f"{name}/{Path(checkpoint).name}"
    else:
        assert pretrained is not None
        model = _create_pretrained(name, pretrained, model_cfg)
        full_name = f"{name}/{pretrained}"
    tokenizer = open_clip.get_tokenizer(name)
    return OpenCLIPEncoder(model.to(device), tokenizer, name=full_name, **speed)


def save_encoder(
    model: torch.nn.Module,
    model_cfg: Mapping[str, Any],
    path: str | Path,
    *,
    head: Head | None = None,
    training: Mapping[str, Any] | None = None,
) -> Path:
    """Writes an open_clip model as two files that `load_encoder` reads back.

    Weight matrices are stored in half precision; see `vlmreward.encoders.cards`.

    Args:
        model: The trained model.
        model_cfg: The configuration that it was built from; see `build_model`.
        path: Where to write, such as `runs/clip/encoder`: `.json` and `.safetensors` are added.
        head: The head, temperature and threshold in it, that was measured for it.
        training: How it was made (command, seed, metrics), as JSON types.

    Returns:
        The path of the `.json` file, to give to `load_encoder`.
    """
    card = {
        "format": FORMAT,
        "model_cfg": dict(model_cfg),
        "preprocess_cfg": dict(model.visual.preprocess_cfg),  # type: ignore[union-attr, arg-type]
        "head": head_config(head) if head else None,
        "training": dict(training or {}),
    }
    return write_card(path, card, model)


def _load_saved(name: str, device: torch.device, speed: _Speed) -> OpenCLIPEncoder:
    path = _ASSETS / f"{name}.json" if name in shipped_encoders() else Path(name)
    keys = ("model_cfg", "preprocess_cfg", "head", "training")
    card = read_card(path, keys, FORMAT, written_by="save_encoder")
    model_cfg = card["model_cfg"]
    model = build_model(model_cfg, preprocess_cfg=card["preprocess_cfg"])
    load_weights(model, path.with_suffix(".safetensors"))
    head = head_from_config(card["head"]) if card["head"] else None
    return OpenCLIPEncoder(
        model.to(device),
        build_tokenizer(model_cfg),
        name=path.stem,
        calibrated_head=head,
        training=card["training"],
        **speed,
    )


def _create_pretrained(name: str, pretrained: str, model_cfg: Mapping[str, Any]) -> Any:
    if pretrained == _RANDOM:
        return build_model(model_cfg, preprocess_cfg=_published_preprocessing(name))
    tags = open_clip.list_pretrained_tags_by_model(name)
    if pretrained not in tags:
        raise ValueError(
            f"unknown weights {pretrained!r} for architecture {name!r}."
            f"{_suggest(pretrained, tags)} Known are {tags}"
        )
    try:
        return open_clip.create_model(name, pretrained, require_pretrained=True)
    except RuntimeError as error:
        raise CheckpointError(
            f"the weights {pretrained!r} of {name!r} are not on this machine and could not be "
            f"downloaded ({error}): download them where there is a network, and pass the file as "
            f"`checkpoint` in place of `pretrained`"
        ) from error


def _published_preprocessing(name: str) -> dict[str, Any]:
    """Says how the published weights of an architecture want their frames.

    open_clip keeps this with the weights and not with the architecture, so that a local file, such
    as a SigLIP's, would be given another model's mean and resizing. Where the published weights
    disagree among themselves, or where there are none, it is open_clip's default.
    """
    keys = ("mean", "std", "interpolation", "resize_mode")
    published = [
        open_clip.get_pretrained_cfg(name, tag)
        for tag in open_clip.list_pretrained_tags_by_model(name)
    ]
    found = [{key: config[key] for key in keys if key in config} for config in published]
    agreed = bool(found) and all(one == found[0] for one in found)
    return found[0] if agreed else {}


def _suggest(name: str, known: list[str]) -> str:
    near = difflib.get_close_matches(name, known, n=3, cutoff=0.4)
    return f" Did you mean {' or '.join(map(repr, near))}?" if near else ""
