"""Learning histories on disk: size, speed and memory, beside baselines measured in the same run.

    python benchmarks/histories.py [--steps 100_000_000] [--json]

Histories of Q-learners in Dark Rooms are appended over and over until the store has that many
steps. Appending and sampling each run in a process of their own, so that the memory of one is not
counted to the other. Seconds are the wall's, or the processor's where the unit says so. With
``--json`` one object ``{"rows": [...]}`` is printed.
"""

import argparse
import multiprocessing
import resource
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
import zarr
from algorithm_distillation import CONTEXT, collect
from timing import Row, rate, row, show

from algdistill.histories import (
    HistoryStore,
    LearningHistory,
    StoreWindowSampler,
    WindowSampler,
    WindowSource,
)
from algdistill.histories.quality import measure_quality
from algdistill.histories.schema import STEP_FIELDS

NUM_LEARNERS = 2560
NUM_EPISODES = 40
BLOCK_SIZE = 256
NUM_BLOCKS = 8
BATCH_SIZE = 64
Figures = dict[str, float]


def resident_bytes(*, peak: bool) -> float:
    """Memory of this process that is in RAM, now or at its most."""
    if peak:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024.0
    pages = Path("/proc/self/statm").read_text(encoding="ascii").split()[1]
    return int(pages) * float(resource.getpagesize())


def bytes_in_memory(history: LearningHistory) -> int:
    """Bytes of a history's arrays."""
    return sum(getattr(history, name).nbytes for name in STEP_FIELDS)


