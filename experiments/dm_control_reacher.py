"""dm_control's reacher from a sentence: a dm_env environment, through Shimmy.

    MUJOCO_GL=egl python experiments/dm_control_reacher.py

The camera is the task's own, above the arena. The ball hides a tip that is well inside it, so what
is seen of a reached goal is an arm that ends at the ball.
"""

from dataclasses import dataclass
from typing import Any

import gymnasium as gym
import numpy as np
import shimmy
import torch
import tyro
from dm_control import suite
from dm_control.mujoco.engine import Camera
from gymnasium.wrappers import FlattenObservation, TimeLimit
from stable_baselines3 import SAC
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.vec_env import VecEnv

from language_rewards import Options, Sizes, run_experiment
from language_task import LabelledFrames, LanguageTask
from vlmreward import Goal
from vlmreward.capture import FrameCapture
from vlmreward.pretraining import CaptionedFrames
from vlmreward.renderers import draw_fast, prepare_to_draw
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
_SCENE = "an arm and a red ball"
_TOUCHES = 0.06  # metres between the centres of tip and ball: the sum of both radii
_BANDS = (
    (0.0, "the tip of the arm touches the red ball"),
    (_TOUCHES, "the tip of the arm is close to the red ball"),
    (0.12, "the tip of the arm is some way from the red ball"),
    (0.24, "the tip of the arm is far from the red ball"),
)
_DISTANCES = [text for _, text in _BANDS]
# What looks like the goal and is not; told apart from it where the tip is clearly elsewhere.
_ELBOW = "the elbow of the arm touches the red ball, and its tip does not"
_ACROSS = "the red ball lies across the arm, away from its tip"
_CLEARLY_ELSEWHERE = 1.3 * _TOUCHES
GOALS = (
    Goal(
        _DISTANCES[0],
        negative_prompts=[*_DISTANCES[1:], _ELBOW, _ACROSS],
        baseline_prompts=[_SCENE],
    ),
)
_CORNERS = [f"{v} {h}" for v in ("bottom", "top") for h in ("left", "right")]
_BENDS = ((0.0, "straight"), (0.5, "bent"), (1.9, "folded"))  # radians of the wrist
_SIZE, _CAMERA = (64, 64), 0
_LINK, _BALL_RADIUS = 0.12, 0.05  # metres
# How far from the centre dm_control puts the ball, and how far the wrist bends. Arms that swing
# bend it a little further.
_BALL_DISTANCE, _WRIST, _FOLDED = (0.05, 0.2), np.deg2rad(160), (2.2, 3.0)


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
        render_kwargs={"camera_id": _CAMERA},
    )
    env = TimeLimit(Repeat(FlattenObservation(env)), EPISODE_STEPS)
    return CaptureFrames(env, FrameCapture(size=_SIZE, fast=True))


@dataclass(frozen=True)
class Poses:
    """Poses of the arm, and where the ball is: one row each, metres from the arm's base."""

    joints: np.ndarray
    ball: np.ndarray

    @property
    def elbow(self) -> np.ndarray:
        """Where the upper arm ends."""
        return _LINK * _direction(self.joints[:, 0])

    @property
    def tip(self) -> np.ndarray:
        """Where the arm ends."""
        return self.elbow + _LINK * _direction(self.joints.sum(axis=1))


def captions(num_frames: int, rng: np.random.Generator) -> CaptionedFrames:
    """Draw arms and balls, and say how they lie."""
    poses = draw_poses(num_frames, rng)
    frames, _ = draw_frames(poses)
    sentences = [
        _describe(*row)
        for row in zip(poses.elbow, poses.tip, poses.ball, np.abs(poses.joints[:, 1]), strict=True)
    ]
    return CaptionedFrames(
        torch.from_numpy(frames),
        [list(near_misses) for near_misses in sentences],
        [list(near_misses.values()) for near_misses in sentences],
    )


def labelled(num_frames: int, rng: np.random.Generator) -> LabelledFrames:
    """Draw arms and balls, and what dm_control pays for them."""
    frames, env_reward = draw_frames(draw_poses(num_frames, rng))
    return LabelledFrames(frames, np.zeros(num_frames, int), env_reward, env_reward > 0)


