"""A reward written down, so that a run can be repeated: encoder, goals, head and timing as JSON."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from vlmreward.encoders import load_encoder
from vlmreward.goals import Goal
from vlmreward.heads import Head, head_config, head_from_config
from vlmreward.reward_model import RewardModel
from vlmreward.timing import RewardTiming

FORMAT = 1


@dataclass(frozen=True)
class EncoderSource:
    """Where an encoder comes from: the arguments of `load_encoder` that decide its embeddings.

    Attributes:
        name: A shipped encoder, a saved one's path, a hub name, or an open_clip architecture.
        pretrained: open_clip's tag, for an architecture.
        checkpoint: A local file of weights, for an architecture.
    """

    name: str = "playroom"
    pretrained: str | None = None
    checkpoint: str | None = None


def save_reward(
    path: str | Path,
    encoder: EncoderSource,
    goals: Goal | tuple[Goal, ...],
    head: Head,
    *,
    timing: RewardTiming | None = None,
    calibration: Mapping[str, Any] | None = None,
) -> None:
    """Writes a reward as one JSON file, which appears whole or not at all.

    Args:
        path: The file.
        encoder: Where its encoder comes from; the weights stay there.
        goals: One goal, or several.
        head: Turns similarities into rewards.
        timing: When rewards are worked out; every step alone if None.
        calibration: How the head was chosen, for the record, as JSON types.

    Raises:
        ValueError: If a goal has images: they are no text.
        TypeError: If the head is none of this package's.
    """
    described = (goals,) if isinstance(goals, Goal) else goals
    for goal in described:
        if goal.images is not None:
            raise ValueError(f"{goal} has images, which a reward file does not hold: use prompts")
    card = {
        "format": FORMAT,
        "encoder": asdict(encoder),
        "goals": [goal.config() for goal in described],
        "head": head_config(head),
        "timing": (timing or RewardTiming()).config(),
        "calibration": dict(calibration or {}),
    }
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(path.name + ".part")
    part.write_text(json.dumps(card, indent=2) + "\n", encoding="utf-8")
    os.replace(part, path)


def load_reward(path: str | Path, *, device: str | torch.device | None = None) -> RewardModel:
    """Builds the reward model that `save_reward` wrote down.

    Args:
        path: The file.
        device: Of the encoder; see `load_encoder`.

    Raises:
        ValueError: If the file is missing, damaged, of another format, or names what does not
            exist.
        CheckpointError: If the encoder's weights cannot be read.
    """
    path = Path(path)
    if not path.is_file():
        raise ValueError(f"expected a reward written by save_reward, found none at {path}")
    try:
        card = json.loads(path.read_text(encoding="utf-8"))
        if card["format"] != FORMAT:
            raise ValueError(
                f"{path} has format {card['format']}, this version reads {FORMAT}: update vlmreward"
            )
        source = EncoderSource(**card["encoder"])
        goals = [Goal(**goal) for goal in card["goals"]]
        head, timing = head_from_config(card["head"]), RewardTiming(**card["timing"])
    except (json.JSONDecodeError, KeyError, TypeError) as error:
        raise ValueError(
            f"{path} is no reward written by save_reward ({type(error).__name__}: {error})"
        ) from error
    encoder = load_encoder(
        source.name, pretrained=source.pretrained, checkpoint=source.checkpoint, device=device
    )
    return RewardModel(encoder, goals, head, timing)
