"""Which frames of a step are encoded, before any is: the part of a stream that needs no encoder.

Axes: `N` environments, `S` rows in which an episode starts.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from jaxtyping import Bool, Int64
from numpy.typing import NDArray

from vlmreward.encoders.base import require_modalities
from vlmreward.reward_model import GoalIndex, RewardModel
from vlmreward.windows import Rows, WaitingFrames

Obs: TypeAlias = Mapping[str, Any]
"""Batched modalities, of which the encoder reads its own."""

Flags: TypeAlias = Sequence[bool] | Bool[NDArray[Any], " N"] | None


@dataclass(frozen=True)
class PlannedStep:
    """One step of all environments that is not paid yet: what is to be encoded, and what for.

    Attributes:
        obs: Batches to encode: frames that waited, then those of this step, then those of resets.
        older: The environments of the frames that waited, each at most once in a layer.
        read: The environments whose frame of this step is encoded.
        due: Those among them that are scored now.
        terminated: Where the episode came to a true end.
        started: The environments in which the next episode has started.
        encodes_first: Whether the frames of their resets are encoded now.
        goal_index: What each environment was about in this step.
        first_goal_index: What each started episode is about.
    """

    obs: tuple[Obs, ...]
    older: tuple[Rows, ...]
    read: Rows
    due: Rows
    terminated: Bool[NDArray[Any], " N"]
    started: Rows
    encodes_first: bool
    goal_index: Int64[NDArray[Any], " N"]
    first_goal_index: Int64[NDArray[Any], " S"]

    @property
    def sizes(self) -> list[int]:
        """How many rows there are of frames that waited, of this step, and of resets."""
        num_first = len(self.started) if self.encodes_first else 0
        return [sum(map(len, self.older)), len(self.read), num_first]

    @property
    def num_rows(self) -> int:
        """How many rows are to be encoded; often none where scores are skipped."""
        return sum(self.sizes)


class StepPlanner:
    """Keeps the clocks, the goals and the waiting frames of several environments.

    Args:
        reward_model: Says by its `timing` when it scores, and from what.
        num_envs: N.
        goal_index: Which goal each environment is about at first.
        encode_all: Encode every frame, first frames included, whether or not its score is due.

    Attributes:
        goal_index: What each environment is about now. On the host: reading it must not wait for
            what a device still computes.
    """

    def __init__(
        self, reward_model: RewardModel, num_envs: int, goal_index: GoalIndex, *, encode_all: bool
    ) -> None:
        self.num_envs = num_envs
        self._reward_model = reward_model
        self._timing = reward_model.timing
        self._encode_all = encode_all
        self.goal_index = self._checked(goal_index, num_envs)
        # Where scores are skipped, frames of a window wait for the next one and go in its batch.
        self._waiting: WaitingFrames | None = None
        if self._timing.window > 1 and not encode_all:
            self._waiting = WaitingFrames(num_envs, self._timing.window)
        self._clock = np.zeros(num_envs, dtype=np.int64)

    @property
    def needs_first_frame(self) -> bool:
        """Whether the first observations of episodes must be given."""
        return self._encode_all or self._timing.needs_first_frame

    def plan(
        self,
        obs: Obs,
        *,
        terminated: Flags = None,
        truncated: Flags = None,
        stepped: Bool[NDArray[Any], " N"] | None = None,
        started: Sequence[int] = (),
        first_obs: Obs | None = None,
        goal_index: GoalIndex | None = None,
    ) -> PlannedStep:
        """Says what of a step of every environment must be encoded.

        Args:
            obs: What the actions led to: at the end of an episode its own last observation, never
                the next one's first.
            terminated: Where the episode came to a true end.
            truncated: Where it was cut off.
            stepped: False in rows that only reset in this step; all True if None.
            started: Rows in which the next episode has started already.
            first_obs: The first observations of those, one row each.
            goal_index: The goals of the started episodes; unchanged if None.

        Raises:
            MissingModalityError: If the encoder reads more than there is.
            ValueError: If first observations are needed and missing.
        """
        terminated, truncated, stepped = (
            np.full(self.num_envs, default) if mask is None else np.array(mask, dtype=bool)
            for mask, default in ((terminated, False), (truncated, False), (stepped, True))
        )
        self._clock += stepped
        due = self._due(terminated | truncated) & stepped
        read = np.flatnonzero(stepped if self._encode_all else due)
        seen = self._modalities(obs) if stepped.any() else {}
        older: list[Rows] = []
        parts: list[Obs] = []
        if self._waiting is not None:
            self._waiting.hold(np.flatnonzero(stepped & ~due), seen)
            older, parts = self._waiting.take(read)
        if len(read) == self.num_envs:
            parts.append(seen)
        elif len(read):
            parts.append({key: values[read] for key, values in seen.items()})

        rows = np.array(started, dtype=np.int64)
        goal_of_step = self.goal_index
        encodes_first = self._begin(rows, first_obs, goal_index, parts)
        return PlannedStep(
            obs=tuple(parts),
            older=tuple(older),
            read=read,
            due=np.flatnonzero(due),
            terminated=terminated,
            started=rows,
            encodes_first=encodes_first,
            goal_index=goal_of_step,
            first_goal_index=self.goal_index[rows],
        )

    def _checked(self, goal_index: GoalIndex, num_rows: int) -> Int64[NDArray[Any], " S"]:
        checked = self._reward_model.check_goal_index(goal_index, num_rows)
        return checked.cpu().numpy().copy()

    def _modalities(self, obs: Obs) -> Obs:
        return require_modalities(obs, self._reward_model.encoder)

    def _due(self, ended: Bool[NDArray[Any], " N"]) -> Bool[NDArray[Any], " N"]:
        every = self._timing.score_every
        return ended if every == "episode_end" else (self._clock % every == 0) | ended

    def _begin(
        self, rows: Rows, first_obs: Obs | None, goal_index: GoalIndex | None, parts: list[Obs]
    ) -> bool:
        """Begins episodes, and says whether their first frames, now in `parts`, are encoded now."""
        if not len(rows):
            return False
        self._clock[rows] = 0
        if goal_index is not None:
            changed = self.goal_index.copy()  # steps that are not paid yet keep theirs
            changed[rows] = self._checked(goal_index, len(rows))
            self.goal_index = changed
        if not self.needs_first_frame:
            return False
        if first_obs is None:
            raise ValueError(
                "this reward looks at the frame of the reset (see RewardTiming): expected "
                "first_obs, got none"
            )
        first = self._modalities(first_obs)
        if self._waiting is not None:
            self._waiting.drop(rows)
            if self._timing.discount is None:
                self._waiting.hold(rows, first, np.arange(len(rows)))
                return False
        parts.append(first)
        return True
