"""Rewards of Minari data sets.

Minari itself is not imported here: whoever has a data set has it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Protocol, runtime_checkable

import numpy as np

from vlmreward.frames import PIXELS, FrameError
from vlmreward.relabel.episodes import EpisodeRewards, relabel
from vlmreward.relabel.rows import goals_of_episodes
from vlmreward.reward_model import GoalIndex, RewardModel


@runtime_checkable
class EpisodeSource(Protocol):
    """What is needed of a `minari.MinariDataset`."""

    @property
    def total_episodes(self) -> int:
        """How many episodes there are."""

    def iterate_episodes(self) -> Iterable[Any]:
        """Goes through them; each is a `minari.EpisodeData`."""


def relabel_minari(
    dataset: EpisodeSource,
    reward_model: RewardModel,
    goal_index: GoalIndex = 0,
    *,
    batch_size: int = 1,
) -> Iterator[EpisodeRewards]:
    """Pays for the episodes of a Minari data set, one after the other.

    Observations are dicts with `pixels`, or frames themselves. Minari compresses frames to JPEG
    unless told not to (`jpeg_encoding=False`); what they then earn is not quite what was paid
    online.

    Args:
        dataset: A `minari.MinariDataset`.
        reward_model: Pays; its `timing` says when, and from how many frames.
        goal_index: One goal for all episodes, or one for each, in order.
        batch_size: Frames in a forward pass; see `relabel`.

    Returns:
        The rewards of each episode, worked out as they are asked for.

    Raises:
        FrameError: If the observations have no frames.
        IndexError: If a goal index is out of range.
        ValueError: If there is another number of goals than of episodes.
    """
    goals = goals_of_episodes(goal_index, int(dataset.total_episodes))
    return (
        relabel(
            _modalities(episode.observations),
            reward_model,
            goal,
            terminated=np.asarray(episode.terminations, dtype=bool),
            truncated=np.asarray(episode.truncations, dtype=bool),
            batch_size=batch_size,
        )
        for episode, goal in zip(dataset.iterate_episodes(), goals, strict=True)
    )


def _modalities(observations: Any) -> dict[str, Any]:
    """Returns an episode's observations as arrays by modality."""
    if isinstance(observations, Mapping):
        if PIXELS in observations:
            return {key: np.asarray(values) for key, values in observations.items()}
        raise FrameError(
            f"expected observations with {PIXELS!r}, got a data set with {sorted(observations)}: "
            "record it from an environment that shows its frames, such as one in "
            "gymnasium.wrappers.AddRenderObservation(env, render_only=False)"
        )
    return {PIXELS: np.asarray(observations)}
