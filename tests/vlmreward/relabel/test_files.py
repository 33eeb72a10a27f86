import json
import os
import signal
import subprocess
import sys
import textwrap
import time

import numpy as np
import pytest

from vlmreward import CosineHead, FakeEncoder, Goal, RewardModel
from vlmreward.relabel import Episode, RecordingError, load_rewards, relabel_file, rewards_path

from .rollouts import SIZE, colored, fake_model, save_flat, save_recording, save_zarr


class TestFiles:
    def test_the_result_says_what_it_is(self, tmp_path):
        path = save_recording(tmp_path, actions=np.arange(12))
        written = relabel_file(path, fake_model(), batch_size=2)
        assert written == rewards_path(path) == tmp_path / "rollout.vlm_reward.npz"
        metadata = load_rewards(written).metadata
        assert metadata["reward_model"] == json.loads(json.dumps(fake_model().config()))
        assert metadata["recording"] == "rollout.npz"
        assert (metadata["goal_index"], metadata["batch_size"]) == (0, 2)
        with np.load(written, allow_pickle=False) as file:
            assert sorted(file.files) == ["metadata", "reward", "score"]
        assert sorted(p.name for p in tmp_path.iterdir()) == ["rollout.npz", written.name]

    def test_a_file_is_not_overwritten_unasked(self, tmp_path):
        path = save_recording(tmp_path)
        relabel_file(path, fake_model())
        with pytest.raises(FileExistsError, match="overwrite=True"):
            relabel_file(path, fake_model())
        relabel_file(path, fake_model(), 1, overwrite=True)
        assert load_rewards(rewards_path(path)).metadata["goal_index"] == 1
        other = relabel_file(path, fake_model(), output=tmp_path / "other.npz")
        assert load_rewards(other).metadata["goal_index"] == 0

    @pytest.mark.parametrize("fails_in", ["encoder", "write"])
    def test_a_failure_leaves_nothing_and_an_older_result_stays(
        self, tmp_path, monkeypatch, fails_in
    ):
        path = save_recording(tmp_path)
        relabel_file(path, fake_model())
        before = rewards_path(path).read_bytes()
        model = fake_model()

        def fail(*args, **kwargs):
            raise KeyboardInterrupt

        if fails_in == "encoder":
            monkeypatch.setattr(model.encoder, "encode_obs", fail)
        else:
            monkeypatch.setattr(os, "replace", fail)
        with pytest.raises(KeyboardInterrupt):
            relabel_file(path, model, 1, overwrite=True)
        assert rewards_path(path).read_bytes() == before
        assert len(list(tmp_path.iterdir())) == 2

    def test_a_killed_run_leaves_nothing_under_the_final_name(self, tmp_path):
        path = save_recording(tmp_path)
        code = f"""
            import os, time
            from pathlib import Path
            from vlmreward import CosineHead, FakeEncoder, Goal, RewardModel
            from vlmreward.relabel import relabel_file

            def wait(*args):
                Path({str(tmp_path / "waiting")!r}).touch()
                time.sleep(600)

            os.replace = wait  # all is written, but has not got its name
            model = RewardModel(FakeEncoder(), Goal("a red room"), CosineHead())
            relabel_file(Path({str(path)!r}), model)
        """
        process = subprocess.Popen(
            [sys.executable, "-c", textwrap.dedent(code)], stdout=subprocess.DEVNULL
        )
        deadline = time.monotonic() + 300
        while not (tmp_path / "waiting").exists() and time.monotonic() < deadline:
            assert process.poll() is None
            time.sleep(0.05)
        assert (tmp_path / "waiting").exists()
        process.send_signal(signal.SIGKILL)
        process.wait()
        assert not rewards_path(path).exists()
        relabel_file(path, fake_model())

    def test_what_is_no_result_is_refused(self, tmp_path):
        with pytest.raises(RecordingError, match="make them with relabel_file"):
            load_rewards(tmp_path / "none.npz")
        with pytest.raises(RecordingError, match="holds no rewards"):
            load_rewards(save_recording(tmp_path))
        path = relabel_file(save_recording(tmp_path), fake_model())
        with np.load(path) as file:
            arrays = dict(file)
        np.savez(path, **arrays | {"metadata": np.array('{"format_version": 99}')})
        with pytest.raises(RecordingError, match="format version 99, expected 1"):
            load_rewards(path)

    def test_sizes_and_goals_are_checked(self, tmp_path):
        path = save_recording(tmp_path)
        for name in ("chunk_size", "batch_size"):
            with pytest.raises(ValueError, match=f"{name} of at least 1, got 0"):
                relabel_file(path, fake_model(), **{name: 0})
        with pytest.raises(ValueError, match="each of the 4 episodes, got shape"):
            relabel_file(path, fake_model(), [0, 1])
        with pytest.raises(IndexError, match="from 0 to 1, got 2"):
            relabel_file(path, fake_model(), 2)

    def test_memory_does_not_grow_with_the_recording(self, tmp_path):
        """No more frames are alive at once than two chunks."""
        alive = []

        class Watching(FakeEncoder):
            def encode_obs(self, obs):
                base = obs["pixels"]
                while base.base is not None and isinstance(base.base, np.ndarray):
                    base = base.base
                alive.append(base.nbytes)
                return super().encode_obs(obs)

        episodes = [Episode(colored(*["red"] * 200), False, True)]
        for save, name in ((np.savez_compressed, "a.npz"), (save_zarr, "b.zarr")):
            path = save_flat(tmp_path / name, episodes, save)
            model = RewardModel(Watching(), Goal("a red room"), CosineHead())
            relabel_file(path, model, chunk_size=10)
        assert max(alive) == 10 * SIZE * SIZE * 3
