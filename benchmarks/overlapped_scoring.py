"""What it brings to score later: larger batches, and an encoder that works beside the environments.

    python benchmarks/overlapped_scoring.py [--as-json]

SAC, which sees states, collects steps of MountainCarContinuous; frames of 400×600 pixels are for
the reward. The environments have one thread (or, with `--subprocesses`, a process each) and the
encoder has another, so that nothing can be faster than the slower of the two alone. The last row
learns as well. Every ratio is of two things that took turns in this run.
"""

import warnings
from collections.abc import Callable
from typing import Any

import gymnasium as gym
import numpy as np
import torch
import tyro
from gymnasium.wrappers import AddRenderObservation
from stable_baselines3 import SAC
from stable_baselines3.common.vec_env import DummyVecEnv, SubprocVecEnv, VecEnv, VecExtractDictObs
from timing import interleaved, row, show

from vlmreward import CosineHead, Goal, RewardModel, load_encoder
from vlmreward.guard import RewardDesignWarning
from vlmreward.wrappers.sb3 import VecVLMReward
from vlmreward.wrappers.sb3_deferred import DeferredReplayBuffer, DeferredVecVLMReward

GOAL = Goal("a car at the peak of the mountain, next to the yellow flag")
NEVER = 1_000_000_000
Work = Callable[[], int]


def make_env() -> gym.Env[Any, Any]:
    """Returns an environment that shows its state and its frame."""
    env = gym.make("MountainCarContinuous-v0", render_mode="rgb_array")
    return AddRenderObservation(env, render_only=False)


def sac(venv: VecEnv, num_steps: int, *, learns: bool = False) -> Work:
    """Collects steps, counted over all environments, and does as many gradient steps or none."""
    deferred = isinstance(venv, DeferredVecVLMReward)
    agent = SAC(
        "MlpPolicy",
        VecExtractDictObs(venv, "state"),
        learning_starts=0 if learns else NEVER,
        train_freq=64 // venv.num_envs,
        gradient_steps=64,
        buffer_size=100_000,
        replay_buffer_class=DeferredReplayBuffer if deferred else None,
        seed=0,
        device="cpu",
    )

    def work() -> int:
        before = agent.num_timesteps
        agent.learn(num_steps, reset_num_timesteps=before == 0)
        if isinstance(agent.replay_buffer, DeferredReplayBuffer):
            agent.replay_buffer.settle()
        return agent.num_timesteps - before

    return work


def encode(reward_model: RewardModel, frames: Any, batch_size: int) -> Work:
    """Scores frames that are there, some at a time."""

    def work() -> int:
        for begin in range(0, len(frames), batch_size):
            reward_model(frames[begin : begin + batch_size]).cpu()
        return len(frames)

    return work


def wait_for_each_batch(venv: VecEnv, reward_model: RewardModel, num_frames: int) -> Work:
    """Collects a batch of frames and scores it, while the environments wait."""
    venv.reset()

    def work() -> int:
        frames = []
        for _ in range(num_frames // venv.num_envs):
            actions = [venv.action_space.sample() for _ in range(venv.num_envs)]
            obs: Any = venv.step(np.array(actions))[0]
            frames.append(obs["pixels"])
        reward_model(np.concatenate(frames)).cpu()
        return num_frames

    return work


def main(
    *,
    encoder: str = "playroom",
    device: str | None = None,
    num_envs: int = 4,
    batch_size: int = 64,
    num_steps: int = 256,
    num_rounds: int = 4,
    num_threads: int = 1,
    subprocesses: bool = False,
    as_json: bool = False,
) -> None:
    """Measure and print.

    Args:
        encoder: The one shipped with this package, or an open_clip architecture.
        device: Of the encoder; a CUDA device if there is one, else the CPU.
        num_envs: Environments that step together.
        batch_size: Frames that are encoded together where rewards come later.
        num_steps: Of all environments together, in a round.
        num_rounds: How often each thing is done; the fastest counts.
        num_threads: Of torch, for the encoder and for SAC.
        subprocesses: Step each environment in a process of its own.
        as_json: Print one JSON object instead of a table.
    """
    torch.set_num_threads(num_threads)
    warnings.simplefilter("ignore", RewardDesignWarning)  # nobody minds what this agent learns
    pretrained = None if encoder == "playroom" else "random"
    reward_model = RewardModel(
        load_encoder(encoder, pretrained=pretrained, device=device), GOAL, CosineHead()
    )

    bases: list[VecEnv] = []

    def base() -> VecEnv:
        bases.append((SubprocVecEnv if subprocesses else DummyVecEnv)([make_env] * num_envs))
        return bases[-1]

    def now() -> VecEnv:
        return VecVLMReward(base(), reward_model)

    def later() -> VecEnv:
        return DeferredVecVLMReward(base(), reward_model, batch_size=batch_size)

    frames: Any = np.stack([make_env().reset(seed=seed)[0]["pixels"] for seed in range(batch_size)])
    speed = interleaved(
        {
            "small": encode(reward_model, frames, num_envs),
            "large": encode(reward_model, frames, batch_size),
            "envs": sac(base(), num_steps),
            "now": sac(now(), num_steps),
            "batches": wait_for_each_batch(base(), reward_model, batch_size),
            "later": sac(later(), num_steps),
            "learn now": sac(now(), num_steps, learns=True),
            "learn later": sac(later(), num_steps, learns=True),
        },
        num_rounds,
    )
    for venv in bases:
        venv.close()
    baseline = "VecVLMReward"
    show(
        [
            row(f"RewardModel, {batch_size} frames at a time", "frames/s", speed["large"],
                f"{num_envs} at a time", speed["small"]),
            row("environments alone", "steps/s", speed["envs"], baseline, speed["now"]),
            row("a batch at a time, nothing beside", "steps/s", speed["batches"],
                baseline, speed["now"]),
            row("DeferredVecVLMReward", "steps/s", speed["later"], baseline, speed["now"]),
            row("DeferredVecVLMReward, SAC learns", "steps/s", speed["learn later"],
                f"{baseline}, SAC learns", speed["learn now"]),
        ],
        as_json=as_json,
    )  # fmt: skip


if __name__ == "__main__":
    tyro.cli(main)
