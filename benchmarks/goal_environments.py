"""Speed of Playroom and Launcher: many at once, drawing included.

    python benchmarks/goal_environments.py [--as-json]

The baseline is one environment after the other in SB3's ``DummyVecEnv``, as one would do without a
batched version.
"""

from collections.abc import Iterator

import numpy as np
import torch
import tyro
from stable_baselines3.common.vec_env import DummyVecEnv
from timing import Row, rate, row, show

from vlmreward_envs.goal_env import GoalEnv
from vlmreward_envs.goal_tasks import AnyGoalTasks
from vlmreward_envs.goal_vector_env import GoalVectorEnv
from vlmreward_envs.launcher import Gesture, LauncherEnv, LauncherPhones, LauncherVectorEnv
from vlmreward_envs.playroom import Action, PlayroomEnv, PlayroomRooms, PlayroomVectorEnv

NUM_SINGLE = 16


def measure(
    single_env: type[GoalEnv], tasks: AnyGoalTasks, vector: GoalVectorEnv, num_actions: int
) -> Iterator[Row]:
    """Compare the batched forms of an environment with single ones."""
    rng = np.random.default_rng(0)
    single = DummyVecEnv([single_env for _ in range(NUM_SINGLE)])
    single.reset()
    vector.reset(seed=0)

    def step_single() -> int:
        single.step(rng.integers(num_actions, size=NUM_SINGLE))
        return NUM_SINGLE

    def step_vector() -> int:
        vector.step(rng.integers(num_actions, size=vector.num_envs))
        return vector.num_envs

    def step_tensors() -> int:
        tasks.step(torch.from_numpy(rng.integers(num_actions, size=tasks.num_envs)))
        return tasks.num_envs

    def step_and_draw() -> int:
        tasks.render()
        return step_tensors()

    name = f"{single_env.__name__} × {NUM_SINGLE} in DummyVecEnv"
    baseline = rate(step_single)
    tensors = type(tasks).__name__
    for title, work in {
        f"{type(vector).__name__}, {vector.num_envs} at once": step_vector,
        f"{tensors}, {tasks.num_envs} at once, step and draw": step_and_draw,
        f"{tensors}, {tasks.num_envs} at once, step only": step_tensors,
    }.items():
        yield row(title, "frames/s", rate(work), name, baseline)


def main(num_envs: int = 1024, num_threads: int = 2, as_json: bool = False) -> None:
    """Measure and print.

    Args:
        num_envs: Environments of the batched forms.
        num_threads: Of torch.
        as_json: Print one JSON object instead of a table.
    """
    torch.set_num_threads(num_threads)
    rows = [
        *measure(PlayroomEnv, PlayroomRooms(num_envs), PlayroomVectorEnv(num_envs), len(Action)),
        *measure(LauncherEnv, LauncherPhones(num_envs), LauncherVectorEnv(num_envs), len(Gesture)),
    ]
    show(rows, as_json=as_json)


if __name__ == "__main__":
    tyro.cli(main)
