"""What an experiment needs of somebody else's environment: goals, frames, ground truth."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import gymnasium as gym
import numpy as np
from jaxtyping import Bool, Float, Int, UInt8
from numpy.typing import NDArray
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.vec_env import VecEnv

from vlmreward import Goal
from vlmreward.goal_source import GoalSource
from vlmreward.pretraining import CaptionSource

MakeEnv = Callable[[bool], gym.Env[Any, Any]]
"""Makes an environment whose episodes end on ground-truth success, or never before their time."""

MakeAgent = Callable[[VecEnv, int], BaseAlgorithm]
"""Makes an untrained agent for environments and a seed."""


@dataclass(frozen=True)
class LabelledFrames:
    """Frames, each with a goal and the ground truth of that goal.

    Attributes:
        frames: RGB, uint8 0–255.
        goal_index: Which goal each frame is judged by.
        env_reward: What the environment pays in that state.
        success: Is the goal true of the frame?

    Raises:
        ValueError: The columns have different lengths.
    """

    frames: UInt8[NDArray[Any], "B H W 3"]
    goal_index: Int[NDArray[Any], " B"]
    env_reward: Float[NDArray[Any], " B"]
    success: Bool[NDArray[Any], " B"]

    def __post_init__(self) -> None:
        lengths = {name: len(column) for name, column in vars(self).items()}
        if len(set(lengths.values())) != 1:
            raise ValueError(f"expected one row of each per frame, got {lengths}")


@dataclass(frozen=True)
class LanguageTask:
    """An environment, its goals in words, and the agents that shall learn them.

    Attributes:
        name: Of the results.
        title: A few words for people.
        goals: With a baseline where the reward is dense, with negatives where it is binary.
        pays: ``dense`` pays the best of several similarities at every step, and no episode ends
            early; ``binary`` pays 1 above a calibrated threshold, which ends the episode.
        captions: Frames and sentences that are true of them, from the environment's own state.
        labelled: Draws frames with the ground truth, half of them or so of achieved goals.
        make_env: Makes an environment: its observations have ``pixels`` and, where agents observe
            it, ``state``; its reward is the ground truth.
        agents: By the name of the algorithm.
        observes: The environment's own ``state``, or the encoder's ``embedding`` of the frame and
            of the goal.
        num_envs: Environments in a batch.
        goal_source: Draws or reads each episode's goal; ``None`` where there is one goal.
        limitations: What a reader should not conclude.
    """

    name: str
    title: str
    goals: tuple[Goal, ...]
    pays: Literal["dense", "binary"]
    captions: CaptionSource
    labelled: Callable[[int, np.random.Generator], LabelledFrames]
    make_env: MakeEnv
    agents: Mapping[str, MakeAgent]
    observes: Literal["state", "embedding"]
    num_envs: int
    goal_source: Callable[[int], GoalSource] | None = None
    limitations: tuple[str, ...] = ()
