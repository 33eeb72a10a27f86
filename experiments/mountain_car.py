"""MountainCar from a sentence, with the prompts and the algorithm of VLM-RM (2024).

    python experiments/mountain_car.py

Reaching the flag does not end an episode, so that neither the end nor its reward says where it is.
"""

from typing import Any

import gymnasium as gym
import numpy as np
import torch
import tyro
from stable_baselines3 import SAC
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.vec_env import VecEnv

from language_rewards import Options, Sizes, run_experiment
from language_task import LabelledFrames, LanguageTask
from vlmreward import Goal
from vlmreward.capture import FrameCapture
from vlmreward.pretraining import CaptionedFrames
from vlmreward.wrappers.capture import CaptureFrames

EPISODE_STEPS = 400
FULL = Sizes(
    encoder_steps=800,
    encoder_frames=8192,
    labelled_frames=2048,
    agent_steps=24_000,
    agent_seeds=3,
    evaluation_episodes=20,
)
GOAL = Goal(
    "a car at the peak of the mountain, next to the yellow flag",
    baseline_prompts=["a car in the mountain"],
)
_CAPTURE = FrameCapture(size=(64, 96))
_LEFT_END, _GOAL_POSITION, _RIGHT_END = -1.2, 0.45, 0.6
_VALLEY = -0.52
_PLACES = (
    (-1.2, "a car at the left end of the mountain"),
    (-1.0, "a car high on the left slope"),
    (-0.75, "a car low on the left slope"),
    (-0.6, "a car at the bottom of the valley"),
    (-0.4, "a car low on the right slope"),
    (-0.1, "a car half way up the right slope"),
    (0.2, "a car high on the right slope"),
    (_GOAL_POSITION, GOAL.prompts[0]),
)
_PROMPTS = [text for _, text in _PLACES]
# What is true of the flag is true of some way to it as well, so that the reward rises on the way.
_HEIGHTS = (0.15, 0.35, 0.55, 0.75)  # shares of the flag's height above the valley
_ABOVE = [f"a car more than {round(100 * share)} percent up the mountain" for share in _HEIGHTS]
_SIDES = ("a car on the left slope", "a car on the right slope")


class NeverEnding(gym.Wrapper[Any, Any, Any, Any]):
    """MountainCar that goes on at the flag, and pays 1 for every step there."""

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        """Step; what would have ended the episode is the reward instead."""
        obs, _, reached, truncated, info = self.env.step(action)
        return obs, float(reached), False, truncated, info


def make_env(ends_on_success: bool = False) -> gym.Env[Any, Any]:
    """Make MountainCar with frames; its reward is dense, so no success ends an episode."""
    env = gym.make(
        "MountainCarContinuous-v0", render_mode="rgb_array", max_episode_steps=EPISODE_STEPS
    )
    return CaptureFrames(NeverEnding(env), _CAPTURE)


def captions(num_frames: int, rng: np.random.Generator) -> CaptionedFrames:
    """Draw cars, and say where they are."""
    positions, frames = _draw(num_frames, rng)
    true = [_describe(position) for position in positions]
    every = {*_PROMPTS, *_ABOVE, *_SIDES}
    return CaptionedFrames(
        torch.from_numpy(frames),
        true,
        [[sorted(every - set(texts))] * len(texts) for texts in true],
    )


def labelled(num_frames: int, rng: np.random.Generator) -> LabelledFrames:
    """Draw cars, and say whether they are at the flag."""
    positions, frames = _draw(num_frames, rng)
    reached = positions >= _GOAL_POSITION
    return LabelledFrames(frames, np.zeros(num_frames, int), reached.astype(float), reached)


def _draw(num_frames: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Draw positions, a quarter of them at the flag, and their frames."""
    env = make_env()
    env.reset(seed=0)
    car: Any = env.unwrapped
    positions = np.where(
        rng.random(num_frames) < 0.25,
        rng.uniform(_GOAL_POSITION, _RIGHT_END, num_frames),
        rng.uniform(_LEFT_END, _RIGHT_END, num_frames),
    )
    frames = []
    for position in positions:
        car.state = np.array([position, 0.0])
        frames.append(_CAPTURE(car.render()))
    env.close()
    return positions, np.stack(frames)


def _describe(position: float) -> list[str]:
    """Return the sentences that are true of a position."""
    place = np.searchsorted([start for start, _ in _PLACES], position, side="right") - 1
    height = _height(position) / _height(_GOAL_POSITION)
    above = [text for share, text in zip(_HEIGHTS, _ABOVE, strict=True) if height > share]
    return [_PROMPTS[place], _SIDES[int(position > _VALLEY)], *above, "a car in the mountain"]


def _height(position: float) -> float:
    """Return the height above the valley; the mountain is a sine."""
    return float(np.sin(3 * position) - np.sin(3 * _VALLEY))


def _sac(envs: VecEnv, seed: int) -> BaseAlgorithm:
    return SAC(
        "MlpPolicy",
        envs,
        learning_rate=1e-3,
        buffer_size=50_000,
        learning_starts=1000,
        batch_size=128,
        ent_coef=0.1,
        train_freq=8,
        gradient_steps=32,
        gamma=0.995,
        tau=0.01,
        use_sde=True,
        use_sde_at_warmup=True,
        policy_kwargs={"log_std_init": 0.0, "net_arch": [64, 64]},
        seed=seed,
        device="cpu",
    )


TASK = LanguageTask(
    name="mountain_car",
    title="MountainCar",
    goals=(GOAL,),
    pays="dense",
    captions=captions,
    labelled=labelled,
    make_env=make_env,
    agents={"sac": _sac},
    observes="state",
    num_envs=4,
    limitations=(
        "Agents see the environment's state; only the reward comes from frames, as in VLM-RM.",
        "The true reward is 1 at the flag and 0 elsewhere: it says nothing on the way.",
    ),
)

if __name__ == "__main__":
    run_experiment(TASK, tyro.cli(Options), FULL)
