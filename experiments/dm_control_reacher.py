"""dm_control's reacher from a sentence: a dm_env environment, through Shimmy.

python experiments/dm_control_reacher.py
"""

from typing import Any

import gymnasium as gym
import numpy as np
import shimmy
import torch
import tyro
from gymnasium.wrappers import FlattenObservation, TimeLimit
from stable_baselines3 import SAC
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.vec_env import VecEnv

from language_rewards import Options, Sizes, run_experiment
from language_task import LabelledFrames, LanguageTask
from vlmreward import Goal
from vlmreward.capture import FrameCapture
from vlmreward.pretraining import CaptionedFrames
from vlmreward.wrappers.capture import CaptureFrames

gym.register_envs(shimmy)

EPISODE_STEPS, REPEATS = 40, 4
FULL = Sizes(
    encoder_steps=800,
    encoder_frames=8192,
    labelled_frames=2048,
    agent_steps=12_000,
    agent_seeds=2,
    evaluation_episodes=40,
)
GOAL = Goal(
    "the tip of the arm touches the red ball",
    baseline_prompts=["an arm and a red ball"],
)
_SIZE = (64, 64)
_TOUCHES = 0.06  # metres between the tip and the ball's centre: the sum of both radii
_NEAR, _FAR = 0.12, 0.2
_BANDS = (
    (0.0, GOAL.prompts[0]),
    (_TOUCHES, "the tip of the arm is close to the red ball"),
    (_NEAR, "the tip of the arm is some way from the red ball"),
    (_FAR, "the tip of the arm is far from the red ball"),
)
_PROMPTS = [text for _, text in _BANDS]
# How far from the centre dm_control puts the ball, and how far the wrist bends.
_BALL_DISTANCE, _WRIST = (0.05, 0.2), np.deg2rad(160)


class Repeat(gym.Wrapper[Any, Any, Any, Any]):
    """Holds each action for several steps, and pays what the last one pays."""

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        """Take the action several times."""
        for _ in range(REPEATS):
            obs, reward, terminated, truncated, info = self.env.step(action)
            if terminated or truncated:
                break
        return obs, float(reward), terminated, truncated, info


def make_env(ends_on_success: bool = False) -> gym.Env[Any, Any]:
    """Make the reacher with frames from above; its reward is 1 while the tip touches the ball."""
    env = gym.make(
        "dm_control/reacher-easy-v0",
        render_mode="rgb_array",
        render_kwargs={"camera_id": 0, "height": _SIZE[0], "width": _SIZE[1]},
    )
    env = TimeLimit(Repeat(FlattenObservation(env)), EPISODE_STEPS)
    return CaptureFrames(env, FrameCapture(size=_SIZE, fast=True))


def captions(num_frames: int, rng: np.random.Generator) -> CaptionedFrames:
    """Draw arms and balls, and say how far apart they are."""
    distances, frames = _draw(num_frames, rng)
    bands = [_PROMPTS[_band(distance)] for distance in distances]
    others = [[text for text in _PROMPTS if text != band] for band in bands]
    return CaptionedFrames(
        torch.from_numpy(frames),
        [[band, "an arm and a red ball"] for band in bands],
        [[wrong, wrong] for wrong in others],
    )


def labelled(num_frames: int, rng: np.random.Generator) -> LabelledFrames:
    """Draw arms and balls, and say whether they touch."""
    distances, frames = _draw(num_frames, rng)
    touches = distances <= _TOUCHES
    return LabelledFrames(frames, np.zeros(num_frames, int), touches.astype(float), touches)


def _draw(num_frames: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Draw poses, in half of them with the ball moved near the tip; return distances and frames."""
    env = make_env()
    env.reset(seed=0)
    inner: Any = env.unwrapped
    physics = inner._env.physics
    distances, frames = [], []
    while len(frames) < num_frames:
        bearing, distance = rng.uniform(-np.pi, np.pi), rng.uniform(*_BALL_DISTANCE)
        ball = distance * np.array([np.cos(bearing), np.sin(bearing)])
        with physics.reset_context():
            physics.named.data.qpos["shoulder"] = rng.uniform(-np.pi, np.pi)
            physics.named.data.qpos["wrist"] = rng.uniform(-_WRIST, _WRIST)
            physics.named.model.geom_pos["target", :2] = ball
        if rng.random() < 0.5:
            ball = physics.named.data.geom_xpos["finger", :2] + rng.normal(0.0, 0.05, 2)
            if not _BALL_DISTANCE[0] <= np.linalg.norm(ball) <= _BALL_DISTANCE[1]:
                continue
            physics.named.model.geom_pos["target", :2] = ball
            physics.forward()
        distances.append(float(physics.finger_to_target_dist()))
        frames.append(np.asarray(env.render()))
    env.close()
    return np.array(distances), np.stack(frames)


def _band(distance: float) -> int:
    return int(np.searchsorted([nearest for nearest, _ in _BANDS], distance, side="right") - 1)


def _sac(envs: VecEnv, seed: int) -> BaseAlgorithm:
    return SAC(
        "MlpPolicy",
        envs,
        learning_rate=1e-3,
        buffer_size=20_000,
        learning_starts=400,
        batch_size=128,
        train_freq=4,
        gradient_steps=16,
        gamma=0.95,
        tau=0.01,
        policy_kwargs={"net_arch": [128, 128]},
        seed=seed,
        device="cpu",
    )


TASK = LanguageTask(
    name="dm_control_reacher",
    title="dm_control reacher",
    goals=(GOAL,),
    pays="dense",
    captions=captions,
    labelled=labelled,
    make_env=make_env,
    agents={"sac": _sac},
    observes="state",
    num_envs=4,
    limitations=(
        "Agents see the environment's state; only the reward comes from frames.",
        "Every action is held for four steps, and episodes last 3.2 seconds instead of 20.",
    ),
)

if __name__ == "__main__":
    run_experiment(TASK, tyro.cli(Options), FULL)
