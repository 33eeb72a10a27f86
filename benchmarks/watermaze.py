"""Speed of the Watermaze: how many frames of 72×96 pixels one processor core steps and draws.

    python benchmarks/watermaze.py [--json]

The baseline is a Watermaze as one would write it for a single agent in NumPy, stepped in a loop; it
draws the same wall, without smoothing. Seconds are the processor's, of one thread.
"""

import argparse
import math
import time
from collections.abc import Callable
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from timing import interleaved, row, show

from vlmreward_envs.watermaze import WatermazeEnv, WatermazeTasks, WatermazeVectorEnv
from vlmreward_envs.watermaze.walls import wall_texture

NUM_TASKS = 1024
NUM_ROUNDS = 20


class PlainWatermaze(gym.Env[np.ndarray, int]):
    """A single Watermaze without batches: the baseline."""

    observation_space = gym.spaces.Box(0, 255, (72, 96, 3), np.uint8)
    action_space = gym.spaces.Discrete(8)
    turns = (0, 0, 0, 0, 1, -1, 1, -1)
    ways = (0, 8, 4, 12, None, None, 0, 0)

    def __init__(self, platform: tuple[float, float]) -> None:
        self.platform = platform
        self.wall = wall_texture().round().byte().numpy()
        self.to_right = (np.arange(96) - 47.5) / 48
        self.below_horizon = (np.arange(72)[:, None] - 35.5) / 48
        nearness = np.abs(self.below_horizon)[..., None] * 48 / 36
        sky = nearness * (112, 160, 214) + (1 - nearness) * (214, 228, 238)
        water = nearness * (24, 92, 118) + (1 - nearness) * (128, 190, 196)
        self.around = np.where(self.below_horizon[..., None] < 0, sky, water).astype(np.uint8)

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[np.ndarray, dict]:
        """Return to the middle."""
        super().reset(seed=seed)
        self.x = self.y = 0.0
        self.heading = int(self.np_random.integers(16))
        self.steps, self.paid = 0, False
        return self.draw(), {}

    def step(self, action: int) -> tuple[np.ndarray, float, bool, bool, dict]:
        """Turn and move."""
        self.heading = (self.heading + self.turns[action]) % 16
        way = self.ways[action]
        if way is not None:
            angle = (self.heading + way) * math.pi / 8
            self.x += 0.25 * math.cos(angle)
            self.y += 0.25 * math.sin(angle)
            shrink = min(1.0, 4.5 / max(math.hypot(self.x, self.y), 1e-9))
            self.x, self.y = self.x * shrink, self.y * shrink
        self.steps += 1
        is_on = math.hypot(self.x - self.platform[0], self.y - self.platform[1]) <= 0.6
        reward = float(is_on and not self.paid)
        self.paid = self.paid or is_on
        return self.draw(), reward, False, self.steps == 50, {}

    def draw(self) -> np.ndarray:
        """Cast 96 rays, and look every pixel up on the wall."""
        angle = self.heading * math.pi / 8
        ray_x = math.cos(angle) + self.to_right * math.sin(angle)
        ray_y = math.sin(angle) - self.to_right * math.cos(angle)
        along = self.x * ray_x + self.y * ray_y
        length = ray_x**2 + ray_y**2
        depth = np.sqrt(along**2 + (25 - self.x**2 - self.y**2) * length) - along
        depth /= length
        turn = np.arctan2(self.y + depth * ray_y, self.x + depth * ray_x) / (2 * math.pi)
        place = (turn % 1 * 576).astype(np.int64) % 576
        height = 1.2 - self.below_horizon * depth
        level = np.clip(height * 50, 0, 149).astype(np.int64)
        is_wall = (height >= 0) & (height < 3)
        return np.where(is_wall[..., None], self.wall[level, place], self.around)


def one_by_one(env: gym.Env[Any, Any], num_steps: int) -> Callable[[], int]:
    """Step a single environment, reset where an episode ends."""
    actions = np.random.default_rng(0).integers(8, size=num_steps).tolist()
    env.reset(seed=0)

    def work() -> int:
        for action in actions:
            _, _, terminated, truncated, _ = env.step(action)
            if terminated or truncated:
                env.reset()
        return num_steps

    return work


def together(num_tasks: int, num_steps: int) -> Callable[[], int]:
    """Step a batch of tasks, actions given as a tensor."""
    tasks = WatermazeTasks(torch.arange(num_tasks), torch.arange(num_tasks))
    generator = torch.Generator().manual_seed(0)
    actions = torch.randint(8, (num_steps, num_tasks), generator=generator).unbind()

    def work() -> int:
        for batch in actions:
            tasks.step(batch)
        return num_steps * num_tasks

    return work


def unseen(num_tasks: int) -> Callable[[], int]:
    """Step a batch of tasks for an episode without drawing anything, as an oracle may."""
    tasks = WatermazeTasks(torch.arange(num_tasks), torch.arange(num_tasks))

    def work() -> int:
        tasks.begin_episode(0)
        for _ in range(tasks.episode_length):
            tasks.advance(tasks.optimal_actions())
        return tasks.episode_length * num_tasks

    return work


def as_vector_env(num_envs: int, num_steps: int) -> Callable[[], int]:
    """Step a Gymnasium vector environment, actions given as an array."""
    envs = WatermazeVectorEnv(num_envs)
    actions = np.random.default_rng(0).integers(8, size=(num_steps, num_envs))
    envs.reset(seed=0)

    def work() -> int:
        for batch in actions:
            envs.step(batch)
        return num_steps * num_envs

    return work


def main() -> None:
    """Measure everything and print it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    as_json: bool = parser.parse_args().json
    torch.set_num_threads(1)
    baseline = "plain NumPy env in a loop"
    speeds = interleaved(
        {
            baseline: one_by_one(PlainWatermaze((3.0, 1.0)), 100),
            "WatermazeEnv, alone": one_by_one(WatermazeEnv(0), 100),
            "WatermazeTasks, 16": together(16, 20),
            "WatermazeTasks, 128": together(128, 5),
            f"WatermazeTasks, {NUM_TASKS}": together(NUM_TASKS, 2),
            f"WatermazeVectorEnv, {NUM_TASKS}": as_vector_env(NUM_TASKS, 2),
            f"WatermazeTasks, {NUM_TASKS}, oracle that draws no frame": unseen(NUM_TASKS),
        },
        NUM_ROUNDS,
        clock=time.process_time,
    )
    plain = speeds.pop(baseline)
    rows = [row(name, "frames/s", speed, baseline, plain) for name, speed in speeds.items()]
    show(rows, as_json=as_json)


if __name__ == "__main__":
    main()
