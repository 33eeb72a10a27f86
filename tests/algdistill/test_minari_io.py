import warnings
from dataclasses import replace

import gymnasium as gym
import minari
import numpy as np
import pytest
from minari.data_collector import EpisodeBuffer

from algdistill.histories import HistoryStore, LearningHistory
from algdistill.histories.minari_io import export_minari, import_minari
from algdistill.histories.schema import STEP_FIELDS
from algdistill.spaces import Continuous, Discrete, Embedding, Pixels
from algdistill.task_space import TaskSpace

ABOUT = {
    "algorithm_name": "none",
    "author": "nobody",
    "author_email": "nobody@example.org",
    "code_permalink": "none",
    "description": "noise",
}
SPACES = {
    "symbols": TaskSpace.symbolic((9, 300), 5),
    "frames": TaskSpace(Pixels(33, 40), Discrete(3)),  # large enough for Minari to want JPEG
    "embeddings": TaskSpace(Embedding(6), Continuous(2)),
}


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path))
    return tmp_path


def noise(space, task_id, lengths, rng, *, unfinished=False):
    """A history of random content with episodes of given lengths, ended either way."""
    steps = sum(lengths)
    ends = np.cumsum(lengths) - 1
    terminated, truncated = np.zeros((2, steps), bool)
    terminated[ends[::2]] = True
    truncated[ends[1::2]] = True
    truncated[ends[::4]] = True  # both at once
    if unfinished:
        terminated[-1] = truncated[-1] = False
    seen, acts = space.observations, space.actions
    if hasattr(seen, "sizes"):
        observations = rng.integers(seen.sizes, size=(steps, 2)).astype(seen.stored_dtype)
    else:
        observations = (rng.random((steps, *seen.shape)) * 255).astype(seen.stored_dtype)
    if isinstance(acts, Discrete):
        actions = rng.integers(acts.num_actions, size=steps).astype(acts.stored_dtype)
    else:
        actions = rng.uniform(-1, 1, (steps, *acts.shape)).astype(np.float32)
    rewards, env_rewards = rng.normal(size=(2, steps)).astype(np.float32)
    metadata = {"source_algorithm": "noise", "seed": task_id, "settings": {"rate": 0.1}}
    return LearningHistory(
        space, task_id, observations, actions, rewards, env_rewards, terminated, truncated, metadata
    )


@pytest.mark.parametrize("kind", SPACES)
def test_what_comes_back_is_what_was_written(kind):
    rng = np.random.default_rng(0)
    space = SPACES[kind]
    written = [
        noise(space, 7, [3, 1, 4, 2, 5], rng),
        noise(space, 7, [6], rng, unfinished=True),
        noise(space, 2, [2, 2], rng, unfinished=True),
        replace(noise(space, 9, [1], rng), metadata={}),
    ]
    export_minari([written[:3], written[3:]], "noise/histories-v0", **ABOUT)
    read = list(import_minari(minari.load_dataset("noise/histories-v0")))
    assert len(read) == 4
    for history, expected in zip(read, written, strict=True):
        assert (history.space, history.task_id) == (space, expected.task_id)
        assert history.metadata == expected.metadata
        for name in STEP_FIELDS:
            ours, theirs = getattr(history, name), getattr(expected, name)
            np.testing.assert_array_equal(ours, theirs)
            assert ours.dtype == theirs.dtype


def test_other_tools_see_ordinary_episodes():
    rng = np.random.default_rng(0)
    histories = [noise(SPACES["symbols"], task, [3, 4, 2], rng) for task in (5, 8)]
    dataset = export_minari([histories], "noise/histories-v0", **ABOUT)
    assert (dataset.total_episodes, dataset.total_steps) == (6, 18)
    assert dataset.observation_space == gym.spaces.MultiDiscrete([9, 300])
    assert dataset.action_space == gym.spaces.Discrete(5)
    episode = dataset[4]
    assert episode.observations.shape == (5, 2)
    assert all(row in dataset.observation_space for row in episode.observations)
    # The observation an episode ends in is not known: the last one acted upon stands for it.
    assert episode.observations[-1].tolist() == episode.observations[-2].tolist()
    assert episode.observations[:4].tolist() == histories[1].observations[3:7].tolist()
    assert episode.infos["env_reward"].tolist() == [0, *histories[1].env_rewards[3:7].tolist()]
    (about,) = dataset.storage.get_episode_metadata([4])
    assert (about["learning_history"], about["task_id"]) == (1, 8)


def test_from_a_store_to_minari_and_back_into_a_store(tmp_path):
    rng = np.random.default_rng(0)
    space = SPACES["symbols"]
    histories = [noise(space, task, [5, 5], rng) for task in range(5)]
    store = HistoryStore.create(tmp_path / "a", space, num_steps=10, block_size=2)
    store.append(histories)
    dataset = export_minari(store.blocks(), "noise/histories-v0", **ABOUT)
    back = HistoryStore.create(tmp_path / "b", space, num_steps=10, block_size=2)
    back.append(list(import_minari(dataset)))
    for history, expected in zip(back.read(), histories, strict=True):
        for name in STEP_FIELDS:
            np.testing.assert_array_equal(getattr(history, name), getattr(expected, name))


