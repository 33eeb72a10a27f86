import zipfile

import numpy as np
import pytest

from vlmreward import FrameError
from vlmreward.relabel import Episode, RecordingError, relabel_file, rewards_path

from .rollouts import colored, fake_model, save_flat, save_recording, save_zarr


class TestRecordings:
    @pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
    @pytest.mark.parametrize("name", ["pixels", "truncated"])
    def test_a_damaged_npz_is_refused(self, tmp_path, save, name):
        path = save_recording(tmp_path, save)
        data = bytearray(path.read_bytes())
        with zipfile.ZipFile(path) as archive:
            member = archive.getinfo(f"{name}.npy")
        data[member.header_offset + 30 + len(member.filename) + member.compress_size // 2] ^= 255
        path.write_bytes(data)
        with pytest.raises(RecordingError, match="damaged"):
            relabel_file(path, fake_model(), chunk_size=4)
        assert not rewards_path(path).exists()

    @pytest.mark.parametrize("share", [0.0, 0.3, 0.9])
    def test_an_npz_that_was_cut_short_is_refused(self, tmp_path, share):
        path = save_recording(tmp_path)
        path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])
        with pytest.raises(RecordingError, match="damaged"):
            relabel_file(path, fake_model())

    def test_a_zarr_that_lacks_a_chunk_is_refused(self, tmp_path):
        path = save_flat(
            tmp_path / "a.zarr", [Episode(colored(*["red"] * 12), False, True)], save_zarr
        )
        (path / "pixels" / "c" / "1" / "0" / "0" / "0").unlink()
        with pytest.raises(RecordingError, match="pixels has 2 of its 3 chunks"):
            relabel_file(path, fake_model())

    def test_a_damaged_zarr_is_refused(self, tmp_path):
        path = save_flat(
            tmp_path / "a.zarr", [Episode(colored(*["red"] * 12), False, True)], save_zarr
        )
        (path / "pixels" / "c" / "1" / "0" / "0" / "0").write_bytes(b"nonsense")
        with pytest.raises(RecordingError, match="pixels is damaged"):
            relabel_file(path, fake_model())

    def test_what_is_no_recording_is_refused(self, tmp_path):
        with pytest.raises(RecordingError, match="there is no recording"):
            relabel_file(tmp_path / "none.npz", fake_model())
        with pytest.raises(RecordingError, match="no zarr group"):
            relabel_file(tmp_path, fake_model(), output=tmp_path / "out.npz")
        text = tmp_path / "text.npz"
        text.write_text("not an archive")
        with pytest.raises(RecordingError, match="no npz file"):
            relabel_file(text, fake_model())
        np.save(tmp_path / "single.npy", colored("red"))
        with pytest.raises(RecordingError, match="no npz file"):
            relabel_file(tmp_path / "single.npy", fake_model())

    @pytest.mark.parametrize(
        ("changes", "error", "message"),
        [
            ({"pixels": None}, RecordingError, r"lacks \['pixels'\], got \['terminated'"),
            ({"truncated": None}, RecordingError, r"lacks \['truncated'\]"),
            ({"truncated": np.zeros(2, bool)}, RecordingError, "one row per frame"),
            ({"terminated": np.zeros(3)}, RecordingError, "terminated as bool, got dtype float64"),
            ({"episode_starts": np.zeros(3, bool)}, RecordingError, "True at the first frame"),
            (
                {"terminated": np.array([False, True, False])},
                RecordingError,
                "ended at frame 1 and goes on",
            ),
            (
                {"terminated": np.ones(3, bool), "episode_starts": np.ones(3, bool)},
                RecordingError,
                "frame 0 starts an episode and ends one",
            ),
            ({"pixels": np.zeros((3, 4, 4, 3))}, FrameError, "expected uint8 frames"),
            ({"pixels": np.zeros((3, 3, 4, 4), np.uint8)}, FrameError, "channels-first"),
            ({"pixels": np.zeros((3, 4, 4), np.uint8)}, FrameError, r"got \[1, 4, 4\]"),
            ({"pixels": np.zeros((0, 4, 4, 3), np.uint8)}, FrameError, "at least one frame"),
            (
                {"pixels": np.asfortranarray(np.zeros((3, 4, 4, 3), np.uint8))},
                RecordingError,
                "fortran_order=True",
            ),
            ({"pixels": np.array([object()] * 3)}, RecordingError, "dtype object"),
            ({"terminated": np.array([object()] * 3)}, RecordingError, "allow_pickle=False"),
        ],
    )
    def test_another_layout_is_refused(self, tmp_path, changes, error, message):
        arrays = {
            "pixels": colored("red", "green", "blue"),
            "terminated": np.zeros(3, bool),
            "truncated": np.zeros(3, bool),
        }
        arrays = {name: v for name, v in (arrays | changes).items() if v is not None}
        np.savez(tmp_path / "a.npz", **arrays)
        with pytest.raises(error, match=message):
            relabel_file(tmp_path / "a.npz", fake_model())
