"""Turn the steps of a batch of source learners into learning histories.

Axis letters: ``N`` learners, ``O`` components of an observation.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from jaxtyping import Int
from torch import Tensor

from algdistill.histories.schema import LearningHistory
from algdistill.tasks import BatchedStep, TaskSpace

_STEPS_TURNED_AT_ONCE = 64


def smallest_unsigned(size: int) -> np.dtype[np.unsignedinteger]:
    """Smallest type that holds ``0 … size - 1`` without loss."""
    return np.min_scalar_type(size - 1)


class HistoryRecorder:
    """Collects what ``N`` learners do side by side, one call for each step.

    Args:
        space: Observation and action spaces of the tasks.
        task_ids: The task of each learner.
        num_steps: How many steps will be recorded of each learner.
        metadata: Kept with every history: algorithm, settings, seed, versions.
    """

    def __init__(
        self,
        space: TaskSpace,
        task_ids: Int[Tensor, " N"],
        num_steps: int,
        metadata: Mapping[str, object],
    ) -> None:
        self._space = space
        self._task_ids = task_ids.tolist()
        self._metadata = dict(metadata)
        self._num_recorded = 0
        shape = (len(self._task_ids), num_steps)
        self._observations = np.empty(
            (*shape, len(space.observation_sizes)), smallest_unsigned(max(space.observation_sizes))
        )
        self._actions = np.empty(shape, smallest_unsigned(space.num_actions))
        self._rewards, self._env_rewards = np.empty((2, *shape), np.float32)
        self._terminated, self._truncated = np.empty((2, *shape), np.bool_)
        # Steps come for all learners at once, and histories go one by one. Turning a few steps
        # around at a time stays within the processor's caches.
        self._columns = [
            *np.moveaxis(self._observations, -1, 0),
            self._actions,
            self._rewards,
            self._env_rewards,
            self._terminated,
            self._truncated,
        ]
        self._latest = [
            np.empty((_STEPS_TURNED_AT_ONCE, len(self._task_ids)), column.dtype)
            for column in self._columns
        ]

    def record(
        self, obs: Int[Tensor, "N O"], actions: Int[Tensor, " N"], result: BatchedStep
    ) -> None:
        """Add one step: the observation acted upon, the action, and what the action led to.

        Raises:
            RuntimeError: If all ``num_steps`` were recorded before.
        """
        if self._num_recorded == self._actions.shape[1]:
            raise RuntimeError(
                f"got step {self._num_recorded + 1}, expected {self._num_recorded} as announced: "
                "raise `num_steps` or stop"
            )
        values = (
            *obs.cpu().numpy().T,
            actions.cpu().numpy(),
            result.reward.cpu().numpy(),
            result.env_reward.cpu().numpy(),
            result.terminated.cpu().numpy(),
            result.truncated.cpu().numpy(),
        )
        row = self._num_recorded % _STEPS_TURNED_AT_ONCE
        for latest, value in zip(self._latest, values, strict=True):
            latest[row] = value
        self._num_recorded += 1
        if row + 1 == _STEPS_TURNED_AT_ONCE:
            self._turn(row + 1)

    def _turn(self, count: int) -> None:
        """Move the ``count`` latest steps to where each learner's own lie side by side."""
        steps = slice(self._num_recorded - count, self._num_recorded)
        for column, latest in zip(self._columns, self._latest, strict=True):
            column[:, steps] = latest[:count].T

    def histories(self) -> list[LearningHistory]:
        """One history for each learner, of the steps recorded so far.

        Raises:
            RuntimeError: If nothing was recorded.
        """
        if self._num_recorded == 0:
            raise RuntimeError("nothing was recorded: call `record` after each step")
        self._turn(self._num_recorded % _STEPS_TURNED_AT_ONCE)
        steps = slice(self._num_recorded)
        return [
            LearningHistory(
                self._space,
                task_id,
                self._observations[learner, steps],
                self._actions[learner, steps],
                self._rewards[learner, steps],
                self._env_rewards[learner, steps],
                self._terminated[learner, steps],
                self._truncated[learner, steps],
                self._metadata,
            )
            for learner, task_id in enumerate(self._task_ids)
        ]
