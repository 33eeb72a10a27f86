"""Speed of the symbolic environments: thousands of tasks in one batch, on one thread.

    python benchmarks/dark_room.py [--json]

The baseline is a Dark Room as one would write it in plain Python, stepped in a loop.
"""

import argparse
from collections.abc import Callable
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from timing import interleaved, row, show

from vlmreward_envs.adversarial_bandit import AdversarialBanditTasks, draw_arm_probabilities
from vlmreward_envs.dark_room import (
    DARK_ROOM,
    DARK_ROOM_HARD,
    DarkRoomEnv,
    DarkRoomTasks,
    DarkRoomVectorEnv,
)
from vlmreward_envs.episodes import EpisodicTasks
from vlmreward_envs.key_to_door import DarkKeyToDoorTasks

NUM_TASKS = 2600
STEPS_PER_ROUND = 100  # whole episodes of every kind, and a few milliseconds
NUM_ROUNDS = 100


class PlainDarkRoom(gym.Env[np.ndarray, int]):
    """A single Dark Room without tensors: the baseline."""

    observation_space = gym.spaces.MultiDiscrete([9, 9])
    action_space = gym.spaces.Discrete(5)
    moves = ((0, 0), (-1, 0), (1, 0), (0, -1), (0, 1))

    def __init__(self, goal: tuple[int, int]) -> None:
        self.goal = goal

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[np.ndarray, dict]:
        """Return to the centre."""
        super().reset(seed=seed)
        self.x = self.y = 4
        self.steps = 0
        return np.array((self.x, self.y)), {}

    def step(self, action: int) -> tuple[np.ndarray, float, bool, bool, dict]:
        """Move."""
        dx, dy = self.moves[action]
        self.x = min(max(self.x + dx, 0), 8)
        self.y = min(max(self.y + dy, 0), 8)
        self.steps += 1
        reward = float((self.x, self.y) == self.goal)
        return np.array((self.x, self.y)), reward, False, self.steps == 20, {}


def one_by_one(env: gym.Env[Any, Any], num_steps: int) -> Callable[[], int]:
    """Step a single environment, reset where an episode ends."""
    actions = np.random.default_rng(0).integers(5, size=num_steps).tolist()
    env.reset(seed=0)

    def work() -> int:
        for action in actions:
            _, _, terminated, truncated, _ = env.step(action)
            if terminated or truncated:
                env.reset()
        return len(actions)

    return work


def together(tasks: EpisodicTasks) -> Callable[[], int]:
    """Step a batch of tasks, actions given as a tensor."""
    shape = (STEPS_PER_ROUND, tasks.num_tasks)
    actions = torch.randint(
        tasks.num_actions, shape, generator=torch.Generator().manual_seed(0)
    ).unbind()
    tasks.reset()

    def work() -> int:
        for batch in actions:
            tasks.step(batch)
        return STEPS_PER_ROUND * tasks.num_tasks

    return work


def as_vector_env(envs: DarkRoomVectorEnv) -> Callable[[], int]:
    """Step a Gymnasium vector environment, actions given as an array."""
    actions = np.random.default_rng(0).integers(5, size=(STEPS_PER_ROUND, envs.num_envs))
    envs.reset(seed=0)

    def work() -> int:
        for batch in actions:
            envs.step(batch)
        return STEPS_PER_ROUND * envs.num_envs

    return work


def main() -> None:
    """Measure everything and print it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    as_json: bool = parser.parse_args().json
    torch.set_num_threads(1)
    ids = torch.arange(NUM_TASKS)
    bandits = AdversarialBanditTasks(ids, ids, draw_arm_probabilities(ids))
    baseline = "plain Python env in a loop"
    speeds = interleaved(
        {
            baseline: one_by_one(PlainDarkRoom((7, 1)), 2000),
            "DarkRoomEnv, alone": one_by_one(DarkRoomEnv((7, 1)), 100),
            f"DarkRoomVectorEnv, {NUM_TASKS}": as_vector_env(DarkRoomVectorEnv(NUM_TASKS)),
            f"DarkRoomTasks, {NUM_TASKS}": together(DarkRoomTasks(ids % DARK_ROOM.num_tasks)),
            f"DarkRoomTasks, {NUM_TASKS}, Hard": together(
                DarkRoomTasks(ids % DARK_ROOM_HARD.num_tasks, DARK_ROOM_HARD)
            ),
            f"DarkKeyToDoorTasks, {NUM_TASKS}": together(DarkKeyToDoorTasks(ids, ids)),
            f"AdversarialBanditTasks, {NUM_TASKS}": together(bandits),
        },
        NUM_ROUNDS,
    )
    plain = speeds.pop(baseline)
    rows = [row(name, "steps/s", speed, baseline, plain) for name, speed in speeds.items()]
    show(rows, as_json=as_json)


if __name__ == "__main__":
    main()
