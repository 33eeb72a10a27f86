"""Frames scored a second: the shipped encoder and the reward around it, against ViT-B-32.

    python benchmarks/encoder.py [--as-json]

ViT-B-32 has random weights here; they do not change its speed.
"""

import numpy as np
import torch
import tyro
from timing import rate, row, show

from vlmreward import RewardModel, goals_from_prompts, load_encoder

PROMPTS = [f"the person is holding the {colour} ball" for colour in ("red", "green", "blue")]


def main(batch_size: int = 256, num_threads: int = 2, as_json: bool = False) -> None:
    """Measure and print.

    Args:
        batch_size: Frames per call for the shipped encoder; an eighth for ViT-B-32.
        num_threads: Of torch.
        as_json: Print one JSON object instead of a table.
    """
    torch.set_num_threads(num_threads)
    frames = np.random.default_rng(0).integers(0, 256, (batch_size, 96, 96, 3), dtype=np.uint8)
    few = frames[: max(1, batch_size // 8)]
    shipped = load_encoder("playroom", device="cpu")
    large = load_encoder("ViT-B-32", pretrained="random", device="cpu")
    reward_model = RewardModel(shipped, goals_from_prompts(PROMPTS))

    def score_large() -> int:
        return len(large.encode_obs({"pixels": few}))

    def score_shipped() -> int:
        return len(shipped.encode_obs({"pixels": frames}))

    def score_reward() -> int:
        return len(reward_model(frames))

    baseline = "ViT-B-32, random weights"
    baseline_rate = rate(score_large, 4.0)
    measured = {"playroom encoder": score_shipped, "RewardModel around it": score_reward}
    show(
        [
            row(name, "frames/s", rate(work, 4.0), baseline, baseline_rate)
            for name, work in measured.items()
        ],
        as_json=as_json,
    )


if __name__ == "__main__":
    tyro.cli(main)
