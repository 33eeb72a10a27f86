import os
import signal
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import zarr

from algdistill.histories import HistoryStore, HistoryStoreError
from algdistill.spaces import Discrete, Pixels
from algdistill.tasks import TaskSpace

from .numbered import filmed_history

FIELDS = ("observations", "actions", "rewards", "env_rewards", "terminated", "truncated")


def assert_equal(history, expected):
    assert history.task_id == expected.task_id
    for name in FIELDS:
        np.testing.assert_array_equal(getattr(history, name), getattr(expected, name))


@pytest.fixture
def store(tmp_path, histories):
    store = HistoryStore.create(
        tmp_path / "store", histories[0].space, num_steps=60, block_size=4, metadata={"seed": 3}
    )
    store.append(histories)
    return store


def test_what_is_read_is_what_was_written_whatever_its_length(tmp_path, make_history):
    written = [make_history(num_steps=length, task_id=length) for length in (60, 1, 33)]
    store = HistoryStore.create(tmp_path / "s", written[0].space, num_steps=60, block_size=2)
    store.append(written[:2])
    store.append(written[2:])
    read = HistoryStore.open(tmp_path / "s").read()
    assert len(read) == 3
    for history, expected in zip(read, written, strict=True):
        assert_equal(history, expected)


def test_blocks_cover_all_histories_in_order(store, histories):
    blocks = list(store.blocks())
    assert [len(block) for block in blocks] == [4, 4, 2]
    assert [history.task_id for block in blocks for history in block] == list(range(10))
    assert_equal(blocks[1][2], histories[6])
    assert blocks[0][0].metadata == {"seed": 3}


def test_appending_within_a_block_keeps_what_was_there(store, histories, tmp_path):
    reopened = HistoryStore.open(tmp_path / "store", read_only=False)
    reopened.append(histories[:3])
    read = HistoryStore.open(tmp_path / "store").read()
    for history, expected in zip(read, histories + histories[:3], strict=True):
        assert_equal(history, expected)


def test_types_on_disk_are_the_smallest_that_lose_nothing(tmp_path, histories):
    store = HistoryStore.create(
        tmp_path / "s", histories[0].space, num_steps=60, reward_dtype="uint8"
    )
    store.append(histories)
    group = zarr.open_group(tmp_path / "s", mode="r")
    assert {group[name].dtype for name in ("observations", "actions", "rewards")} == {
        np.dtype("uint8")
    }
    assert_equal(store.read()[4], histories[4])


def test_rewards_that_would_lose_something_are_refused(tmp_path, histories):
    store = HistoryStore.create(
        tmp_path / "s", histories[0].space, num_steps=60, reward_dtype="uint8"
    )
    with pytest.raises(ValueError, match="without loss"):
        store.append([replace(histories[0], rewards=histories[0].rewards + 0.5)])
    assert len(HistoryStore.open(tmp_path / "s")) == 0


def test_histories_of_zeros_are_stored_like_any_other(tmp_path, make_history):
    history = make_history()
    silent = replace(history, rewards=np.zeros_like(history.rewards))
    store = HistoryStore.create(tmp_path / "s", history.space, num_steps=60)
    store.append([silent])
    assert_equal(HistoryStore.open(tmp_path / "s").read()[0], silent)


CHILD = """
import sys
from pathlib import Path
import numpy as np
from algdistill.histories import HistoryStore, LearningHistory
from algdistill.tasks import TaskSpace

space = TaskSpace.symbolic((250,), 2)
store = HistoryStore.create(Path(sys.argv[1]), space, num_steps=2000, block_size=3)
for block in range(10_000):
    rows = np.arange(2000)
    histories = [
        LearningHistory(
            store.space, task, (rows[:, None] + task) % 250, rows % 2,
            np.full(2000, task, np.float32), np.zeros(2000, np.float32),
            rows < 0, rows % 20 == 19,
        )
        for task in range(block * 2, block * 2 + 2)
    ]
    store.append(histories)
    print(len(store), flush=True)
"""


@pytest.mark.filterwarnings("ignore:.*half-written")
def test_a_killed_writer_loses_at_most_the_block_in_flight(tmp_path):
    writer = subprocess.Popen(
        [sys.executable, "-c", CHILD, str(tmp_path / "s")], stdout=subprocess.PIPE, text=True
    )
    confirmed = [int(writer.stdout.readline()) for _ in range(15)]
    os.kill(writer.pid, signal.SIGKILL)
    confirmed += [int(line) for line in writer.communicate()[0].split()]
    store = HistoryStore.open(tmp_path / "s", read_only=False)
    assert confirmed[-1] <= len(store) <= confirmed[-1] + 2
    store.append(store.read(0, 1))
    read = HistoryStore.open(tmp_path / "s").read()
    for task, history in enumerate(read[:-1]):
        assert history.task_id == task
        assert (history.rewards == task).all()
        assert (history.observations[:, 0] == (np.arange(2000) + task) % 250).all()
    assert_equal(read[-1], read[0])