def draw_poses(num_frames: int, rng: np.random.Generator) -> Poses:
    """Draw poses, the ball at or near the tip in two of five, near the elbow in one of five."""
    joints, ball = np.zeros((num_frames, 2)), np.zeros((num_frames, 2))
    place = rng.choice(4, size=num_frames, p=(0.4, 0.2, 0.1, 0.3))
    is_folded = rng.random(num_frames) < 0.3
    todo = np.ones(num_frames, dtype=np.bool_)
    while todo.any():  # dm_control puts no ball too near the base, nor out of reach
        count = int(todo.sum())
        joints[todo] = rng.uniform(-1, 1, (count, 2)) * (np.pi, _WRIST)
        folds = rng.choice((-1, 1), count) * rng.uniform(*_FOLDED, count)
        joints[todo, 1] = np.where(is_folded[todo], folds, joints[todo, 1])
        arm = Poses(joints[todo], ball[todo])
        along = rng.uniform(0, 1.5, (count, 1))  # links from the base, short of the tip
        candidates = (
            arm.tip + _within(0, 2 * _TOUCHES, count, rng),
            arm.elbow + _within(0, 2 * _TOUCHES, count, rng),
            np.where(along < 1, along * arm.elbow, arm.elbow + (along - 1) * (arm.tip - arm.elbow)),
            _within(*_BALL_DISTANCE, count, rng),
        )
        ball[todo] = np.stack(candidates)[place[todo], np.arange(count)]
        distance = np.linalg.norm(ball, axis=1)
        todo = (distance < _BALL_DISTANCE[0]) | (distance > _BALL_DISTANCE[1])
    return Poses(joints, ball)


def draw_frames(poses: Poses) -> tuple[np.ndarray, np.ndarray]:
    """Return the frames ``[B, H, W, 3]`` of poses, and what dm_control pays in them ``[B]``."""
    environment = suite.load("reacher", "easy")
    draw_fast(environment)
    environment.reset()
    prepare_to_draw(environment)
    physics = environment.physics
    camera = Camera(physics, *_SIZE, _CAMERA)  # kept, it draws sooner than `physics.render`
    frames, env_reward = [], []
    for joints, ball in zip(poses.joints, poses.ball, strict=True):
        physics.data.qpos[:] = joints
        physics.named.model.geom_pos["target", :2] = ball
        physics.forward()
        frames.append(camera.render().copy())
        env_reward.append(environment.task.get_reward(physics))
    physics.free()
    return np.stack(frames), np.array(env_reward, dtype=np.float64)


def _describe(
    elbow: np.ndarray, tip: np.ndarray, ball: np.ndarray, bend: float
) -> dict[str, list[str]]:
    """Return what is true of a pose, and with each what is nearly true."""
    distance = float(np.linalg.norm(tip - ball))
    bends = [f"the arm is {name}" for _, name in _BENDS]
    found = (
        _one_of(_DISTANCES, _band(_BANDS, distance))
        | _one_of(bends, _band(_BENDS, bend))
        | _one_of([f"the red ball is at the {corner}" for corner in _CORNERS], _corner(ball))
        | _one_of([f"the tip of the arm is at the {corner}" for corner in _CORNERS], _corner(tip))
        | {_SCENE: []}
    )
    steps = np.linspace(0, 1, 20)[:, None]
    arm = np.concatenate([steps * elbow, elbow + steps * (tip - elbow)])
    confusions = {
        _ELBOW: np.linalg.norm(elbow - ball) <= _TOUCHES,
        _ACROSS: np.linalg.norm(arm - ball, axis=1).min() < 0.8 * _BALL_RADIUS,
    }
    for sentence, looks_like_it in confusions.items():
        if looks_like_it and distance > _CLEARLY_ELSEWHERE:
            found[sentence] = [_DISTANCES[0]]
        elif not looks_like_it or distance <= _TOUCHES:
            found[_DISTANCES[_band(_BANDS, distance)]].append(sentence)
    return found


def _one_of(sentences: list[str], index: int) -> dict[str, list[str]]:
    return {sentences[index]: [*sentences[:index], *sentences[index + 1 :]]}


def _band(bands: tuple[tuple[float, str], ...], value: float) -> int:
    """Return the last band that starts below a value; dm_control pays at the bound itself."""
    starts = [start for start, _ in bands]
    return max(0, int(np.searchsorted(starts, value, side="left")) - 1)


def _corner(place: np.ndarray) -> int:
    return 2 * int(place[1] > 0) + int(place[0] > 0)


def _within(nearest: float, farthest: float, count: int, rng: np.random.Generator) -> np.ndarray:
    bearing = rng.uniform(-np.pi, np.pi, count)
    return rng.uniform(nearest, farthest, (count, 1)) * _direction(bearing)


def _direction(angle: np.ndarray) -> np.ndarray:
    return np.stack([np.cos(angle), np.sin(angle)], axis=1)


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
    goals=GOALS,
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
        "The captions name the elbow since an agent trained without held its elbow to the ball.",
    ),
)

if __name__ == "__main__":
    run_experiment(TASK, tyro.cli(Options), FULL)
