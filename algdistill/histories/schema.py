"""What a learning history is: one whole training run on one task, episode after episode.

Row ``t`` holds the observation at step ``t``, the action taken on it, and what that action led to:
its reward, its ground-truth reward, and whether it ended the episode. Row ``t + 1`` holds the next
observation acted upon, which is a reset's when row ``t`` ended an episode; the observation an
episode ends in is never acted upon and is not stored.

Axis letters: ``T`` time steps, ``E`` episodes, ``*obs`` and ``*action`` the shapes of an
observation and of an action.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Bool, Float, Int, Shaped

from algdistill.tasks import TaskSpace

STEP_FIELDS = ("observations", "actions", "rewards", "env_rewards", "terminated", "truncated")


@dataclass(frozen=True, repr=False)
class LearningHistory:
    """One training run of one source learner on one task, lossless.

    Attributes:
        space: Observation and action spaces of the task.
        task_id: Which task; histories of equal id were learned on the same one.
        observations: What the learner saw.
        actions: What it did.
        rewards: What it was paid for that action.
        env_rewards: Ground truth beside ``rewards``; no learner and no model sees it.
        terminated: The action ended the episode by itself.
        truncated: A time limit ended the episode after the action.
        metadata: Where the history comes from: algorithm, settings, seed, versions.

    Raises:
        ValueError: If the lengths disagree, the history is empty, a value lies outside its space,
            or a reward is not finite.
    """

    space: TaskSpace
    task_id: int
    observations: Shaped[np.ndarray, " T *obs"]
    actions: Shaped[np.ndarray, " T *action"]
    rewards: Float[np.ndarray, " T"]
    env_rewards: Float[np.ndarray, " T"]
    terminated: Bool[np.ndarray, " T"]
    truncated: Bool[np.ndarray, " T"]
    metadata: Mapping[str, object] = field(default_factory=dict)

    def __post_init__(self) -> None:
        shapes = {
            "observations": (len(self), *self.space.observations.shape),
            "actions": (len(self), *self.space.actions.shape),
        }
        for name in STEP_FIELDS:
            shape, expected = getattr(self, name).shape, shapes.get(name, (len(self),))
            if shape != expected:
                raise ValueError(
                    f"got {name} of shape {shape}, expected {expected} for {len(self)} steps in "
                    f"{self.space}"
                )
        if len(self) == 0:
            raise ValueError("got a learning history of no steps, expected at least one")
        self.space.observations.check(self.observations)
        self.space.actions.check(self.actions)
        for name in ("rewards", "env_rewards"):
            if not np.isfinite(getattr(self, name)).all():
                raise ValueError(f"got {name} with NaN or infinity, expected finite numbers")

    def __len__(self) -> int:
        return len(self.observations)

    def __repr__(self) -> str:
        fields = ", ".join(
            f"{name}: {getattr(self, name).dtype}{list(getattr(self, name).shape)}"
            for name in ("observations", "actions", "rewards")
        )
        return (
            f"LearningHistory(task_id={self.task_id}, {len(self)} steps, "
            f"{len(self.episode_starts)} episodes, {fields})"
        )

    @property
    def episode_starts(self) -> Int[np.ndarray, " E"]:
        """Row of each episode's first step; the last of the ``E`` episodes may be unfinished."""
        ends = np.flatnonzero((self.terminated | self.truncated)[:-1])
        return np.concatenate([[0], ends + 1])

    @property
    def episode_returns(self) -> Float[np.ndarray, " E"]:
        """Sum of ``rewards`` over each episode."""
        return np.add.reduceat(self.rewards, self.episode_starts)

    @property
    def env_episode_returns(self) -> Float[np.ndarray, " E"]:
        """Sum of ``env_rewards`` over each episode."""
        return np.add.reduceat(self.env_rewards, self.episode_starts)

    def keep_every(self, interval: int) -> LearningHistory:
        """Keep whole episodes 0, ``interval``, ``2 * interval`` …, so that learning looks faster.

        Raises:
            ValueError: If ``interval < 1``.
        """
        if interval < 1:
            raise ValueError(f"got interval={interval}, expected at least 1")
        episode = np.zeros(len(self), dtype=np.int64)
        episode[self.episode_starts[1:]] = 1
        kept = np.cumsum(episode) % interval == 0
        return LearningHistory(
            self.space,
            self.task_id,
            self.observations[kept],
            self.actions[kept],
            self.rewards[kept],
            self.env_rewards[kept],
            self.terminated[kept],
            self.truncated[kept],
            {**self.metadata, "kept_every": interval},
        )
