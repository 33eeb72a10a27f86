"""Turn the steps of a batch of source learners into learning histories.

Axis letters: ``N`` learners, ``*obs`` and ``*action`` the shapes of an observation and an action.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from jaxtyping import Int, Shaped
from torch import Tensor

from algdistill.histories.schema import LearningHistory
from algdistill.tasks import BatchedStep, TaskSpace

_STEPS_TURNED_AT_ONCE = 64


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
        self._observations, self._actions = (
            np.empty((*shape, *part.shape), part.stored_dtype)
            for part in (space.observations, space.actions)
        )
        self._rewards, self._env_rewards = np.empty((2, *shape), np.float32)
        self._terminated, self._truncated = np.empty((2, *shape), np.bool_)
        # Steps come for all learners at once, and histories go one by one. Turning a few steps
        # around at a time stays within the processor's caches.
        self._columns = [
            *_components(self._observations, start=2),
            *_components(self._actions, start=2),
            self._rewards,
            self._env_rewards,
            self._terminated,
            self._truncated,
        ]
        self._latest = [
            np.empty((_STEPS_TURNED_AT_ONCE, len(self._task_ids), *column.shape[2:]), column.dtype)
            for column in self._columns
        ]

    def record(
        self,
        obs: Shaped[Tensor, " N *obs"],
        actions: Shaped[Tensor, " N *action"],
        result: BatchedStep,
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
            *_components(obs.cpu().numpy(), start=1),
            *_components(actions.cpu().numpy(), start=1),
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
            column[:, steps] = np.swapaxes(latest[:count], 0, 1)

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


def _components(values: np.ndarray, *, start: int) -> list[np.ndarray]:
    """The components of a short vector, which turn faster one by one; anything else as it is."""
    is_vector = values.ndim == start + 1
    return list(np.moveaxis(values, -1, 0)) if is_vector else [values]
