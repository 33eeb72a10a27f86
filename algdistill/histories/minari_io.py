"""Learning histories to and from Minari data sets; ``pip install vlmreward[minari]``.

One episode of a history is one Minari episode, in order. Minari keeps one observation more than
actions; the one an episode ends in is never acted upon and no history has it, so the last one acted
upon is written twice, and left out again on the way back. Ground truth is the info ``env_reward``,
whose first entry, the reset's, is 0.

Metadata of each episode: ``learning_history``, the number of its history from 0, and ``task_id``;
of a history's first episode ``history_metadata`` as well, as JSON.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain, groupby
from typing import Any

import gymnasium as gym
import minari
import numpy as np
from minari.data_collector import EpisodeBuffer

from algdistill.histories.schema import STEP_FIELDS, LearningHistory
from algdistill.spaces import (
    ActionSpace,
    Continuous,
    Discrete,
    Embedding,
    ObservationSpace,
    Pixels,
    Symbolic,
)
from algdistill.task_space import TaskSpace


def export_minari(
    blocks: Iterable[Sequence[LearningHistory]],
    dataset_id: str,
    *,
    algorithm_name: str | None = None,
    author: str | None = None,
    author_email: str | None = None,
    code_permalink: str | None = None,
    description: str | None = None,
) -> minari.MinariDataset:
    """Write learning histories as a local Minari data set, lossless, one block at a time.

    Minari warns of what it is not told: the algorithm, the author, and so on.

    Args:
        blocks: ``store.blocks()``, or histories in memory as ``[histories]``.
        dataset_id: Minari's name for the data set, such as ``"darkroom/q-learning-v0"``.
        algorithm_name: See Minari, as for all others.
        author: Who made it.
        author_email: How to reach them.
        code_permalink: Where the code is.
        description: What it is.

    Raises:
        ValueError: If there are no histories, their spaces differ, or there is such a data set.
        TypeError: If the metadata of a history is not JSON's.
    """
    histories = chain.from_iterable(blocks)
    first = next(histories, None)
    if first is None:
        raise ValueError("got no learning histories, expected at least one: collect some first")
    with warnings.catch_warnings():
        # Histories know spaces and no environment.
        warnings.filterwarnings("ignore", "`eval_env` is set to None")
        warnings.filterwarnings("ignore", "env_spec is None")
        dataset = minari.create_dataset_from_buffers(
            dataset_id,
            [],
            observation_space=_to_gym(first.space.observations),
            action_space=_to_gym(first.space.actions),
            algorithm_name=algorithm_name,
            author=author,
            author_email=author_email,
            code_permalink=code_permalink,
            description=description,
            jpeg_encoding=False,
        )
    metadata: list[dict[str, Any]] = []
    try:
        dataset.storage.update_episodes(_buffers(chain([first], histories), first.space, metadata))
        dataset.storage.update_episode_metadata(metadata)
    except BaseException:
        minari.delete_dataset(dataset_id)
        raise
    return minari.load_dataset(dataset_id)


def import_minari(dataset: minari.MinariDataset, *, task_id: int = 0) -> Iterator[LearningHistory]:
    """Read the learning histories of a Minari data set, one at a time.

    A data set that `export_minari` did not write, or that lost the metadata of its episodes as in
    `minari.combine_datasets`, is taken for one
    history: all its episodes, in their order, which should be that of learning. Observations of
    type float64 become float32, what was paid is taken for the ground truth as well, and an episode
    that stops without an end is taken for truncated unless it is the last.

    Args:
        dataset: What to read.
        task_id: The task of a data set of others.

    Raises:
        ValueError: If a space has no counterpart in `algdistill.spaces`, or values lie outside it.
    """
    space = TaskSpace(
        _observations_from_gym(dataset.observation_space), _actions_from_gym(dataset.action_space)
    )
    indices = dataset.episode_indices
    episodes = zip(
        dataset.iterate_episodes(indices),
        dataset.storage.get_episode_metadata(indices),
        strict=True,
    )
    for _, group in groupby(episodes, lambda episode: episode[1].get("learning_history", -1)):
        parts = list(group)
        _, metadata = parts[0]
        columns = [_columns(episode, space) for episode, _ in parts]
        for column in columns[:-1]:
            column["truncated"][-1] |= not column["terminated"][-1]
        yield LearningHistory(
            space,
            int(metadata.get("task_id", task_id)),
            **{name: np.concatenate([column[name] for column in columns]) for name in STEP_FIELDS},
            metadata=(
                json.loads(metadata["history_metadata"])
                if "history_metadata" in metadata
                else {"minari_dataset": dataset.id}
            ),
        )


def _buffers(
    histories: Iterable[LearningHistory], space: TaskSpace, metadata: list[dict[str, Any]]
) -> Iterator[EpisodeBuffer]:
    """Episode after episode as Minari takes them; what is to be said of each goes to a list."""
    for number, history in enumerate(histories):
        if history.space != space:
            raise ValueError(
                f"got histories of several spaces, expected one: {space}, {history.space}"
            )
        observations = history.observations.astype(_numpy_dtype(space.observations))
        actions = history.actions.astype(_numpy_dtype(space.actions))
        starts = history.episode_starts
        for start, stop in zip(starts, [*starts[1:], len(history)], strict=True):
            rows = slice(start, stop)
            about: dict[str, Any] = {"learning_history": number, "task_id": history.task_id}
            if start == 0:
                about["history_metadata"] = json.dumps(dict(history.metadata))
            metadata.append(about)
            yield EpisodeBuffer(
                observations=np.concatenate([observations[rows], observations[stop - 1 : stop]]),
                actions=actions[rows],
                rewards=history.rewards[rows],
                terminations=history.terminated[rows],
                truncations=history.truncated[rows],
                infos={"env_reward": np.pad(history.env_rewards[rows], (1, 0))},
            )


def _columns(episode: minari.EpisodeData, space: TaskSpace) -> dict[str, np.ndarray]:
    """The fields of a history, of one episode."""
    num_steps = len(episode)
    rewards = _floats(episode.rewards)
    env_rewards = (episode.infos or {}).get("env_reward")
    return {
        "observations": _stored(episode.observations[:num_steps], space.observations),
        "actions": _stored(episode.actions, space.actions),
        "rewards": rewards,
        "env_rewards": rewards if env_rewards is None else _floats(env_rewards[1:]),
        "terminated": np.array(episode.terminations, bool),
        "truncated": np.array(episode.truncations, bool),
    }


def _stored(values: Any, space: ObservationSpace | ActionSpace) -> np.ndarray:
    """Values in the smallest type, checked before it could hide that they are out of range."""
    shaped = np.asarray(values).reshape(len(values), *space.shape)
    space.check(shaped)
    return shaped.astype(space.stored_dtype)


def _floats(values: Any) -> np.ndarray:
    """Rewards of any kind of number as floating point."""
    numbers = np.asarray(values)
    return numbers if np.issubdtype(numbers.dtype, np.floating) else numbers.astype(np.float32)


def _numpy_dtype(space: ObservationSpace | ActionSpace) -> np.dtype[Any]:
    """The type that Gymnasium's counterpart has."""
    return np.dtype(_to_gym(space).dtype)


