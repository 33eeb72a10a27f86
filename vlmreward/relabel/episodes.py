"""Rewards of recorded episodes that are in memory.

Axes: `T` steps of an episode, which has `T + 1` frames, the reset's first; `N` environments side by
side.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool, Float32
from numpy.typing import NDArray

from vlmreward.frames import PIXELS, Frames
from vlmreward.relabel.rows import RowRewards
from vlmreward.reward_model import RewardModel
from vlmreward.reward_stream import RewardStream


@dataclass(frozen=True)
class Episode:
    """One recorded episode.

    Attributes:
        obs: What was observed: arrays `[T + 1, ...]` by modality, or frames alone. First what the
            reset returned, last what the last action led to. A modality that is None was not
            recorded.
        terminated: Whether the environment itself came to a true end.
        truncated: Whether it was cut off by a time limit. Neither is true of an episode that only
            success ended, or that was not recorded to its end.
        goal_index: What it was about.

    Raises:
        ValueError: If the modalities differ in length, or if there is not even a reset.
    """

    obs: Mapping[str, Any] | Frames
    terminated: bool
    truncated: bool
    goal_index: int = 0

    def __post_init__(self) -> None:
        if not isinstance(self.obs, Mapping):
            object.__setattr__(self, "obs", {PIXELS: self.obs})
        recorded = {key: values for key, values in self.modalities.items() if values is not None}
        object.__setattr__(self, "obs", recorded)
        lengths = {key: len(values) for key, values in self.modalities.items()}
        if len(set(lengths.values())) != 1:
            raise ValueError(f"expected modalities of one length, got {lengths}")
        if 0 in lengths.values():
            raise ValueError("expected at least the frame of the reset, got none")

    def __len__(self) -> int:
        return len(next(iter(self.modalities.values()))) - 1

    def __repr__(self) -> str:
        shapes = {key: list(np.shape(values)) for key, values in self.modalities.items()}
        ends = f"terminated={self.terminated}, truncated={self.truncated}"
        return f"Episode({len(self)} steps, {shapes}, {ends}, goal_index={self.goal_index})"

    @property
    def modalities(self) -> Mapping[str, Any]:
        """What was observed, by modality."""
        assert isinstance(self.obs, Mapping)
        return self.obs


@dataclass(frozen=True)
class EpisodeRewards:
    """What the steps of one episode earn.

    Attributes:
        reward: What a learner is paid.
        score: What the head said, before any threshold; NaN where nothing was scored.
    """

    reward: Float32[NDArray[Any], " T"]
    score: Float32[NDArray[Any], " T"]


def relabel(
    obs: Mapping[str, Any] | Frames,
    reward_model: RewardModel,
    goal_index: int = 0,
    *,
    terminated: bool | Bool[NDArray[Any], " T"],
    truncated: bool | Bool[NDArray[Any], " T"],
    batch_size: int = 1,
) -> EpisodeRewards:
    """Pays for the steps of a recorded episode.

    With a batch size of 1, steps are encoded one by one, as `vlmreward.wrappers.VLMReward` and
    `vlmreward.wrappers.dm_env.DmEnvVLMReward` do, and rewards are those that they paid, bit for
    bit. Larger batches are faster and agree to 1e-5, as far as an encoder does; a score that close
    to a threshold can fall on its other side.

    Args:
        obs: See `Episode`.
        reward_model: Pays; its `timing` says when, and from how many frames.
        goal_index: Which of its goals the episode was about.
        terminated: Whether the environment itself came to a true end, or the flag of every step.
        truncated: Whether it was cut off, or the flag of every step.
        batch_size: Frames in a forward pass; more only where a single step needs more.

    Example:
        >>> from vlmreward import CosineHead, FakeEncoder, Goal
        >>> reward_model = RewardModel(FakeEncoder(), Goal("a red room"), CosineHead())
        >>> frames = np.zeros((3, 8, 8, 3), np.uint8)  # a reset and two steps
        >>> frames[2, ..., 0] = 255
        >>> relabel(frames, reward_model, terminated=False, truncated=True).reward
        array([0., 1.], dtype=float32)

    Raises:
        FrameError: If the frames are none.
        IndexError: If `goal_index` is out of range.
        MissingModalityError: If the encoder reads more than there is.
        ValueError: If there is no frame, or if an episode goes on after it has ended.
    """
    episode = Episode(obs, bool(np.any(terminated)), bool(np.any(truncated)), goal_index)
    _check_flags(terminated, "terminated", len(episode))
    _check_flags(truncated, "truncated", len(episode))
    starts, terminations, truncations = np.zeros((3, len(episode) + 1), dtype=bool)
    starts[0], terminations[-1], truncations[-1] = True, episode.terminated, episode.truncated
    rows = RowRewards(reward_model, lambda: goal_index, batch_size)
    reward, score = rows(episode.modalities, starts, terminations, truncations)
    return EpisodeRewards(reward[1:], score[1:])


def relabel_side_by_side(
    lanes: Sequence[Sequence[Episode]], reward_model: RewardModel
) -> list[list[EpisodeRewards]]:
    """Pays for what several environments recorded side by side, in the batches of then.

    Every step is one forward pass over all environments, and an episode starts in the step that
    ends the one before, as in `vlmreward.wrappers.sb3.VecVLMReward`. Rewards are those that it
    paid, bit for bit, if the flags are the environment's own and all environments are there from
    their reset on.

    Args:
        lanes: For each environment its episodes, in order.
        reward_model: Pays.

    Example:
        >>> from vlmreward import CosineHead, FakeEncoder, Goal
        >>> reward_model = RewardModel(FakeEncoder(), Goal("a black room"), CosineHead())
        >>> episode = Episode(np.zeros((3, 8, 8, 3), np.uint8), terminated=False, truncated=True)
        >>> lanes = relabel_side_by_side([[episode, episode], [episode]], reward_model)
        >>> [[rewards.reward.tolist() for rewards in lane] for lane in lanes]
        [[[1.0, 1.0], [1.0, 1.0]], [[1.0, 1.0]]]

    Raises:
        FrameError: If the frames are none.
        IndexError: If a goal index is out of range.
        MissingModalityError: If the encoder reads more than there is.
        ValueError: If an environment has no episode, or one without a step before its last.
    """
    steps = [[len(episode) for episode in lane] for lane in lanes]
    if not lanes or not all(lanes) or not all(all(lane[:-1]) for lane in steps):
        raise ValueError(
            "expected at least one environment, each with an episode, and steps in all but its "
            f"last, got episodes of {steps} steps"
        )
    tapes = [_Tape(lane, reward_model.encoder.modalities) for lane in lanes]
    stream = RewardStream(reward_model, len(lanes))
    _start(stream, tapes, list(range(len(tapes))))
    while any(tape.is_running for tape in tapes):
        _step(stream, tapes)
    return [tape.rewards for tape in tapes]


class _Tape:
    """One environment's episodes, and how far they have been played."""

    def __init__(self, episodes: Sequence[Episode], modalities: Sequence[str]) -> None:
        self._episodes = episodes
        self._modalities = modalities
        self._number, self._time = 0, 0
        self.rewards = [
            EpisodeRewards(*np.full((2, len(episode)), np.nan, dtype=np.float32))
            for episode in episodes
        ]

    @property
    def episode(self) -> Episode:
        return self._episodes[self._number]

    @property
    def is_running(self) -> bool:
        """Whether the episode has steps left."""
        return self._time < len(self.episode)

    def look(self) -> dict[str, Any]:
        observed = self.episode.modalities
        return {key: observed[key][self._time] for key in self._modalities if key in observed}

    def advance(self) -> None:
        self._time += self.is_running

    def pay(self, reward: np.float32, score: np.float32) -> None:
        rewards = self.rewards[self._number]
        rewards.reward[self._time - 1], rewards.score[self._time - 1] = reward, score

    def turn(self) -> bool:
        """Goes to the next episode, if there is one."""
        has_next = self._number + 1 < len(self._episodes)
        if has_next:
            self._number, self._time = self._number + 1, 0
        return has_next


