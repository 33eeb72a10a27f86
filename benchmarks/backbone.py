"""Live episodes of video and sound that are scored together, against real time.

    python benchmarks/backbone.py [--as-json]

The backbone has the size of the one that ships, and each of the memories. Weights are random; they
do not change the speed. A step is a frame of 96×96 pixels and 0.1 s of sound, so real time is ten
steps a second for each environment.
"""

import gc
import time
from dataclasses import dataclass, replace

import numpy as np
import torch
import tyro
from timing import rate, row, show
from torch import Tensor
from torch.nn import Parameter

from vlmreward.backbone import (
    MultimodalBackbone,
    MultimodalEncoder,
    load_backbone,
    tokenizer_of,
)

STEPS_PER_SECOND = 10
EARLY, LATE, TIMED = 100, 10_000, 200


def main(num_envs: int = 64, num_threads: int = 2, as_json: bool = False) -> None:
    """Measure and print.

    Args:
        num_envs: Live episodes.
        num_threads: Of torch.
        as_json: Print one JSON object instead of a table.
    """
    torch.set_num_threads(num_threads)
    rng = np.random.default_rng(0)
    obs = {
        "pixels": rng.integers(0, 256, (num_envs, 96, 96, 3), dtype=np.uint8),
        "audio": rng.uniform(-0.5, 0.5, (num_envs, 1600)).astype(np.float32),
    }
    shipped = load_backbone("playroom_sound", device="cpu").backbone.config
    rows = []
    for memory in ("mean", "transformer", "ttm"):
        config = replace(shipped, memory=memory)
        backbone = MultimodalBackbone(config, torch.Generator().manual_seed(0))
        encoder = MultimodalEncoder(backbone, tokenizer_of(config), name=memory)
        live, everyone = encoder.new_memory(num_envs), np.arange(num_envs)

        def score(encoder=encoder, live=live, everyone=everyone) -> int:
            return len(live.push(everyone, encoder.encode_step(obs)))

        rows.append(
            row(f"{memory} memory, {num_envs} episodes", "steps/s", rate(score, 4.0),
                "real time", float(STEPS_PER_SECOND * num_envs))
        )  # fmt: skip
        early, late = early_and_late(encoder, {key: value[:1] for key, value in obs.items()})
        name, baseline = f"{memory} memory, step {LATE:,}", f"step {EARLY}"
        rows.append(row(name, "ms/step", late.milliseconds, baseline, early.milliseconds))
        rows.append(row(name, "MB of tensors", late.megabytes, baseline, early.megabytes))
    show(rows, as_json=as_json)


@dataclass(frozen=True)
class Cost:
    """What an episode costs at one of its steps.

    Attributes:
        milliseconds: Of the step, the median of several.
        megabytes: Of all tensors of the process.
    """

    milliseconds: float
    megabytes: float


def early_and_late(encoder: MultimodalEncoder, obs: dict[str, np.ndarray]) -> tuple[Cost, Cost]:
    """Return the costs of two episodes, one early and one late in its own.

    They take turns in being timed, so that whatever else the machine is doing disturbs them alike.
    """
    features, first = encoder.encode_step(obs), np.array([0])
    episodes = [encoder.new_memory(1), encoder.new_memory(1)]
    megabytes = []
    for before, steps in ((0, EARLY), (EARLY, LATE)):
        for step in range(before, steps):
            episodes[1].push(first, features)
            if step < EARLY:
                episodes[0].push(first, features)
        megabytes.append(tensor_megabytes())
    milliseconds: list[list[float]] = [[], []]
    for _ in range(TIMED):
        for episode, times in zip(episodes, milliseconds, strict=True):
            began = time.perf_counter()
            episode.push(first, features)
            times.append(1000 * (time.perf_counter() - began))
    early, late = (
        Cost(float(np.median(times)), held)
        for times, held in zip(milliseconds, megabytes, strict=True)
    )
    return early, late


def tensor_megabytes() -> float:
    """Return what all tensors of the process take up together."""
    gc.collect()
    tensors = (found for found in gc.get_objects() if type(found) in (Tensor, Parameter))
    return sum(tensor.nbytes for tensor in tensors) / 1e6


if __name__ == "__main__":
    tyro.cli(main)
