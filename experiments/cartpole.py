"""CartPole from a sentence, with the prompts of VLM-RM (Rocamonde et al. 2024).

    python experiments/cartpole.py

The pole's fall does not end an episode: an agent that is paid at every step would learn to balance
from that alone, whatever the sentence.
"""

import math
from typing import Any

import gymnasium as gym
import numpy as np
import torch
import tyro
from stable_baselines3 import A2C, DQN
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.vec_env import VecEnv

from language_rewards import Options, Sizes, run_experiment
from language_task import LabelledFrames, LanguageTask
from vlmreward import Goal
from vlmreward.capture import FrameCapture
from vlmreward.pretraining import CaptionedFrames
from vlmreward.wrappers.capture import CaptureFrames

EPISODE_STEPS = 200
FULL = Sizes(
    encoder_steps=800,
    encoder_frames=8192,
    labelled_frames=2048,
    agent_steps=30_000,
    agent_seeds=3,
    evaluation_episodes=40,
)
_CAPTURE = FrameCapture(size=(64, 96))
_FALLEN = math.radians(12)
_OFF_TRACK = 2.4

GOAL = Goal(
    "pole vertically upright on top of the cart",
    baseline_prompts=["pole and cart"],
)
_LEANS = (
    (3, "pole vertically upright on top of the cart"),
    (12, "pole leaning slightly to the {side}"),
    (35, "pole leaning far to the {side}"),
    (70, "pole falling to the {side}"),
    (110, "pole lying on the {side}"),
    (180, "pole hanging below the cart"),
)


class NeverEnding(gym.Wrapper[Any, Any, Any, Any]):
    """CartPole that goes on where the pole has fallen, and pays 1 exactly while it stands."""

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        """Step; what would have ended the episode costs the reward instead."""
        env: Any = self.unwrapped
        env.steps_beyond_terminated = None  # else CartPole warns of steps after the end
        obs, _, fallen, truncated, info = self.env.step(action)
        return obs, float(not fallen), False, truncated, info


def make_env(ends_on_success: bool = False) -> gym.Env[Any, Any]:
    """Make CartPole with frames; balancing has no success that could end an episode."""
    env = gym.make("CartPole-v1", render_mode="rgb_array", max_episode_steps=EPISODE_STEPS)
    return CaptureFrames(NeverEnding(env), _CAPTURE)


def captions(num_frames: int, rng: np.random.Generator) -> CaptionedFrames:
    """Draw carts and poles, and say how the pole leans and where the cart is."""
    states, frames = _draw(num_frames, rng)
    described = [_describe(position, angle) for position, _, angle, _ in states]
    return CaptionedFrames(
        torch.from_numpy(frames),
        [true for true, _ in described],
        [[wrong] * len(true) for true, wrong in described],
    )


def labelled(num_frames: int, rng: np.random.Generator) -> LabelledFrames:
    """Draw carts and poles, and say whether CartPole pays for them."""
    states, frames = _draw(num_frames, rng)
    stands = (np.abs(states[:, 0]) <= _OFF_TRACK) & (np.abs(states[:, 2]) <= _FALLEN)
    return LabelledFrames(frames, np.zeros(num_frames, int), stands.astype(float), stands)


def _draw(num_frames: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Draw states, half of them with the pole nearly upright, and their frames."""
    env = make_env()
    env.reset(seed=0)
    cart: Any = env.unwrapped
    near = rng.random(num_frames) < 0.5
    angle = np.where(near, rng.normal(0, 0.2, num_frames), rng.uniform(-np.pi, np.pi, num_frames))
    position = rng.uniform(-_OFF_TRACK, _OFF_TRACK, num_frames)
    states = np.stack([position, 0 * position, angle, 0 * angle], axis=1)
    frames = []
    for state in states:
        cart.state = state
        frames.append(_CAPTURE(cart.render()))
    env.close()
    return states, np.stack(frames)


def _describe(position: float, angle: float) -> tuple[list[str], list[str]]:
    """Return the sentences that are true of a state, and those that are not."""
    side = "right" if angle > 0 else "left"
    other = "left" if angle > 0 else "right"
    degrees = abs(math.degrees(angle))
    band = next(index for index, (limit, _) in enumerate(_LEANS) if degrees <= limit)
    lean = _LEANS[band][1].format(side=side)
    leans = {text.format(side=s) for _, text in _LEANS for s in (side, other)} - {lean}
    places = {"cart on the left": -2.4, "cart in the middle": -0.8, "cart on the right": 0.8}
    place = [name for name, start in places.items() if position >= start][-1]
    return [lean, "pole and cart", place], sorted(leans | (set(places) - {place}))


def _dqn(envs: VecEnv, seed: int) -> BaseAlgorithm:
    return DQN(
        "MlpPolicy",
        envs,
        learning_rate=2.3e-3,
        batch_size=64,
        buffer_size=50_000,
        learning_starts=1000,
        gamma=0.99,
        target_update_interval=10,
        train_freq=32,
        gradient_steps=128,
        exploration_fraction=0.16,
        exploration_final_eps=0.04,
        policy_kwargs={"net_arch": [256, 256]},
        seed=seed,
        device="cpu",
    )


def _a2c(envs: VecEnv, seed: int) -> BaseAlgorithm:
    return A2C("MlpPolicy", envs, n_steps=16, seed=seed, device="cpu")


TASK = LanguageTask(
    name="cartpole",
    title="CartPole",
    goals=(GOAL,),
    pays="dense",
    captions=captions,
    labelled=labelled,
    make_env=make_env,
    agents={"dqn": _dqn, "a2c": _a2c},
    observes="state",
    num_envs=8,
    limitations=(
        "Agents see the environment's state; only the reward comes from frames, as in VLM-RM.",
    ),
)

if __name__ == "__main__":
    run_experiment(TASK, tyro.cli(Options), FULL)
