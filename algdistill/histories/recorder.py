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
        shape = (num_steps, len(self._task_ids))
        self._observations = np.empty(
            (*shape, len(space.observation_sizes)), smallest_unsigned(max(space.observation_sizes))
        )
        self._actions = np.empty(shape, smallest_unsigned(space.num_actions))
        self._rewards, self._env_rewards = np.empty((2, *shape), np.float32)
        self._terminated, self._truncated = np.empty((2, *shape), np.bool_)

    def record(
        self, obs: Int[Tensor, "N O"], actions: Int[Tensor, " N"], result: BatchedStep
    ) -> None:
        """Add one step: the observation acted upon, the action, and what the action led to.

        Raises:
            RuntimeError: If all ``num_steps`` were recorded before.
        """
        row = self._num_recorded
        if row == len(self._actions):
            raise RuntimeError(
                f"got step {row + 1}, expected {row} as announced: raise `num_steps` or stop"
            )
        self._observations[row] = obs.cpu().numpy()
        self._actions[row] = actions.cpu().numpy()
        self._rewards[row] = result.reward.cpu().numpy()
        self._env_rewards[row] = result.env_reward.cpu().numpy()
        self._terminated[row] = result.terminated.cpu().numpy()
        self._truncated[row] = result.truncated.cpu().numpy()
        self._num_recorded += 1

    def histories(self) -> list[LearningHistory]:
        """One history for each learner, of the steps recorded so far.

        Raises:
            RuntimeError: If nothing was recorded.
        """
        if self._num_recorded == 0:
            raise RuntimeError("nothing was recorded: call `record` after each step")
        rows = slice(self._num_recorded)
        columns = {
            "observations": self._observations,
            "actions": self._actions,
            "rewards": self._rewards,
            "env_rewards": self._env_rewards,
            "terminated": self._terminated,
            "truncated": self._truncated,
        }
        by_learner = {
            name: np.ascontiguousarray(column[rows].swapaxes(0, 1))
            for name, column in columns.items()
        }
        return [
            LearningHistory(
                space=self._space,
                task_id=task_id,
                metadata=self._metadata,
                **{name: column[learner] for name, column in by_learner.items()},
            )
            for learner, task_id in enumerate(self._task_ids)
        ]
