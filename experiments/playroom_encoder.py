"""Train the Playroom encoder that ships with `vlmreward`, calibrate it, and measure it.

    python experiments/playroom_encoder.py --run-name encoder

Goes on where it was killed. Ends with ``runs/<run-name>/playroom.{json,safetensors}``, the two
files that ship as ``vlmreward/assets/playroom.*``.
"""

import copy
import json
import shlex
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
import tyro
from numpy.typing import NDArray

from playroom_domain import HELD_OUT_KINDS, PlayroomCaptions, labelled_scores
from vlmreward import SoftmaxHead, ThresholdHead
from vlmreward.encoders import OpenCLIPEncoder, build_tokenizer, load_encoder, save_encoder
from vlmreward.evaluation import (
    average_precision,
    evaluate_reward,
    threshold_for_false_positive_rate,
)
from vlmreward.pretraining import PretrainConfig, pretrain

MODEL_CONFIG: dict[str, Any] = {
    "embed_dim": 256,
    "init_logit_scale": 3.0,
    "vision_cfg": {
        "timm_model_name": "patch_convnet",
        "timm_model_pretrained": False,
        "timm_pool": "catavgmax",
        "timm_proj": "",
        "image_size": 96,
    },
    "text_cfg": {
        "context_length": 16,
        "vocab_size": 49408,
        "width": 64,
        "heads": 4,
        "layers": 2,
    },
}
CALIBRATION_SEED, TEST_SEED = 1_000_001, 1_000_002


def main(
    run_name: str = "encoder",
    num_steps: int = 7000,
    seed: int = 0,
    false_positive_rate: float = 0.007,
    num_threads: int = 2,
) -> None:
    """Train, calibrate, measure and save the encoder.

    Args:
        run_name: Folder under ``runs/``.
        num_steps: Gradient steps of 128 frames.
        seed: Of the weights and of every batch.
        false_positive_rate: What the threshold is calibrated to, by split-conformal prediction on
            frames that are used for nothing else.
        num_threads: Of torch; another number gives other rounding, so other bytes.
    """
    torch.set_num_threads(num_threads)
    run_dir = Path("runs") / run_name
    config = PretrainConfig(
        num_steps=num_steps, batch_size=128, captions_per_frame=6, near_misses_per_caption=2,
        learning_rate=3e-3, seed=seed, checkpoint_interval=500, evaluation_interval=500,
    )  # fmt: skip
    model = pretrain(MODEL_CONFIG, PlayroomCaptions(), config, run_dir, evaluate=quick_metrics)

    # Calibrate and measure the half-precision weights that ship, not the ones just trained.
    path = save_encoder(model, MODEL_CONFIG, run_dir / "playroom")
    encoder = load_encoder(str(path), device="cpu")
    temperature = 1 / encoder.logit_scale
    calibration = labelled_scores(encoder, temperature, np.random.default_rng(CALIBRATION_SEED))
    threshold = threshold_for_false_positive_rate(
        calibration.scores[~calibration.labels], false_positive_rate
    )
    head = ThresholdHead(SoftmaxHead(temperature=temperature), threshold=threshold)
    metrics = measure(encoder, threshold)
    training = {
        "command": shlex.join(["python", *sys.argv]),
        "seed": seed,
        "num_frames": num_steps * config.batch_size,
        "num_threads": num_threads,
        "torch": torch.__version__,
        "held_out_kinds": list(HELD_OUT_KINDS),
        "calibrated_false_positive_rate": false_positive_rate,
        "metrics": metrics,
    }
    save_encoder(model, MODEL_CONFIG, run_dir / "playroom", head=head, training=training)
    print(json.dumps(training, indent=2))


def measure(encoder: OpenCLIPEncoder, threshold: float) -> dict[str, object]:
    """Measure an encoder on fresh frames, for named and held-out objects and each family."""
    rng = np.random.default_rng(TEST_SEED)
    test = labelled_scores(encoder, 1 / encoder.logit_scale, rng)
    groups = {
        "seen": ~test.is_held_out,
        "held_out": test.is_held_out,
        **{f"{name}_seen": (test.family == name) & ~test.is_held_out for name in test.families},
        **{f"{name}_held_out": (test.family == name) & test.is_held_out for name in test.families},
    }
    accuracy = {
        name: evaluate_reward(
            test.labels[rows],
            test.scores[rows],
            test.goal_index[rows],
            threshold=threshold,
            generator=np.random.default_rng(TEST_SEED),
        ).to_dict()
        for name, rows in groups.items()
    }
    return {
        name: {key: value for key, value in found.items() if key != "per_goal"}
        for name, found in accuracy.items()
    }


def quick_metrics(model: torch.nn.Module) -> dict[str, float]:
    """Measure the average precision of a model in training, on fewer frames."""
    tokenizer = build_tokenizer(MODEL_CONFIG)
    encoder = OpenCLIPEncoder(copy.deepcopy(model), tokenizer, name="in training")
    rng = np.random.default_rng(CALIBRATION_SEED)
    found = labelled_scores(encoder, 1 / encoder.logit_scale, rng, frames_per_goal=16)
    metrics = {}
    for family in found.families:
        for group, rows in (("seen", ~found.is_held_out), ("held_out", found.is_held_out)):
            chosen = rows & (found.family == family)
            metrics[f"ap_{family}_{group}"] = mean_average_precision(
                found.labels[chosen], found.scores[chosen], found.goal_index[chosen]
            )
    return metrics


def mean_average_precision(
    labels: NDArray[np.bool_], scores: NDArray[np.float64], goal_index: NDArray[np.int64]
) -> float:
    """Return the mean over goals with a positive frame of each goal's average precision."""
    goals = [goal for goal in np.unique(goal_index) if labels[goal_index == goal].any()]
    of_goal = [
        average_precision(labels[goal_index == goal], scores[goal_index == goal]) for goal in goals
    ]
    return float(np.mean(of_goal))


if __name__ == "__main__":
    tyro.cli(main)
