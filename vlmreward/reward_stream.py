"""Rewards along episodes: what a reward model pays, step after step, in several environments.

Every wrapper and the offline relabelling go through here, so that they pay alike.

Axes: `N` environments, `D` width of the embedding, `W` window, `K` rows that are encoded, `S`
rows in which an episode starts.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import torch
from jaxtyping import Bool, Float, Float32
from numpy.typing import NDArray
from torch.nn.functional import normalize

from vlmreward.reward_model import GoalIndex, RewardModel
from vlmreward.timing import RewardTiming

Obs: TypeAlias = Mapping[str, Any]
"""Batched modalities, of which the encoder reads its own."""


@dataclass(frozen=True)
class StreamStep:
    """What one step of all environments earned.

    Attributes:
        reward: What each learner is paid; 0 where nothing was scored.
        score: What the head said, before any threshold; NaN where nothing was scored.
        embedding: Of the observations that the actions led to, if every row was encoded.
        first_embedding: Of the first observations of the episodes that started in this step.
    """

    reward: Float32[NDArray[Any], " N"]
    score: Float32[NDArray[Any], " N"]
    embedding: Float[torch.Tensor, "N D"] | None
    first_embedding: Float[torch.Tensor, "S D"] | None


class RewardStream:
    """The reward of several environments over time, each with its own goal, window and clock.

    A row is independent of the others: alone it is paid the same.

    Args:
        reward_model: Scores, and says by its `timing` when and from what.
        num_envs: N.
        goal_index: Which goal each environment is about; `start` can change it for an episode.
        encode_all: Encode every frame, first frames included, whether or not its score is due.

    Example:
        Two steps of one environment that shows green, then red, scored at the end only:

        >>> from vlmreward import CosineHead, FakeEncoder, Goal, RewardModel, RewardTiming
        >>> timing = RewardTiming(score_every="episode_end")
        >>> reward_model = RewardModel(FakeEncoder(), Goal("a red room"), CosineHead(), timing)
        >>> stream = RewardStream(reward_model, num_envs=1)
        >>> stream.start([0])
        >>> frames = np.zeros((2, 1, 8, 8, 3), np.uint8)
        >>> frames[0, ..., 1] = frames[1, ..., 0] = 255
        >>> stream.step({"pixels": frames[0]}).reward
        array([0.], dtype=float32)
        >>> stream.step({"pixels": frames[1]}, truncated=[True]).reward
        array([1.], dtype=float32)
    """

    def __init__(
        self,
        reward_model: RewardModel,
        num_envs: int,
        goal_index: GoalIndex = 0,
        *,
        encode_all: bool = False,
    ) -> None:
        self.reward_model = reward_model
        self.num_envs = num_envs
        self.goal_index = reward_model.check_goal_index(goal_index, num_envs).clone()
        self._encode_all = encode_all
        self._timing = reward_model.timing
        self._window = _Window(num_envs, reward_model) if self._timing.window > 1 else None
        self._potential = torch.zeros(num_envs, device=reward_model.encoder.device)
        self._clock = np.zeros(num_envs, dtype=np.int64)
        self._streak = np.zeros(num_envs, dtype=np.int64)

    @property
    def needs_first_frame(self) -> bool:
        """Whether `start` must be given the first observations."""
        return self._encode_all or self._timing.needs_first_frame

    def start(
        self,
        rows: Sequence[int],
        first_obs: Obs | None = None,
        *,
        goal_index: GoalIndex | None = None,
    ) -> Float[torch.Tensor, "S D"] | None:
        """Begins an episode in some environments.

        Args:
            rows: Which.
            first_obs: What their resets returned, one row each; needed where `needs_first_frame`.
            goal_index: The goals of these episodes; those of the last ones if None.

        Returns:
            The embedding of the first observations, where they were encoded.

        Raises:
            ValueError: If first observations are needed and missing.
        """
        if not len(rows):
            return None
        embedding = None
        if self.needs_first_frame:
            if first_obs is None:
                raise ValueError(
                    "this reward looks at the frame of the reset (see RewardTiming): expected "
                    "first_obs, got none"
                )
            embedding = self.reward_model.encoder.encode_obs(first_obs)
        self._start(rows, embedding, goal_index)
        return embedding

    def step(
        self,
        obs: Obs,
        *,
        terminated: Sequence[bool] | Bool[NDArray[Any], " N"] | None = None,
        truncated: Sequence[bool] | Bool[NDArray[Any], " N"] | None = None,
        stepped: Bool[NDArray[Any], " N"] | None = None,
        started: Sequence[int] = (),
        first_obs: Obs | None = None,
        goal_index: GoalIndex | None = None,
    ) -> StreamStep:
        """Pays for one step of every environment, with one forward pass of the encoder.

        Args:
            obs: What the actions led to: at the end of an episode its own last observation, never
                the next one's first.
            terminated: Where the episode came to a true end.
            truncated: Where it was cut off.
            stepped: False in rows that only reset in this step; all True if None.
            started: Rows in which the next episode has started already.
            first_obs: The first observations of those, one row each.
            goal_index: The goals of the started episodes; unchanged if None.
        """
        terminated, truncated, stepped = (
            np.full(self.num_envs, default) if mask is None else np.asarray(mask, dtype=bool)
            for mask, default in ((terminated, False), (truncated, False), (stepped, True))
        )
        self._clock += stepped
        due = self._due(terminated | truncated) & stepped
        read = stepped if self._encode_all or self._window else due
        embedding, first = self._encode(obs, read, started, first_obs)

        score = np.full(self.num_envs, np.nan, dtype=np.float32)
        reward = np.zeros(self.num_envs, dtype=np.float32)
        if embedding is not None:
            pooled = self._window.push(read, embedding) if self._window else embedding
            chosen = torch.from_numpy(np.flatnonzero(due[read])).to(pooled.device)
            if len(chosen):
                self._pay(pooled[chosen], due, terminated, score, reward)
        if len(started):
            self._start(started, first, goal_index)
        whole = embedding if bool(read.all()) else None
        return StreamStep(reward, score, whole, first)

    def _due(self, ended: Bool[NDArray[Any], " N"]) -> Bool[NDArray[Any], " N"]:
        every = self._timing.score_every
        return ended if every == "episode_end" else (self._clock % every == 0) | ended

    def _encode(
        self,
        obs: Obs,
        read: Bool[NDArray[Any], " N"],
        started: Sequence[int],
        first_obs: Obs | None,
    ) -> tuple[Float[torch.Tensor, "K D"] | None, Float[torch.Tensor, "S D"] | None]:
        encoder = self.reward_model.encoder
        keys = encoder.modalities
        with_first = self.needs_first_frame and len(started) > 0
        if with_first and first_obs is None:
            raise ValueError("this reward looks at the frame of the reset: first_obs is missing")
        parts: list[Obs] = []
        if read.all():
            parts.append(obs)
        elif read.any():
            rows = np.flatnonzero(read)
            parts.append({key: obs[key][rows] for key in keys if key in obs})
        if with_first and first_obs is not None:
            parts.append(first_obs)
        if not parts:
            return None, None
        if len(parts) == 1:
            encoded = encoder.encode_obs(parts[0])
        else:
            encoded = encoder.encode_obs(
                {key: _concatenate(parts[0][key], parts[1][key]) for key in keys if key in parts[0]}
            )
        num_read = int(read.sum())
        return (
            encoded[:num_read] if num_read else None,
            encoded[num_read:] if with_first else None,
        )

    def _pay(
        self,
        embedding: Float[torch.Tensor, "K D"],
        due: Bool[NDArray[Any], " N"],
        terminated: Bool[NDArray[Any], " N"],
        score: Float32[NDArray[Any], " N"],
        reward: Float32[NDArray[Any], " N"],
    ) -> None:
        """Fills in the rows that are due."""
        rows = np.flatnonzero(due)
        index = torch.from_numpy(rows).to(embedding.device)
        scores = self.reward_model.score_embeddings(embedding, self.goal_index[index])
        score[rows] = scores.score.cpu().numpy()
        paid = scores.reward
        if self._timing.discount is not None:
            potential = paid.masked_fill(torch.from_numpy(terminated[rows]).to(paid.device), 0.0)
            paid = self._timing.discount * potential - self._potential[index]
            self._potential[index] = potential
        reward[rows] = paid.cpu().numpy()
        if self._timing.success_steps > 1:
            self._streak[rows] = np.where(reward[rows] > 0, self._streak[rows] + 1, 0)
            reward[rows] *= self._streak[rows] >= self._timing.success_steps

    def _start(
        self,
        rows: Sequence[int],
        embedding: Float[torch.Tensor, "S D"] | None,
        goal_index: GoalIndex | None,
    ) -> None:
        chosen = torch.as_tensor(np.asarray(rows), device=self.goal_index.device)
        if goal_index is not None:
            self.goal_index[chosen] = self.reward_model.check_goal_index(goal_index, len(rows))
        self._clock[rows] = 0
        self._streak[rows] = 0
        if self._window:
            self._window.clear(chosen)
        if embedding is None:
            return
        if self._window:
            mask = np.zeros(self.num_envs, dtype=bool)
            mask[rows] = True
            order = np.argsort(np.asarray(rows))
            pooled = self._window.push(mask, embedding[torch.from_numpy(order)])
            embedding = pooled[torch.from_numpy(np.argsort(order))]
        if self._timing.discount is not None:
            scores = self.reward_model.score_embeddings(embedding, self.goal_index[chosen])
            self._potential[chosen] = scores.reward


class _Window:
    """The last W embeddings of every environment, oldest first."""

    def __init__(self, num_envs: int, reward_model: RewardModel) -> None:
        self._timing: RewardTiming = reward_model.timing
        encoder = reward_model.encoder
        shape = (num_envs, self._timing.window, encoder.embed_dim)
        self._embeddings = torch.zeros(shape, device=encoder.device)
        self._length = torch.zeros(num_envs, dtype=torch.long, device=encoder.device)

    def clear(self, rows: torch.Tensor) -> None:
        self._embeddings[rows] = 0.0
        self._length[rows] = 0

    def push(
        self, mask: Bool[NDArray[Any], " N"], embedding: Float[torch.Tensor, "K D"]
    ) -> Float[torch.Tensor, "K D"]:
        """Adds one embedding to some rows, and returns what each of their windows pools to."""
        rows = torch.from_numpy(np.flatnonzero(mask)).to(embedding.device)
        held = torch.cat([self._embeddings[rows, 1:], embedding[:, None]], dim=1)
        self._embeddings[rows] = held
        self._length[rows] = (self._length[rows] + 1).clamp(max=self._timing.window)
        length = self._length[rows]
        if self._timing.pooling == "mean":
            pooled = held.sum(dim=1)  # empty places are zero, and the scale goes in `normalize`
        elif self._timing.pooling == "max":
            place = torch.arange(self._timing.window, device=held.device)
            is_empty = place < self._timing.window - length[:, None]
            pooled = held.masked_fill(is_empty[..., None], -torch.inf).amax(dim=1)
        else:
            first = held[torch.arange(len(rows), device=held.device), -length]
            pooled = embedding - first
        return normalize(pooled, dim=1)


def _concatenate(first: Any, second: Any) -> Any:
    if isinstance(first, torch.Tensor):
        return torch.cat([first, torch.as_tensor(second, device=first.device)])
    return np.concatenate([first, second])
