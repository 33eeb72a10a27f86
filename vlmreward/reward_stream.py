"""Rewards along episodes: what a reward model pays, step after step, in several environments.

Every wrapper and the offline relabelling go through here, so that they pay alike.

Axes: `N` environments, `D` width of the embedding, `K` rows that are encoded, `S` rows in which an
episode starts.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Float32, Int64
from numpy.typing import NDArray

from vlmreward.encoders import EpisodeEncoder, EpisodeMemory
from vlmreward.reward_model import GoalIndex, RewardModel
from vlmreward.step_plan import Flags, Obs, PlannedStep, StepPlanner
from vlmreward.windows import EmbeddingWindow, Rows


@dataclass(frozen=True)
class StreamStep:
    """What one step of all environments earned.

    Attributes:
        reward: What each learner is paid; 0 where nothing was scored.
        score: What the head said, before any threshold; NaN where nothing was scored.
        embedding: Of the observations that the actions led to, if every row was encoded; with an
            `EpisodeEncoder`, of the episodes up to them.
        first_embedding: Of the first observations of the episodes that started in this step.
        stream: By which stream of an `EpisodeEncoder` each step was scored; None of other encoders.
    """

    reward: Float32[NDArray[Any], " N"]
    score: Float32[NDArray[Any], " N"]
    embedding: Float[torch.Tensor, "N D"] | None
    first_embedding: Float[torch.Tensor, "S D"] | None
    stream: tuple[str, ...] | None = None


class RewardStream:
    """The reward of several environments over time, each with its own goal, window and clock.

    A row is independent of the others: alone it is paid the same.

    `step` does three things at once, which can also be done apart, to encode the frames of many
    steps in one batch or in another thread: `planner.plan` says what is to be encoded, `encode`
    does so, and `pay` turns embeddings into rewards. Steps are planned, and paid, in the order in
    which they were taken.

    Args:
        reward_model: Scores, and says by its `timing` when and from what.
        num_envs: N.
        goal_index: Which goal each environment is about; `start` can change it for an episode.
        encode_all: Encode every frame, first frames included, whether or not its score is due; an
            `EpisodeEncoder` always reads them all.

    Raises:
        ValueError: If scores are to be pooled over a window, and the encoder remembers by itself.

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
        encoder = reward_model.encoder
        self._timing = timing = reward_model.timing
        self._episodes: EpisodeMemory | None = None
        self._memory: EpisodeMemory | EmbeddingWindow | None = None
        self._encode = encoder.encode_obs
        if isinstance(encoder, EpisodeEncoder):
            if timing.window > 1:
                raise ValueError(
                    f"encoder {encoder.name!r} remembers whole episodes, got a timing with a "
                    f"window of {timing.window} frames: expected 1"
                )
            self._memory = self._episodes = encoder.new_memory(num_envs)
            self._encode = encoder.encode_step
            encode_all = True
        elif timing.window > 1:
            self._memory = EmbeddingWindow(num_envs, encoder.embed_dim, timing, encoder.device)
        self.planner = StepPlanner(reward_model, num_envs, goal_index, encode_all=encode_all)
        self._potential = torch.zeros(num_envs, device=encoder.device)
        self._streak = np.zeros(num_envs, dtype=np.int64)

    @property
    def goal_index(self) -> Int64[NDArray[Any], " N"]:
        """What each environment is about now."""
        return self.planner.goal_index

    @property
    def needs_first_frame(self) -> bool:
        """Whether `start` must be given the first observations."""
        return self.planner.needs_first_frame

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
        nobody = np.zeros(self.num_envs, dtype=bool)
        begun = self.step(
            {}, stepped=nobody, started=rows, first_obs=first_obs, goal_index=goal_index
        )
        return begun.first_embedding

    def step(
        self,
        obs: Obs,
        *,
        terminated: Flags = None,
        truncated: Flags = None,
        stepped: Bool[NDArray[Any], " N"] | None = None,
        started: Sequence[int] = (),
        first_obs: Obs | None = None,
        goal_index: GoalIndex | None = None,
    ) -> StreamStep:
        """Pays for one step of every environment, with one forward pass of the encoder.

        The arguments are those of `StepPlanner.plan`.
        """
        planned = self.planner.plan(
            obs,
            terminated=terminated,
            truncated=truncated,
            stepped=stepped,
            started=started,
            first_obs=first_obs,
            goal_index=goal_index,
        )
        return self.pay(planned, self.encode([planned])[0])

    def encode(self, planned: Sequence[PlannedStep]) -> list[Float[torch.Tensor, "_ D"]]:
        """Encodes what some planned steps need, in one forward pass.

        It reads and changes nothing of the stream, so that it can run in another thread.

        Returns:
            For each step its `num_rows` embeddings, or what the encoder's memory needs of them.

        Raises:
            ValueError: If there are other numbers of rows than of environments.
        """
        encoder = self.reward_model.encoder
        parts = [part for step in planned for part in step.obs]
        if not parts:
            embedding = torch.zeros(0, encoder.embed_dim, device=encoder.device)
        elif len(parts) == 1:
            embedding = self._encode(parts[0])
        elif any(part.keys() != parts[0].keys() for part in parts):  # a modality has come or gone
            embedding = torch.cat([self._encode(part) for part in parts])
        else:
            embedding = self._encode(
                {key: _concatenate([part[key] for part in parts]) for key in parts[0]}
            )
        expected = [step.num_rows for step in planned]
        if len(embedding) != sum(expected):
            raise ValueError(
                f"got observations of {len(embedding)} rows, expected {sum(expected)}: one row an "
                f"environment, of which there are {self.num_envs}"
            )
        return list(torch.split(embedding, expected))

    def pay(self, planned: PlannedStep, embedding: Float[torch.Tensor, "K D"]) -> StreamStep:
        """Turns the embeddings of a planned step into its rewards."""
        older, seen, first = torch.split(embedding, planned.sizes)
        for layer in planned.older:
            self._push(layer, older[: len(layer)])
            older = older[len(layer) :]
        pooled = self._push(planned.read, seen)
        score = np.full(self.num_envs, np.nan, dtype=np.float32)
        reward = np.zeros(self.num_envs, dtype=np.float32)
        if len(planned.due):
            places = np.searchsorted(planned.read, planned.due)
            chosen = pooled[torch.from_numpy(places).to(pooled.device)]
            self._pay(chosen, planned, score, reward)
        stream = None if self._episodes is None else self._episodes.streams
        begun = self._start(planned, first)
        if self._episodes is not None:
            seen, first = pooled, begun
        whole = seen if len(planned.read) == self.num_envs else None
        return StreamStep(reward, score, whole, first if planned.encodes_first else None, stream)

    def _push(
        self, rows: Rows, embedding: Float[torch.Tensor, "K _"]
    ) -> Float[torch.Tensor, "K _"]:
        """Adds what was encoded of some rows to their past, and returns what is to be scored."""
        if self._memory is None or not len(rows):
            return embedding
        return self._memory.push(rows, embedding)

    def _pay(
        self,
        embedding: Float[torch.Tensor, "K D"],
        planned: PlannedStep,
        score: Float32[NDArray[Any], " N"],
        reward: Float32[NDArray[Any], " N"],
    ) -> None:
        """Fills in the rows that are due."""
        rows = planned.due
        index = torch.from_numpy(rows).to(embedding.device)
        scores = self.reward_model.score_embeddings(embedding, planned.goal_index[rows])
        score[rows] = scores.score.cpu().numpy()
        paid = scores.reward
        if self._timing.discount is not None:
            ended = torch.from_numpy(planned.terminated[rows]).to(paid.device)
            potential = paid.masked_fill(ended, 0.0)
            paid = self._timing.discount * potential - self._potential[index]
            self._potential[index] = potential
        reward[rows] = paid.cpu().numpy()
        if self._timing.success_steps > 1:
            self._streak[rows] = np.where(reward[rows] > 0, self._streak[rows] + 1, 0)
            reward[rows] *= self._streak[rows] >= self._timing.success_steps

    def _start(
        self, planned: PlannedStep, embedding: Float[torch.Tensor, "S _"]
    ) -> Float[torch.Tensor, "S _"]:
        """Begins episodes, and returns what could be scored of their first observations."""
        rows = planned.started
        self._streak[rows] = 0
        if self._memory is not None:
            self._memory.clear(rows)
        if not planned.encodes_first:
            return embedding
        embedding = self._push(rows, embedding)
        if self._timing.discount is not None:
            scores = self.reward_model.score_embeddings(embedding, planned.first_goal_index)
            self._potential[torch.from_numpy(rows).to(embedding.device)] = scores.reward
        return embedding


def _concatenate(parts: Sequence[Any]) -> Any:
    if any(isinstance(part, torch.Tensor) for part in parts):
        device = next(part.device for part in parts if isinstance(part, torch.Tensor))
        return torch.cat([torch.as_tensor(part, device=device) for part in parts])
    return np.concatenate(parts)
