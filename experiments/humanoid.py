"""MuJoCo's humanoid from a sentence, after VLM-RM (2024): a short run of SAC.

    python experiments/humanoid.py

As in the paper, episodes last 100 steps and a fall does not end them. The paper trains for ten
million steps; this run shows that the parts work together, not what SAC can reach.
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
from vlmreward.frames import PIXELS
from vlmreward.pretraining import CaptionedFrames
from vlmreward.wrappers.capture import CaptureFrames

EPISODE_STEPS = 100
FULL = Sizes(
    encoder_steps=600,
    encoder_frames=6144,
    labelled_frames=1024,
    agent_steps=16_000,
    agent_seeds=2,
    evaluation_episodes=40,
)
GOAL = Goal("a humanoid robot standing up", baseline_prompts=["a humanoid robot"])
_CAPTURE = FrameCapture(size=(64, 64), fast=True)
_HEALTHY_HEIGHT = 1.0  # metres of the torso above the ground; below it Humanoid-v5 is unhealthy
_POSTURES = (
    (0.0, "a humanoid robot lying on the ground"),
    (0.35, "a humanoid robot sitting on the ground"),
    (0.7, "a humanoid robot falling over"),
    (_HEALTHY_HEIGHT, GOAL.prompts[0]),
)
_PROMPTS = [text for _, text in _POSTURES]
_STRENGTHS = (0.02, 0.1, 0.4)  # of random actions; the weaker, the longer the humanoid stands
_FIELD_OF_VIEW = 22.0  # degrees of the camera, so that the humanoid fills the frame


class Standing(gym.Wrapper[Any, Any, Any, Any]):
    """The humanoid, paid 1 for every step that Humanoid-v5 calls healthy."""

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        """Step; the environment's own reward for walking forward is left out."""
        obs, _, terminated, truncated, info = self.env.step(action)
        healthy: Any = self.unwrapped
        return obs, float(healthy.is_healthy), terminated, truncated, info


def make_env(ends_on_success: bool = False) -> gym.Env[Any, Any]:
    """Make the humanoid with frames of a camera that looks along with it."""
    env = gym.make(
        "Humanoid-v5",
        render_mode="rgb_array",
        terminate_when_unhealthy=False,
        max_episode_steps=EPISODE_STEPS,
        camera_name="track",
    )
    humanoid: Any = env.unwrapped
    humanoid.model.cam_fovy[:] = _FIELD_OF_VIEW
    return CaptureFrames(Standing(env), _CAPTURE)


def captions(num_frames: int, rng: np.random.Generator) -> CaptionedFrames:
    """Draw humanoids, and say how they stand or lie."""
    heights, frames = _draw(num_frames, rng)
    postures = [_PROMPTS[_posture(height)] for height in heights]
    others = [[text for text in _PROMPTS if text != posture] for posture in postures]
    return CaptionedFrames(
        torch.from_numpy(frames),
        [[posture, "a humanoid robot"] for posture in postures],
        [[wrong, wrong] for wrong in others],
    )


def labelled(num_frames: int, rng: np.random.Generator) -> LabelledFrames:
    """Draw humanoids, and say whether they stand."""
    heights, frames = _draw(num_frames, rng)
    stands = heights > _HEALTHY_HEIGHT
    return LabelledFrames(frames, np.zeros(num_frames, int), stands.astype(float), stands)


def _draw(num_frames: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Let random actions of several strengths act; return torso heights, and frames."""
    env = make_env()
    humanoid: Any = env.unwrapped
    heights: list[float] = []
    frames: list[np.ndarray] = []
    while len(frames) < num_frames:
        obs, _ = env.reset(seed=int(rng.integers(2**31)))
        strength = _STRENGTHS[rng.integers(len(_STRENGTHS))]
        for _ in range(EPISODE_STEPS):
            action = rng.uniform(-strength, strength, env.action_space.shape)
            obs, *_ = env.step(action.astype(np.float32))
            heights.append(float(humanoid.data.qpos[2]))
            frames.append(obs[PIXELS])
    env.close()
    chosen = rng.permutation(len(frames))[:num_frames]
    return np.array(heights)[chosen], np.stack(frames)[chosen]


def _posture(height: float) -> int:
    return int(np.searchsorted([lowest for lowest, _ in _POSTURES], height, side="right") - 1)


def _sac(envs: VecEnv, seed: int) -> BaseAlgorithm:
    return SAC(
        "MlpPolicy",
        envs,
        learning_rate=6e-4,
        buffer_size=50_000,
        learning_starts=1000,
        batch_size=256,
        train_freq=4,
        gradient_steps=8,
        gamma=0.95,
        tau=0.005,
        seed=seed,
        device="cpu",
    )


TASK = LanguageTask(
    name="humanoid",
    title="MuJoCo Humanoid",
    goals=(GOAL,),
    pays="dense",
    captions=captions,
    labelled=labelled,
    make_env=make_env,
    agents={"sac": _sac},
    observes="state",
    num_envs=4,
    limitations=(
        "A short run: VLM-RM trains for 10 million steps.",
        "Agents see the environment's state; only the reward comes from frames, as in VLM-RM.",
    ),
)

if __name__ == "__main__":
    run_experiment(TASK, tyro.cli(Options), FULL)
