"""Save and load a model as one safetensors file that also holds its configuration."""

from __future__ import annotations

import json
import os
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from algdistill.models.config import ADTransformerConfig
from algdistill.models.transformer import ADTransformer

_FORMAT = "algdistill.ADTransformer/2"


class CheckpointError(ValueError):
    """A file that does not hold the model it should."""


def save_model(model: ADTransformer, path: Path) -> None:
    """Write the weights and the configuration; a kill leaves the old file or the new one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_suffix(path.suffix + ".partial")
    config = model.config.to_dict()
    weights = {name: tensor.contiguous() for name, tensor in model.state_dict().items()}
    save_file(weights, unfinished, {"format": _FORMAT, "config": json.dumps(config)})
    os.replace(unfinished, path)


def load_model(path: Path, device: torch.device | str = "cpu") -> ADTransformer:
    """Read a model that `save_model` wrote.

    Raises:
        FileNotFoundError: If there is no such file.
        CheckpointError: If the file is damaged, is something else, or its weights do not fit its
            configuration.
    """
    if not path.exists():
        raise FileNotFoundError(f"no checkpoint at {path}: train a model first")
    try:
        with safe_open(path, framework="pt", device=str(device)) as file:
            metadata = file.metadata() or {}
            weights = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except SafetensorError as error:
        raise CheckpointError(
            f"{path} is not a whole safetensors file ({error}): copy or train it again"
        ) from error
    if metadata.get("format") != _FORMAT:
        raise CheckpointError(
            f"{path} has format {metadata.get('format')!r}, expected {_FORMAT!r}: it was not "
            "written by `save_model` of this version"
        )
    config = ADTransformerConfig.from_dict(json.loads(metadata["config"]))
    model = ADTransformer(config, torch.Generator().manual_seed(0)).to(device)
    expected = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    found = {name: tuple(tensor.shape) for name, tensor in weights.items()}
    if found != expected:
        differing = sorted(set(found.items()) ^ set(expected.items()))
        names = sorted({name for name, _ in differing})
        raise CheckpointError(
            f"{path} does not fit its configuration; differing weights: "
            + ", ".join(
                f"{name} (got {found.get(name)}, expected {expected.get(name)})" for name in names
            )
        )
    model.load_state_dict(weights)
    return model