def test_reopening_says_what_was_dropped_and_frees_it(tmp_path, store, histories, monkeypatch):
    def killed(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(zarr.core.attributes.Attributes, "update", killed)
    with pytest.raises(KeyboardInterrupt):
        store.append(histories[:3])
    monkeypatch.undo()
    with pytest.warns(UserWarning, match="3 histories after the first 10"):
        reopened = HistoryStore.open(tmp_path / "store", read_only=False)
    assert reopened.num_dropped == 3
    assert len(reopened) == len(reopened.read()) == 10
    assert HistoryStore.open(tmp_path / "store").num_dropped == 0
    reopened.append(histories[5:6])
    assert_equal(HistoryStore.open(tmp_path / "store").read(10, 11)[0], histories[5])


def chunk_files(tmp_path, name):
    return sorted(path for path in (tmp_path / "store" / name / "c").rglob("*") if path.is_file())


def test_damaged_chunk_is_found(tmp_path, store):
    chunk = chunk_files(tmp_path, "rewards")[1]
    content = bytearray(chunk.read_bytes())
    content[len(content) // 2] ^= 0xFF
    chunk.write_bytes(content)
    damaged = HistoryStore.open(tmp_path / "store")
    damaged.read(0, 4)
    with pytest.raises(HistoryStoreError, match="rewards of histories 4 to 8 is damaged"):
        damaged.read(4, 8)


def test_chunk_cut_short_is_found(tmp_path, store):
    chunk = chunk_files(tmp_path, "observations")[0]
    chunk.write_bytes(chunk.read_bytes()[:20])
    with pytest.raises(HistoryStoreError, match="observations of histories 0 to 10 is damaged"):
        HistoryStore.open(tmp_path / "store").read()


def test_missing_chunk_is_found(tmp_path, store):
    chunk_files(tmp_path, "terminated")[2].unlink()
    with pytest.raises(HistoryStoreError, match="terminated lacks the chunk c/2/0"):
        HistoryStore.open(tmp_path / "store").read()


def test_array_cut_short_is_found(tmp_path, store):
    zarr.open_group(tmp_path / "store")["actions"].resize((7, 60))
    with pytest.raises(HistoryStoreError, match=r"cut short.*'actions': 7"):
        HistoryStore.open(tmp_path / "store")


def test_other_formats_and_other_folders_are_refused(tmp_path, store):
    zarr.open_group(tmp_path / "store").attrs["format_version"] = 99
    with pytest.raises(HistoryStoreError, match="format version 99, expected 2"):
        HistoryStore.open(tmp_path / "store")
    with pytest.raises(HistoryStoreError, match="no history store"):
        HistoryStore.open(tmp_path / "nowhere")
    zarr.create_group(tmp_path / "other")
    with pytest.raises(HistoryStoreError, match="format version None"):
        HistoryStore.open(tmp_path / "other")
    with pytest.raises(FileExistsError, match="exists"):
        HistoryStore.create(tmp_path / "store", store.space, num_steps=1)


def test_fields_missing_or_unknown_are_refused(tmp_path, store):
    group = zarr.open_group(tmp_path / "store")
    group.create_array("values", shape=(10,), dtype="float32")
    with pytest.raises(HistoryStoreError, match=r"holds \['values'\], expected no more than"):
        HistoryStore.open(tmp_path / "store")
    del group["values"]
    del group["actions"]
    with pytest.raises(HistoryStoreError, match="no array 'actions'"):
        HistoryStore.open(tmp_path / "store")


def test_an_empty_store_reads_as_nothing(tmp_path, histories):
    HistoryStore.create(tmp_path / "s", histories[0].space, num_steps=60).append([])
    store = HistoryStore.open(tmp_path / "s")
    assert len(store) == len(store.lengths()) == 0
    assert store.read() == []
    assert list(store.blocks()) == []


def test_lengths_are_those_of_the_histories(tmp_path, make_history):
    store = HistoryStore.create(tmp_path / "s", make_history().space, num_steps=60, block_size=2)
    store.append([make_history(num_steps=length) for length in (60, 1, 33)])
    assert store.lengths().tolist() == [60, 1, 33]


def test_chunks_of_frames_stay_small(tmp_path):
    frames = TaskSpace(Pixels(72, 96), Discrete(8))
    store = HistoryStore.create(tmp_path / "s", frames, num_steps=500)
    assert store.block_size == 3  # 10.4 MB each
    long = HistoryStore.create(tmp_path / "l", frames, num_steps=5000)
    assert long.block_size == 1
    symbols = TaskSpace.symbolic((9, 9), 5)
    assert HistoryStore.create(tmp_path / "p", symbols, num_steps=800).block_size == 64


def test_frames_and_continuous_actions_come_back(tmp_path):
    written = [filmed_history(task, 60, 10) for task in range(3)]
    store = HistoryStore.create(tmp_path / "s", written[0].space, num_steps=60)
    store.append(written)
    for history, expected in zip(HistoryStore.open(tmp_path / "s").read(), written, strict=True):
        assert history.space == expected.space
        assert_equal(history, expected)


def test_histories_that_do_not_fit_are_refused(store, make_history):
    with pytest.raises(ValueError, match="expected at most 60"):
        store.append([make_history(num_steps=61)])
    other = replace(make_history(), space=TaskSpace.symbolic((8, 8), 3))
    with pytest.raises(ValueError, match="got a history of TaskSpace"):
        store.append([other])
    with pytest.raises(IndexError, match="a range in 0 to 10"):
        store.read(5, 11)