def test_an_export_that_fails_leaves_nothing_and_none_is_overwritten(folder):
    rng = np.random.default_rng(0)
    good = noise(SPACES["symbols"], 0, [3], rng)
    other = noise(SPACES["embeddings"], 0, [3], rng)
    with pytest.raises(ValueError, match="several spaces"):
        export_minari([[good, other]], "noise/histories-v0", **ABOUT)
    with pytest.raises(TypeError, match="JSON"):
        export_minari([[replace(good, metadata={"a": {1}})]], "noise/histories-v0", **ABOUT)
    assert not (folder / "noise" / "histories-v0").exists()
    with pytest.raises(ValueError, match="no learning histories"):
        export_minari([[]], "noise/histories-v0", **ABOUT)
    export_minari([[good]], "noise/histories-v0", **ABOUT)
    with pytest.raises(ValueError, match="already exists"):
        export_minari([[good]], "noise/histories-v0", **ABOUT)
    assert len(list(import_minari(minari.load_dataset("noise/histories-v0")))) == 1


def foreign(observation_space, action_space, episodes):
    """A data set as others write it."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # Minari misses an environment
        return minari.create_dataset_from_buffers(
            "others/data-v0",
            episodes,
            observation_space=observation_space,
            action_space=action_space,
            **ABOUT,
        )


def test_episodes_of_others_are_one_history_in_order():
    """Observations in float64; one recording was cut without a flag."""
    episodes = [
        EpisodeBuffer(
            observations=np.full((length + 1, 3), number, np.float64),
            actions=np.full((length, 2), 0.5 * number - 0.5, np.float32),
            rewards=[number] * length,
            terminations=[False] * (length - 1) + [number == 1],
            truncations=[False] * length,
            infos={},
        )
        for number, length in enumerate((4, 2, 3))
    ]
    dataset = foreign(
        gym.spaces.Box(-9, 9, (3,), np.float64), gym.spaces.Box(-1, 1, (2,)), episodes
    )
    (history,) = import_minari(dataset, task_id=5)
    assert history.space == TaskSpace(Embedding(3), Continuous(2))
    assert history.task_id == 5
    assert history.metadata == {"minari_dataset": "others/data-v0"}
    assert history.observations[:, 0].tolist() == [0] * 4 + [1] * 2 + [2] * 3
    assert history.episode_starts.tolist() == [0, 4, 6]
    assert history.terminated.nonzero()[0].tolist() == [5]
    assert history.truncated.nonzero()[0].tolist() == [3]
    assert history.episode_returns.tolist() == history.env_episode_returns.tolist() == [0, 2, 6]
    assert history.observations.dtype == history.rewards.dtype == np.float32


def test_numbered_observations_of_others_are_symbols():
    episode = EpisodeBuffer(
        observations=np.array([3, 0, 15]),
        actions=np.array([1, 0]),
        rewards=[0.0, 1.0],
        terminations=[False, True],
        truncations=[False, False],
        infos={},
    )
    (history,) = import_minari(foreign(gym.spaces.Discrete(16), gym.spaces.Discrete(2), [episode]))
    assert history.space == TaskSpace.symbolic((16,), 2)
    assert history.observations.tolist() == [[3], [0]]


@pytest.mark.parametrize(
    ("observations", "actions", "message"),
    [
        (gym.spaces.Dict({"a": gym.spaces.Discrete(2)}), gym.spaces.Discrete(2), r"dicts of \['a"),
        (gym.spaces.Discrete(2, start=1), gym.spaces.Discrete(2), "got observations of Discrete"),
        (gym.spaces.Box(0, 1, (2, 2)), gym.spaces.Discrete(2), "got observations of Box"),
        (gym.spaces.Discrete(2), gym.spaces.Box(-2, 2, (1,)), "actions of Box.*RescaleAction"),
        (gym.spaces.Discrete(2), gym.spaces.MultiDiscrete([2, 2]), "actions of MultiDiscrete"),
        (gym.spaces.Discrete(2), gym.spaces.Discrete(2, start=-1), "actions of Discrete"),
    ],
)
def test_spaces_without_a_counterpart_are_refused(observations, actions, message):
    dataset = foreign(observations, actions, [])
    with pytest.raises(ValueError, match=message):
        next(import_minari(dataset))


def test_values_outside_their_space_are_refused():
    episode = EpisodeBuffer(
        observations=np.array([300, 0]),
        actions=np.array([1]),
        rewards=[0.0],
        terminations=[True],
        truncations=[False],
        infos={},
    )
    dataset = foreign(gym.spaces.Discrete(16), gym.spaces.Discrete(2), [episode])
    with pytest.raises(ValueError, match="got observations from 300 to 300"):
        next(import_minari(dataset))