def _step(stream: RewardStream, tapes: Sequence[_Tape]) -> None:
    """Plays one step of every environment that has one left."""
    stepped = np.array([tape.is_running for tape in tapes])
    for tape in tapes:
        tape.advance()
    over = [row for row, tape in enumerate(tapes) if stepped[row] and not tape.is_running]
    terminated, truncated = np.zeros((2, len(tapes)), dtype=bool)
    terminated[over] = [tapes[row].episode.terminated for row in over]
    truncated[over] = [tapes[row].episode.truncated for row in over]
    obs = _stack([tape.look() for tape in tapes])

    # The stream wants to see the next episodes before it pays for this step.
    paid_to = [copy.copy(tape) for tape in tapes]
    next_up = [row for row in over if tapes[row].turn()]
    started = [row for row in next_up if terminated[row] or truncated[row]]
    paid = stream.step(
        obs,
        terminated=terminated,
        truncated=truncated,
        stepped=stepped,
        started=started,
        first_obs=_stack([tapes[row].look() for row in started]) if started else None,
        goal_index=[tapes[row].episode.goal_index for row in started] if started else None,
    )
    # An environment that only success had ended was reset after the step.
    _start(stream, tapes, [row for row in next_up if row not in started])
    for row in np.flatnonzero(stepped).tolist():
        paid_to[row].pay(paid.reward[row], paid.score[row])


def _start(stream: RewardStream, tapes: Sequence[_Tape], rows: list[int]) -> None:
    if not rows:
        return
    first = _stack([tapes[row].look() for row in rows]) if stream.needs_first_frame else None
    stream.start(rows, first, goal_index=[tapes[row].episode.goal_index for row in rows])


def _stack(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    return {key: np.stack([np.asarray(row[key]) for row in rows]) for key in rows[0]}


def _check_flags(flags: bool | Bool[NDArray[Any], " T"], name: str, num_steps: int) -> None:
    """Refuses the flags of more, fewer or several episodes."""
    if np.ndim(flags) == 0:
        return
    steps = np.asarray(flags)
    if steps.shape != (num_steps,):
        raise ValueError(
            f"expected {name} of each of the {num_steps} steps, got shape {list(steps.shape)}: "
            "there is one frame more than steps, the reset's"
        )
    if steps[:-1].any():
        raise ValueError(
            f"got an episode that is {name} in step {int(np.flatnonzero(steps)[0]) + 1} and goes "
            f"on to step {num_steps}: pass one episode at a time"
        )
