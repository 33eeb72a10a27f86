"""Replicas in one process, for the contract, and in two, for everything else."""

import os
import socket
import subprocess
import sys

import numpy as np
import pytest
import torch
import torch.distributed as dist

from vlmreward import FakeEncoder, load_encoder
from vlmreward.encoders import ReplicatedEncoder, run_with_replicas

from .test_contract import EncoderContract

TIMEOUT = 240  # seconds, of a test that waits for other processes: long, for a busy machine
SIZES = (1, 2, 7, 30)  # less than a row each, even, ragged, more than one exchange


def frames(num):
    return np.random.default_rng(num).integers(0, 256, (num, 40, 48, 3), dtype=np.uint8)


@pytest.fixture
def alone():
    """A group of one process."""
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    yield dist.group.WORLD
    dist.destroy_process_group()


class TestContract(EncoderContract):
    tolerance = 0.0

    @pytest.fixture
    def encoder(self, alone):
        return ReplicatedEncoder(FakeEncoder(), alone)


def test_a_group_of_one_does_the_work_and_ends(alone):
    def work(encoder):
        assert isinstance(encoder, ReplicatedEncoder)
        return encoder.encode_obs({"pixels": frames(3)})

    assert torch.equal(
        run_with_replicas(FakeEncoder(), work), FakeEncoder().encode_obs({"pixels": frames(3)})
    )


def test_without_a_launcher_the_work_gets_the_encoder_itself(monkeypatch):
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    encoder = FakeEncoder()
    assert run_with_replicas(encoder, lambda given: given) is encoder


def test_processes_that_have_not_met_are_told_to(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "4")
    with pytest.raises(RuntimeError, match=r"expected 4 processes .*PartialState\(\) first"):
        run_with_replicas(FakeEncoder(), lambda encoder: encoder)


SCRIPT = """
import os
import sys

import numpy as np
import torch
from accelerate import PartialState

from vlmreward import FakeEncoder, load_encoder
from vlmreward.encoders import CachedEncoder, replicas, run_with_replicas

FOLDER, *SIZES = sys.argv[1:]
replicas._ROWS_AT_ONCE = 8

def frames(num):
    return np.random.default_rng(num).integers(0, 256, (num, 40, 48, 3), dtype=np.uint8)

def encode(encoder):
    found = {size: encoder.encode_obs({"pixels": frames(int(size))}) for size in SIZES}
    found["tensor"] = encoder.encode_obs({"pixels": torch.from_numpy(frames(7))})
    constant = frames(7)
    constant.flags.writeable = False
    found["constant"] = encoder.encode_obs({"pixels": constant[::-1]})
    cached = CachedEncoder(encoder)
    found["cached"] = cached.encode_obs({"pixels": np.concatenate([frames(7), frames(7)])})
    assert cached.statistics.misses == 7
    return found

class Failing(FakeEncoder):
    def encode_obs(self, obs):
        asked = obs["pixels"].max()
        if asked == 1 + state.process_index:
            raise ValueError(f"trouble in process {state.process_index}")
        if asked == 3 and state.process_index == 1:
            os._exit(0)
        return super().encode_obs(obs)

def fail(encoder):
    for value in range(4):
        try:
            encoder.encode_obs({"pixels": np.full((4, 8, 8, 3), value, np.uint8)})
            print("encoded")
        except (ValueError, RuntimeError) as error:
            lines = str(error).splitlines()
            print(type(error).__name__, lines[0], lines[-1])
    raise KeyError("of the work")

state = PartialState(cpu=True)
own = load_encoder("playroom", device=state.device)
rows_of = []
encode_own = own.encode_obs
own.encode_obs = lambda obs: rows_of.append(len(obs["pixels"])) or encode_own(obs)
found = run_with_replicas(own, encode)
assert (found is None) == (state.process_index > 0)
np.savez(f"{FOLDER}/{state.process_index}.npz", rows_of=rows_of, **(found or {}))
try:
    run_with_replicas(Failing(), fail)
finally:
    state.destroy_process_group()
"""


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    """What two processes wrote, and what the first said and how it ended."""
    folder = tmp_path_factory.mktemp("replicas")
    (folder / "script.py").write_text(SCRIPT)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    # What torchrun sets, which itself would end one process when the other fails.
    shared = {
        "WORLD_SIZE": "2",
        "LOCAL_WORLD_SIZE": "2",
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
        "OMP_NUM_THREADS": "1",
        "CUDA_VISIBLE_DEVICES": "",
    }
    processes = [
        subprocess.Popen(
            [sys.executable, folder / "script.py", folder, *map(str, SIZES)],
            env=os.environ | shared | {"RANK": str(rank), "LOCAL_RANK": str(rank)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    try:
        said, errors = processes[0].communicate(timeout=TIMEOUT)
        processes[1].communicate(timeout=TIMEOUT)
    finally:
        for process in processes:
            process.kill()
            process.communicate()
    assert "of the work" in errors, errors
    found = [dict(np.load(folder / f"{rank}.npz")) for rank in range(2)]
    return found, said.splitlines(), errors.splitlines(), processes[0].returncode


@pytest.fixture(scope="module")
def single():
    return load_encoder("playroom", device="cpu")


@pytest.mark.parametrize("num", SIZES)
def test_two_processes_find_what_one_finds_in_order(pair, single, num):
    expected = single.encode_obs({"pixels": frames(num)}).numpy()
    np.testing.assert_allclose(pair[0][0][str(num)], expected, atol=1e-5, rtol=0)


def test_tensors_views_and_caches_are_encoded_alike(pair, single):
    expected = single.encode_obs({"pixels": frames(7)}).numpy()
    for name, rows in (
        ("tensor", expected),
        ("constant", expected[::-1]),
        ("cached", np.concatenate([expected, expected])),
    ):
        np.testing.assert_allclose(pair[0][0][name], rows, atol=1e-5, rtol=0)


def test_every_process_has_its_share(pair):
    first, second = (found["rows_of"].tolist() for found in pair[0])
    # 30 rows go in two exchanges, 16 at once; then come the tensor, the view and the cache's.
    assert first == [1, 1, 4, 8, 7, 4, 4, 4]
    assert second == [1, 3, 8, 7, 3, 3, 3]


def test_failures_in_any_process_reach_the_first_and_nobody_hangs(pair):
    _, said, errors, returncode = pair
    assert said[0] == "encoded"
    assert said[1] == "ValueError trouble in process 0 trouble in process 0"
    assert said[2].startswith("RuntimeError process 1 could not encode its share:")
    assert said[2].endswith("ValueError: trouble in process 1")
    assert said[3].startswith("RuntimeError"), "the other process is gone"
    assert errors[-1].endswith("KeyError: 'of the work'")
    assert returncode == 1
