"""Calibrate a reward on frames, score frames with it, and evaluate it.

Frames come as an `.npz` with `pixels` (uint8 RGB `[N, H, W, 3]`) and, to evaluate or to calibrate,
`labels` (bool `[N]`: is the goal achieved?). Nothing in it is unpickled.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import numpy as np
import tyro
from jaxtyping import Float
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table
from tyro.conf import Positional

from vlmreward.encoders import load_encoder
from vlmreward.evaluation import (
    calibrate_for_false_positive_rate,
    calibrate_for_precision,
    calibrate_on_unlabelled,
    evaluate_reward,
    expected_calibration_error,
    roc_auc,
    similarities_of,
)
from vlmreward.frames import PIXELS
from vlmreward.goals import Goal
from vlmreward.heads import ThresholdHead
from vlmreward.prompts import hint
from vlmreward.reward_file import EncoderSource, load_reward, save_reward
from vlmreward.reward_model import RewardModel

_ROWS_AT_ONCE = 256
_SHIPPED = EncoderSource()


def score(
    reward: Positional[Path],
    frames: Positional[Path],
    *,
    goal_index: int = 0,
    as_json: bool = False,
) -> None:
    """Score frames with a reward that `calibrate` wrote.

    Args:
        reward: The reward, a `.json` file.
        frames: The frames, an `.npz` file.
        goal_index: Which of the reward's goals.
        as_json: Print one JSON object instead of a table.
    """
    model = load_reward(reward)
    scores, rewards = _score(model, _read(frames)[0], goal_index)
    if as_json:
        print(json.dumps({"score": scores.tolist(), "reward": rewards.tolist()}))
        return
    table = Table("frame", "score", "reward", title=model.goals[goal_index].prompts[0])
    for index, (value, paid) in enumerate(zip(scores, rewards, strict=True)):
        table.add_row(str(index), f"{value:.4f}", f"{paid:g}")
    Console().print(table)


def evaluate(
    reward: Positional[Path],
    frames: Positional[Path],
    *,
    goal_index: int = 0,
    num_resamples: int = 1000,
    seed: int = 0,
    as_json: bool = False,
) -> None:
    """Measure a reward on labelled frames that it was not calibrated on.

    Args:
        reward: The reward, a `.json` file.
        frames: The labelled frames, an `.npz` file.
        goal_index: Which of the reward's goals.
        num_resamples: Bootstrap resamples of the intervals.
        seed: Of the resamples.
        as_json: Print one JSON object instead of a table.
    """
    model = load_reward(reward)
    pixels, labels = _read(frames)
    labels = _require(labels, frames)
    scores, _ = _score(model, pixels, goal_index)
    if not isinstance(model.head, ThresholdHead):
        raise ValueError(f"expected a binary reward in {reward}, got {model.head}: calibrate one")
    accuracy = evaluate_reward(
        labels,
        scores,
        np.zeros(len(labels), dtype=np.int64),
        threshold=model.head.threshold,
        generator=np.random.default_rng(seed),
        num_resamples=num_resamples,
    )
    found = {name: value for name, value in accuracy.to_dict().items() if name != "per_goal"}
    found["roc_auc"] = roc_auc(labels, scores)
    if scores.min() >= 0 and scores.max() <= 1:
        error = expected_calibration_error(
            labels, scores, generator=np.random.default_rng(seed), num_resamples=num_resamples
        )
        found["expected_calibration_error"] = error.to_dict()
    if as_json:
        print(json.dumps(found))
        return
    table = Table("measure", "value", "95 % interval", title=model.goals[goal_index].prompts[0])
    for name, value in found.items():
        if isinstance(value, dict):
            table.add_row(name, f"{value['value']:.4f}", f"{value['low']:.4f}–{value['high']:.4f}")
        else:
            table.add_row(name, f"{value:.4f}", "")
    Console().print(table)


def calibrate(
    frames: Positional[Path],
    output: Positional[Path],
    *,
    goal: str,
    negatives: tuple[str, ...],
    encoder: EncoderSource = _SHIPPED,
    target: Literal["false_positive_rate", "precision"] = "false_positive_rate",
    value: float = 0.01,
    fit_temperature: bool = False,
    unlabelled: bool = False,
    seed: int = 0,
) -> None:
    """Choose temperature and threshold on frames, and write the reward.

    Args:
        frames: Labelled frames, or with `unlabelled` those of a random policy: an `.npz` file.
        output: Where to write the reward, a `.json` file.
        goal: The goal in words.
        negatives: What else a frame might show.
        encoder: Which encoder.
        target: What is promised.
        value: At most this false-positive rate, or at least this precision.
        fit_temperature: Fit the temperature to half of the frames; else the model's own.
        unlabelled: Take all frames as negatives.
        seed: Of the split into halves.
    """
    if (advice := hint(goal)) is not None:
        print(advice, file=sys.stderr)
    words = Goal(goal, negatives)
    pixels, labels = _read(frames)
    model = load_encoder(encoder.name, pretrained=encoder.pretrained, checkpoint=encoder.checkpoint)
    seen = similarities_of(model, words, pixels)
    temperature = None if fit_temperature else 1 / model.logit_scale
    if unlabelled:
        if temperature is None or target == "precision":
            raise ValueError(
                "unlabelled frames promise a false-positive rate at a given temperature: leave out "
                "--fit-temperature and --target precision"
            )
        found = calibrate_on_unlabelled(seen, value, temperature=temperature)
    else:
        by_precision = target == "precision"
        choose = calibrate_for_precision if by_precision else calibrate_for_false_positive_rate
        rng = np.random.default_rng(seed)
        labels = _require(labels, frames)
        found = choose(seen, labels, value, temperature=temperature, generator=rng)
    record = {**found.to_dict(), "frames": frames.name, "seed": seed}
    save_reward(output, encoder, words, found.head, calibration=record)
    print(f"{output}: threshold {found.head.threshold:.4f}, {found.guarantee}")


def main() -> None:
    """Run the command that was typed; errors of input end in one line."""
    commands: dict[str, Callable[..., Any]] = {
        "score": score,
        "evaluate": evaluate,
        "calibrate": calibrate,
    }
    try:
        tyro.extras.subcommand_cli_from_dict(commands, prog="vlmreward", description=__doc__)
    except (ValueError, TypeError, IndexError) as error:
        sys.exit(f"vlmreward: {error}")


def _read(path: Path) -> tuple[NDArray[Any], NDArray[Any] | None]:
    """Reads frames, and labels where there are any, as they are."""
    if not path.is_file():
        raise ValueError(f"expected frames in an .npz file, found none at {path}")
    try:
        with np.load(path, allow_pickle=False) as stored:
            arrays = {name: stored[name] for name in stored.files}
    except (OSError, ValueError, AttributeError) as error:
        raise ValueError(f"cannot read {path} as an .npz file of plain arrays: {error}") from error
    if PIXELS not in arrays:
        raise ValueError(f"expected an array {PIXELS!r} in {path}, got {sorted(arrays)}")
    return arrays[PIXELS], arrays.get("labels")


def _require(labels: NDArray[Any] | None, path: Path) -> NDArray[Any]:
    if labels is None:
        raise ValueError(f"expected an array 'labels' in {path}: whether each frame shows the goal")
    return labels


def _score(
    model: RewardModel, pixels: NDArray[Any], goal_index: int
) -> tuple[Float[NDArray[Any], " N"], Float[NDArray[Any], " N"]]:
    parts = [
        model.score(pixels[start : start + _ROWS_AT_ONCE], goal_index)
        for start in range(0, len(pixels), _ROWS_AT_ONCE)
    ]
    scores = np.concatenate([part.score.double().cpu().numpy() for part in parts])
    return scores, np.concatenate([part.reward.double().cpu().numpy() for part in parts])