def _to_gym(space: ObservationSpace | ActionSpace) -> gym.spaces.Space[Any]:
    """The same space in Gymnasium."""
    match space:
        case Symbolic(sizes):
            return gym.spaces.MultiDiscrete(list(sizes))
        case Pixels():
            return gym.spaces.Box(0, 255, space.shape, np.uint8)
        case Embedding():
            return gym.spaces.Box(-np.inf, np.inf, space.shape, np.float32)
        case Discrete(num_actions):
            return gym.spaces.Discrete(num_actions)
        case Continuous():
            return gym.spaces.Box(-1.0, 1.0, space.shape, np.float32)


def _observations_from_gym(space: gym.Space[Any]) -> ObservationSpace:
    match space:
        case gym.spaces.Discrete(start=0):
            return Symbolic((int(space.n),))
        case gym.spaces.MultiDiscrete() if space.nvec.ndim == 1 and not space.start.any():
            return Symbolic(tuple(space.nvec.tolist()))
        case gym.spaces.Box(dtype=np.uint8, shape=(height, width, 3)):
            return Pixels(height, width)
        case gym.spaces.Box(shape=(dim,)) if np.issubdtype(space.dtype, np.floating):
            return Embedding(dim)
        case gym.spaces.Dict():
            raise ValueError(
                f"got observations that are dicts of {sorted(space)}, expected one array: keep one "
                "of them with gymnasium.wrappers.TransformObservation when recording"
            )
    raise ValueError(
        f"got observations of {space}, expected Discrete or MultiDiscrete that start at 0, a Box "
        "of frames (H, W, 3) and uint8, or a Box of floating-point vectors"
    )


def _actions_from_gym(space: gym.Space[Any]) -> ActionSpace:
    match space:
        case gym.spaces.Discrete(start=0):
            return Discrete(int(space.n))
        case gym.spaces.Box(shape=(dim,)) if (space.low == -1).all() and (space.high == 1).all():
            return Continuous(dim)
    raise ValueError(
        f"got actions of {space}, expected Discrete that starts at 0, or a Box of vectors from -1 "
        "to 1: record with gymnasium.wrappers.RescaleAction"
    )