def append(folder: Path, num_steps: int) -> Figures:
    """Fill a store block by block; the last half must not need more memory than the first."""
    histories = collect(NUM_LEARNERS, NUM_EPISODES)
    steps_of_block = sum(len(history) for history in histories[:BLOCK_SIZE])
    store = HistoryStore.create(
        folder / "store",
        histories[0].space,
        num_steps=len(histories[0]),
        block_size=BLOCK_SIZE,
        reward_dtype="uint8",
    )
    num_blocks = max(2, -(-num_steps // steps_of_block))
    blocks = [histories[i : i + BLOCK_SIZE] for i in range(0, NUM_LEARNERS, BLOCK_SIZE)]
    half_way = 0.0
    wall, processor = time.perf_counter(), time.process_time()
    for number in range(num_blocks):
        store.append(blocks[number % len(blocks)])
        if number + 1 == num_blocks // 2:
            half_way = resident_bytes(peak=False)
    stored = num_blocks * steps_of_block
    wall, processor = time.perf_counter() - wall, time.process_time() - processor
    grown = resident_bytes(peak=False) - half_way

    def npz() -> int:
        arrays = {
            name: np.stack([getattr(history, name) for history in blocks[0]])
            for name in STEP_FIELDS
        }
        np.savez_compressed(folder / "block.npz", **arrays)
        return steps_of_block

    return {
        "steps": stored,
        "append": stored / wall,
        "append_processor": stored / processor,
        "npz": rate(npz),
        "npz_size": (folder / "block.npz").stat().st_size / steps_of_block,
        "size": sum(f.stat().st_size for f in (folder / "store").rglob("*") if f.is_file())
        / stored,
        "in_memory": bytes_in_memory(histories[0]) / len(histories[0]),
        "append_grown": grown,
        "append_peak": resident_bytes(peak=True),
    }


def draw(folder: Path, seconds: float) -> Figures:
    """Draw windows from the store, and from a few blocks of it in memory and window by window."""
    torch.set_num_threads(1)
    imported = resident_bytes(peak=False)
    store = HistoryStore.open(folder / "store")
    settings: dict[str, Any] = {"window_length": CONTEXT, "start_fraction": 0.2}

    def work(source: WindowSource) -> Callable[[], int]:
        def one_batch() -> int:
            return source.sample(BATCH_SIZE).actions.numel()

        return one_batch

    sampler = StoreWindowSampler(
        store, num_blocks=NUM_BLOCKS, generator=np.random.default_rng(0), **settings
    )
    figures: Figures = {}
    processor, wall = time.process_time(), time.perf_counter()
    figures["windows"] = rate(work(sampler), seconds)
    share = (time.process_time() - processor) / (time.perf_counter() - wall)
    figures["windows_processor"] = figures["windows"] / share
    figures["peak"] = resident_bytes(peak=True)
    figures["over_imports"] = figures["peak"] - imported
    few = store.read(0, min(len(store), NUM_BLOCKS * BLOCK_SIZE))
    figures["inside"] = rate(
        work(WindowSampler(few, generator=np.random.default_rng(0), **settings))
    )
    rewards = zarr.open_group(folder / "store", mode="r")["rewards"]
    assert isinstance(rewards, zarr.Array)
    rng = np.random.default_rng(0)

    def one_window() -> int:
        start = rng.integers(store.num_steps - CONTEXT)
        rewards[rng.integers(len(store)), start : start + CONTEXT]
        return CONTEXT

    figures["one_by_one"] = rate(one_window)
    return figures


def judge(folder: Path) -> Figures:
    """Measure the quality of all histories, and read them without looking at them."""
    store = HistoryStore.open(folder / "store")
    began = time.perf_counter()
    num_steps = sum(len(history) for block in store.blocks() for history in block)
    read = num_steps / (time.perf_counter() - began)
    began = time.perf_counter()
    measure_quality(store.blocks(), context_length=CONTEXT)
    judged = num_steps / (time.perf_counter() - began)
    return {"read": read, "judged": judged, "peak": resident_bytes(peak=True)}


def rows_of(made: Figures, drawn: Figures, judged: Figures) -> list[Row]:
    """Each figure beside its baseline."""
    size = f"{made['steps'] / 1e6:,.0f} M steps"
    mega = 1e6
    in_memory = made["in_memory"] * made["steps"] / mega
    everything = "all histories in memory, computed"
    zarr_windows = "one field, window by window from zarr"
    npz = "np.savez_compressed"
    return [
        row("store", "bytes/step", made["size"], npz, made["npz_size"]),
        row("store", "bytes/step", made["size"], "in memory", made["in_memory"]),
        row(f"appending {size}", "steps/s", made["append"], npz, made["npz"]),
        row(f"appending {size}", "steps/CPU-s", made["append_processor"], npz, made["npz"]),
        row("memory grown in the second half", "MB", made["append_grown"] / mega, everything,
            in_memory),
        row("peak of memory in appending", "MB", made["append_peak"] / mega, everything, in_memory),
        row(f"windows from {size}", "steps/s", drawn["windows"], zarr_windows,
            drawn["one_by_one"]),
        row(f"windows from {size}", "steps/s", drawn["windows"],
            f"WindowSampler of {NUM_BLOCKS} blocks in memory", drawn["inside"]),
        row(f"windows from {size}", "steps/CPU-s", drawn["windows_processor"], zarr_windows,
            drawn["one_by_one"]),
        row("peak of memory in sampling", "MB", drawn["peak"] / mega, everything, in_memory),
        row("of it, beside what imports take", "MB", drawn["over_imports"] / mega, everything,
            in_memory),
        row(f"quality of {size}", "steps/s", judged["judged"], "reading them", judged["read"]),
        row("peak of memory in judging quality", "MB", judged["peak"] / mega, everything,
            in_memory),
    ]  # fmt: skip


def main() -> None:
    """Measure everything and print it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=4_000_000, help="time steps of the store")
    parser.add_argument("--seconds", type=float, default=10.0, help="how long to draw windows")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    arguments = parser.parse_args()
    processes = multiprocessing.get_context("spawn")
    with tempfile.TemporaryDirectory() as folder:
        with processes.Pool(1) as pool:
            made = pool.apply(append, (Path(folder), arguments.steps))
        with processes.Pool(1) as pool:
            drawn = pool.apply(draw, (Path(folder), arguments.seconds))
        with processes.Pool(1) as pool:
            judged = pool.apply(judge, (Path(folder),))
    show(rows_of(made, drawn, judged), as_json=arguments.json)


if __name__ == "__main__":
    main()
