"""Rewards of one environment's frames, in the order in which they were seen.

Axes: `R` rows, each one frame: the frame of a reset, or one that an action led to. `K` rows that
are encoded, `D` width of the embedding.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping
from typing import Any, cast

import numpy as np
import torch
from jaxtyping import Bool, Float, Float32
from numpy.typing import NDArray

from vlmreward.encoders import ImageTextEncoder
from vlmreward.encoders.base import require_modalities
from vlmreward.reward_model import RewardModel
from vlmreward.reward_stream import RewardStream

_EMBEDDING = "embedding"


class RowRewards:
    """Works out rewards chunk by chunk; where the chunks are cut makes no difference.

    Args:
        reward_model: Pays.
        next_goal: Called at every start of an episode, for its goal.
        batch_size: Frames in a forward pass. With 1, frames are encoded one by one as the wrapper
            of a single environment does; with more, ahead of the stream that pays for them.
    """

    def __init__(
        self, reward_model: RewardModel, next_goal: Callable[[], int], batch_size: int
    ) -> None:
        if batch_size < 1:
            raise ValueError(f"expected batch_size of at least 1, got {batch_size}")
        self._encoder = reward_model.encoder
        self._timing = reward_model.timing
        self._batch_size = batch_size
        self._next_goal = next_goal
        if batch_size > 1:
            reward_model = copy.copy(reward_model)
            reward_model.encoder = cast(ImageTextEncoder, _EncodedAhead(self._encoder))
        self._stream = RewardStream(reward_model, num_envs=1)
        self._clock = 0

    def __call__(
        self,
        obs: Mapping[str, Any],
        starts: Bool[NDArray[Any], " R"],
        terminated: Bool[NDArray[Any], " R"],
        truncated: Bool[NDArray[Any], " R"],
    ) -> tuple[Float32[NDArray[Any], " R"], Float32[NDArray[Any], " R"]]:
        """Returns the reward and the score of the next rows, NaN for both at starts."""
        require_modalities(obs, self._encoder)
        modalities: Mapping[str, Any] = {key: obs[key] for key in self._encoder.modalities}
        if self._batch_size > 1:
            modalities = {_EMBEDDING: self._encode(modalities, starts, terminated | truncated)}
        reward = np.full(len(starts), np.nan, dtype=np.float32)
        score = np.full(len(starts), np.nan, dtype=np.float32)
        for row, is_start in enumerate(starts.tolist()):
            one = {key: values[row : row + 1] for key, values in modalities.items()}
            if is_start:
                first = one if self._stream.needs_first_frame else None
                self._stream.start([0], first, goal_index=[self._next_goal()])
                continue
            paid = self._stream.step(
                one,
                terminated=terminated[row : row + 1],
                truncated=truncated[row : row + 1],
            )
            reward[row], score[row] = paid.reward[0], paid.score[0]
        return reward, score

    def _encode(
        self,
        modalities: Mapping[str, Any],
        starts: Bool[NDArray[Any], " R"],
        ended: Bool[NDArray[Any], " R"],
    ) -> Float[torch.Tensor, "R D"]:
        """Embeds the rows that the stream is going to read; the others stay zero."""
        rows = np.flatnonzero(self._read(starts, ended))
        embedding = torch.zeros(len(starts), self._encoder.embed_dim, device=self._encoder.device)
        for begin in range(0, len(rows), self._batch_size):
            batch = rows[begin : begin + self._batch_size]
            encoded = self._encoder.encode_obs({key: v[batch] for key, v in modalities.items()})
            embedding[torch.from_numpy(batch).to(embedding.device)] = encoded.to(embedding.dtype)
        return embedding

    def _read(
        self, starts: Bool[NDArray[Any], " R"], ended: Bool[NDArray[Any], " R"]
    ) -> Bool[NDArray[Any], " R"]:
        """Tells which rows a score, a window or a potential needs."""
        row = np.arange(len(starts))
        # Where each row's episode started, which may be in an earlier chunk.
        began = np.maximum.accumulate(np.where(starts, row, -self._clock - 1))
        clock = row - began
        if len(clock):
            self._clock = int(clock[-1])
        if self._timing.needs_first_frame:
            return np.ones(len(starts), dtype=bool)
        every = self._timing.score_every
        due: Bool[NDArray[Any], " R"] = ended & ~starts
        if every != "episode_end":
            due |= (clock % every == 0) & ~starts
        return due


class _EncodedAhead:
    """Stands in for an encoder whose embeddings are there already."""

    modalities = (_EMBEDDING,)

    def __init__(self, encoder: ImageTextEncoder) -> None:
        self.embed_dim = encoder.embed_dim
        self.device = encoder.device

    def encode_obs(self, obs: Mapping[str, Any]) -> Float[torch.Tensor, "K D"]:
        return torch.as_tensor(obs[_EMBEDDING])


def goals_of_episodes(goal_index: Any, num_episodes: int) -> Iterator[int]:
    """Returns the goal of every episode in order, from one for all or one for each.

    Raises:
        ValueError: If there is another number of goals than of episodes.
    """
    goals = np.asarray(goal_index)
    if goals.ndim == 0:
        goals = np.full(num_episodes, goals)
    if goals.shape != (num_episodes,):
        raise ValueError(
            f"expected one goal_index for all, or one for each of the {num_episodes} episodes, got "
            f"shape {list(goals.shape)}"
        )
    return iter(goals.tolist())
