"""Playroom speed: many rooms at once, drawing included.

    python benchmarks/playroom.py [--as-json]

The baseline is ``PlayroomEnv`` in SB3's ``DummyVecEnv``, as one would do without a batched version.
"""

import numpy as np
import torch
import tyro
from stable_baselines3.common.vec_env import DummyVecEnv
from timing import rate, row, show

from vlmreward_envs.playroom import PlayroomEnv, PlayroomRooms, PlayroomVectorEnv

NUM_SINGLE = 16


def main(num_rooms: int = 1024, num_threads: int = 2, as_json: bool = False) -> None:
    """Measure and print.

    Args:
        num_rooms: Rooms of the batched forms.
        num_threads: Of torch.
        as_json: Print one JSON object instead of a table.
    """
    torch.set_num_threads(num_threads)
    rng = np.random.default_rng(0)
    single = DummyVecEnv([PlayroomEnv for _ in range(NUM_SINGLE)])
    single.reset()
    rooms = PlayroomRooms(num_rooms)
    vector = PlayroomVectorEnv(num_rooms)
    vector.reset(seed=0)

    def step_single() -> int:
        single.step(rng.integers(7, size=NUM_SINGLE))
        return NUM_SINGLE

    def step_vector() -> int:
        vector.step(rng.integers(7, size=num_rooms))
        return num_rooms

    def step_tensors() -> int:
        rooms.step(torch.from_numpy(rng.integers(7, size=num_rooms)))
        return num_rooms

    def step_and_draw() -> int:
        rooms.render()
        return step_tensors()

    name = f"PlayroomEnv × {NUM_SINGLE} in DummyVecEnv"
    baseline = rate(step_single)
    measured = {
        f"PlayroomVectorEnv, {num_rooms} rooms": step_vector,
        f"PlayroomRooms, {num_rooms} rooms, step and draw": step_and_draw,
        f"PlayroomRooms, {num_rooms} rooms, step only": step_tensors,
    }
    rows = [row(key, "frames/s", rate(work), name, baseline) for key, work in measured.items()]
    show(rows, as_json=as_json)


if __name__ == "__main__":
    tyro.cli(main)
