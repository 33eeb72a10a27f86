import json
import os
import signal
import subprocess
import sys
import textwrap
import time
import zipfile

import gymnasium as gym
import numpy as np
import pytest
import torch
import zarr
from hypothesis import given
from hypothesis import strategies as st
from stable_baselines3.common.vec_env import DummyVecEnv

from vlmreward import (
    ContrastHead,
    CosineHead,
    FakeEncoder,
    FrameError,
    Goal,
    GoalBaselineHead,
    MissingModalityError,
    RewardModel,
    RewardTiming,
    SoftmaxHead,
    ThresholdHead,
)
from vlmreward.relabel import (
    Episode,
    RecordingError,
    load_rewards,
    relabel,
    relabel_file,
    relabel_minari,
    relabel_side_by_side,
    rewards_path,
)
from vlmreward.wrappers import VLMReward
from vlmreward.wrappers.sb3 import VecVLMReward

SIZE = 4

HEADS = {
    "cosine": CosineHead(),
    "softmax": SoftmaxHead(temperature=0.2),
    "threshold": ThresholdHead(CosineHead(), threshold=0.5),
    "contrast": ContrastHead(),
    "goal_baseline": GoalBaselineHead(alpha=0.5),
}
TIMINGS = {
    "every_step": RewardTiming(),
    "window": RewardTiming(window=3),
    "last_minus_first": RewardTiming(window=3, pooling="last_minus_first"),
    "potential": RewardTiming(discount=0.9),
    "potential_of_a_window": RewardTiming(window=2, pooling="max", discount=1.0),
    "every_third": RewardTiming(score_every=3),
    "episode_end": RewardTiming(score_every="episode_end"),
    "window_at_the_end": RewardTiming(window=4, score_every="episode_end"),
    "success_steps": RewardTiming(success_steps=2),
}


class BatchSensitiveEncoder(FakeEncoder):
    """Rounds a little differently in every size of batch, as a real encoder does."""

    def __init__(self):
        super().__init__()
        self.batch_sizes = []

    def encode_obs(self, obs):
        embedding = super().encode_obs(obs)
        self.batch_sizes.append(len(embedding))
        shift = 1e-6 * len(embedding) * torch.arange(self.embed_dim)
        return torch.nn.functional.normalize(embedding + shift, dim=1)


def reward_model_of(head=None, timing=None):
    goals = [
        Goal(f"a {color} room", negative_prompts=["a white room"], baseline_prompts=["a room"])
        for color in ("red", "blue")
    ]
    return RewardModel(BatchSensitiveEncoder(), goals, head or CosineHead(), timing)


class NoiseEnv(gym.Env):
    """Shows noise of its own seed; episodes differ in length and in how they end."""

    action_space = gym.spaces.Discrete(2)
    observation_space = gym.spaces.Dict(
        {"pixels": gym.spaces.Box(0, 255, (SIZE, SIZE, 3), np.uint8)}
    )
    render_mode = "rgb_array"

    def __init__(self, env_seed=0):
        self._rng = np.random.default_rng(env_seed)
        self.record = []

    def reset(self, *, seed=None, options=None):
        self._time = 0
        self._length = int(self._rng.integers(2, 7))
        self._terminates = bool(self._rng.integers(2))
        self.record.append({"pixels": [], "terminated": False, "truncated": False})
        return self._look(), {}

    def step(self, action):
        self._time += 1
        over = self._time >= self._length
        terminated, truncated = over and self._terminates, over and not self._terminates
        self.record[-1] |= {"terminated": terminated, "truncated": truncated}
        return self._look(), 0.0, terminated, truncated, {}

    def _look(self):
        frame = self._rng.integers(0, 256, (SIZE, SIZE, 3), dtype=np.uint8)
        self.record[-1]["pixels"].append(frame)
        return {"pixels": frame}

    def episodes(self, goal_index=0):
        return [
            Episode(np.stack(e["pixels"]), e["terminated"], e["truncated"], goal_index)
            for e in self.record
        ]


def play(reward_model, num_episodes=4, goal_index=0, **settings):
    """Lets the online wrapper pay, and returns what was shown and what was paid."""
    inner = NoiseEnv()
    env = VLMReward(inner, reward_model, goal_index, **settings)
    paid = []
    for _ in range(num_episodes):
        env.reset()
        ended, steps = False, []
        while not ended:
            _, reward, terminated, truncated, info = env.step(0)
            steps.append((reward, info["vlm_score"]))
            ended = terminated or truncated
        paid.append(np.array(steps, dtype=np.float32))
    return inner.episodes(goal_index), paid


def save_flat(path, episodes, save=np.savez, **others):
    """Writes episodes in the layout of a recording."""
    columns = {name: [] for name in ("pixels", "episode_starts", "terminated", "truncated")}
    for episode in episodes:
        num_steps = len(episode)
        columns["pixels"].append(episode.obs["pixels"])
        columns["episode_starts"].append([True, *[False] * num_steps])
        columns["terminated"].append([*[False] * num_steps, episode.terminated])
        columns["truncated"].append([*[False] * num_steps, episode.truncated])
    save(path, **{name: np.concatenate(parts) for name, parts in columns.items()}, **others)
    return path


def save_zarr(path, **arrays):
    group = zarr.create_group(path)
    for name, values in arrays.items():
        group.create_array(name, data=values, chunks=(5, *values.shape[1:]))


@pytest.mark.filterwarnings("ignore::vlmreward.guard.RewardDesignWarning")
class TestOnlineAndOfflineAgree:
    @pytest.mark.parametrize("timing", TIMINGS.values(), ids=TIMINGS)
    @pytest.mark.parametrize("head", HEADS.values(), ids=HEADS)
    def test_bit_for_bit_with_the_wrapper_of_one_environment(self, head, timing, tmp_path):
        reward_model = reward_model_of(head, timing)
        episodes, paid = play(reward_model, goal_index=1, terminate_on_success=False)
        online_batches = reward_model.encoder.batch_sizes.copy()
        reward_model.encoder.batch_sizes.clear()
        for episode, steps in zip(episodes, paid, strict=True):
            ends = {"terminated": episode.terminated, "truncated": episode.truncated}
            rewards = relabel(episode.obs, reward_model, 1, **ends)
            np.testing.assert_array_equal(rewards.reward, steps[:, 0])
            np.testing.assert_array_equal(rewards.score, steps[:, 1])
        assert reward_model.encoder.batch_sizes == online_batches

        for save, name in ((np.savez_compressed, "a.npz"), (save_zarr, "b.zarr")):
            path = save_flat(tmp_path / name, episodes, save)
            # Chunks that begin and end anywhere in an episode.
            written = relabel_file(path, reward_model, 1, chunk_size=5, show_progress=False)
            rewards = load_rewards(written)
            expected = np.concatenate([np.vstack([[np.nan] * 2, steps]) for steps in paid])
            np.testing.assert_array_equal(rewards.reward, expected[:, 0])
            np.testing.assert_array_equal(rewards.score, expected[:, 1])

    @pytest.mark.parametrize("timing", TIMINGS.values(), ids=TIMINGS)
    def test_to_rounding_in_larger_batches(self, timing):
        reward_model = reward_model_of(timing=timing)
        encoder = reward_model.encoder
        episodes, paid = play(reward_model)
        frames_online = sum(encoder.batch_sizes)
        encoder.batch_sizes.clear()
        for episode, steps in zip(episodes, paid, strict=True):
            ends = {"terminated": episode.terminated, "truncated": episode.truncated}
            rewards = relabel(episode.obs, reward_model, **ends, batch_size=4)
            # A pooled difference of nearly equal frames magnifies rounding.
            np.testing.assert_allclose(rewards.reward, steps[:, 0], atol=2e-4)
            np.testing.assert_allclose(rewards.score, steps[:, 1], atol=2e-4)
        assert sum(encoder.batch_sizes) == frames_online
        assert max(encoder.batch_sizes) > 1 or timing.score_every == "episode_end"

    @pytest.mark.parametrize("timing", TIMINGS.values(), ids=TIMINGS)
    @pytest.mark.parametrize("head", [HEADS["cosine"], HEADS["threshold"]], ids=str)
    def test_bit_for_bit_with_stable_baselines(self, head, timing):
        reward_model = reward_model_of(head, timing)
        inner = [NoiseEnv(seed) for seed in range(3)]
        venv = DummyVecEnv([lambda e=e: e for e in inner])
        venv = VecVLMReward(venv, reward_model, [0, 1, 0], terminate_on_success=False)
        venv.reset()
        paid = [[] for _ in inner]
        for _ in range(25):
            _, rewards, _, infos = venv.step(np.zeros(3, dtype=int))
            for lane, reward, info in zip(paid, rewards, infos, strict=True):
                lane.append((reward, info["vlm_score"]))
        lanes = [env.episodes(goal) for env, goal in zip(inner, (0, 1, 0), strict=True)]
        offline = relabel_side_by_side(lanes, reward_model)
        for lane, steps in zip(offline, paid, strict=True):
            expected = np.array(steps, dtype=np.float32)
            reward = np.concatenate([rewards.reward for rewards in lane])
            score = np.concatenate([rewards.score for rewards in lane])
            np.testing.assert_array_equal(reward, expected[:, 0])
            np.testing.assert_array_equal(score, expected[:, 1])

    def test_with_success_that_ends_episodes(self):
        reward_model = reward_model_of(ThresholdHead(CosineHead(), threshold=0.58))
        episodes, paid = play(reward_model, num_episodes=20)
        cut_by_success = [not (e.terminated or e.truncated) for e in episodes]
        assert any(cut_by_success)
        assert not all(cut_by_success)
        for episode, steps in zip(episodes, paid, strict=True):
            ends = {"terminated": episode.terminated, "truncated": episode.truncated}
            rewards = relabel(episode.obs, reward_model, **ends)
            np.testing.assert_array_equal(rewards.reward, steps[:, 0])
            assert (rewards.reward[:-1] == 0).all()

    @pytest.mark.parametrize("timing", [TIMINGS["every_step"], TIMINGS["window"]])
    def test_with_success_that_ends_episodes_side_by_side(self, timing):
        reward_model = reward_model_of(ThresholdHead(CosineHead(), threshold=0.55), timing)
        inner = [NoiseEnv(seed) for seed in range(2)]
        venv = VecVLMReward(DummyVecEnv([lambda e=e: e for e in inner]), reward_model)
        venv.reset()
        paid = np.stack([venv.step(np.zeros(2, dtype=int))[1] for _ in range(40)])
        lanes = [env.episodes() for env in inner]
        cut_by_success = [not (e.terminated or e.truncated) for lane in lanes for e in lane[:-1]]
        assert any(cut_by_success)
        assert not all(cut_by_success)
        for row, lane in enumerate(relabel_side_by_side(lanes, reward_model)):
            reward = np.concatenate([rewards.reward for rewards in lane])
            np.testing.assert_array_equal(reward, paid[:, row])


@given(
    lengths=st.lists(st.integers(1, 5), min_size=1, max_size=5),
    timing=st.sampled_from(list(TIMINGS.values())),
    chunk_size=st.integers(1, 9),
    batch_size=st.integers(1, 4),
    seed=st.integers(0, 99),
)
def test_neither_chunks_nor_neighbours_change_a_reward(
    tmp_path_factory, *, lengths, timing, chunk_size, batch_size, seed
):
    rng = np.random.default_rng(seed)
    reward_model = RewardModel(FakeEncoder(), Goal("a red room"), CosineHead(), timing)
    episodes = [
        Episode(rng.integers(0, 256, (length + 1, SIZE, SIZE, 3), dtype=np.uint8), *ends)
        for length, ends in zip(lengths, rng.integers(0, 2, (9, 2)) == 1, strict=False)
        for ends in [(bool(ends[0]), bool(ends[1]))]
    ]
    path = save_flat(tmp_path_factory.mktemp("recording") / "a.npz", episodes)
    settings = {"chunk_size": chunk_size, "batch_size": batch_size, "show_progress": False}
    rewards = load_rewards(relabel_file(path, reward_model, **settings))
    expected = []
    for episode in episodes:
        ends = {"terminated": episode.terminated, "truncated": episode.truncated}
        expected += [np.nan, *relabel(episode.obs, reward_model, **ends).reward]
    np.testing.assert_array_equal(rewards.reward, np.float32(expected))


def colored(*colors):
    channel = {"red": 0, "green": 1, "blue": 2}
    frames = np.zeros((len(colors), SIZE, SIZE, 3), np.uint8)
    for frame, color in zip(frames, colors, strict=True):
        frame[..., channel[color]] = 255
    return frames


def fake_model(timing=None):
    goals = [Goal("a red room"), Goal("a blue room")]
    return RewardModel(FakeEncoder(), goals, CosineHead(), timing)


class TestFrames:
    def test_the_last_frame_is_paid_for_and_the_resets_is_not(self):
        frames = colored("red", "blue", "blue", "red")
        rewards = relabel(frames, fake_model(), terminated=False, truncated=True)
        assert rewards.reward.tolist() == rewards.score.tolist() == [0, 0, 1]
        assert rewards.reward.dtype == np.float32

    @pytest.mark.parametrize("timing", [RewardTiming(), RewardTiming(score_every="episode_end")])
    def test_the_next_episodes_first_frame_never_enters(self, timing, tmp_path):
        episodes = [Episode(colored("red", "blue", "blue"), False, True)] * 3
        path = save_flat(tmp_path / "a.npz", episodes)
        reward = load_rewards(relabel_file(path, fake_model(timing))).reward.reshape(3, 3)
        assert np.isnan(reward[:, 0]).all()
        assert (reward[:, 1:] == 0).all()
        lanes = relabel_side_by_side([episodes, episodes[:1]], fake_model(timing))
        assert [len(lane) for lane in lanes] == [3, 1]
        assert all((rewards.reward == 0).all() for lane in lanes for rewards in lane)

    def test_a_window_does_not_reach_into_the_episode_before(self, tmp_path):
        episodes = [
            Episode(colored("red", "red"), False, True),
            Episode(colored("blue", "blue", "blue"), False, True),
        ]
        model = fake_model(RewardTiming(window=5))
        reward = load_rewards(relabel_file(save_flat(tmp_path / "a.npz", episodes), model)).reward
        np.testing.assert_array_equal(reward, np.float32([np.nan, 1, np.nan, 0, 0]))

    def test_a_true_end_has_no_potential(self):
        frames, model = colored("blue", "red", "red"), fake_model(RewardTiming(discount=0.5))
        cut = relabel(frames, model, terminated=False, truncated=np.array([False, True]))
        assert cut.reward.tolist() == [0.5, -0.5]
        ended = relabel(frames, model, terminated=np.array([False, True]), truncated=False)
        assert ended.reward.tolist() == [0.5, -1.0]

    def test_an_unfinished_episode_is_not_scored_as_if_it_had_ended(self):
        frames, model = colored("red", "red"), fake_model(RewardTiming(score_every="episode_end"))
        rewards = relabel(frames, model, terminated=False, truncated=False)
        assert rewards.reward.tolist() == [0]
        assert np.isnan(rewards.score).all()

    def test_each_episode_has_its_goal(self, tmp_path):
        episodes = [Episode(colored("red", "blue"), False, True, goal) for goal in (0, 1)]
        path = save_flat(tmp_path / "a.npz", episodes)
        reward = load_rewards(relabel_file(path, fake_model(), [0, 1])).reward
        np.testing.assert_array_equal(reward, np.float32([np.nan, 0, np.nan, 1]))
        (lane,) = relabel_side_by_side([episodes], fake_model())
        assert [rewards.reward.tolist() for rewards in lane] == [[0], [1]]

    def test_other_modalities_of_the_encoder_are_read(self, tmp_path):
        class Listening(FakeEncoder):
            modalities = ("pixels", "loudness")

            def encode_obs(self, obs):
                return super().encode_obs(obs) * torch.as_tensor(obs["loudness"])[:, None]

        model = RewardModel(Listening(), Goal("a red room"), CosineHead())
        obs = {"pixels": colored("red", "red", "red"), "loudness": np.float32([1, 0.5, 0.25])}
        ends = {"terminated": False, "truncated": True}
        assert relabel(obs, model, **ends).reward.tolist() == [0.5, 0.25]
        never = np.zeros(3, bool)
        np.savez(tmp_path / "a.npz", **obs, terminated=never, truncated=never)
        reward = load_rewards(relabel_file(tmp_path / "a.npz", model)).reward
        np.testing.assert_array_equal(reward, np.float32([np.nan, 0.5, 0.25]))
        with pytest.raises(MissingModalityError, match="loudness"):
            relabel(obs["pixels"], model, **ends)
        np.savez(tmp_path / "b.npz", pixels=obs["pixels"], terminated=never, truncated=never)
        with pytest.raises(RecordingError, match=r"lacks \['loudness'\]"):
            relabel_file(tmp_path / "b.npz", model)


class TestFiles:
    def recording(self, folder, save=np.savez, **others):
        episodes = [Episode(colored("blue", "red", "green"), False, True)] * 4
        return save_flat(folder / "rollout.npz", episodes, save, **others)

    def test_the_result_says_what_it_is(self, tmp_path):
        path = self.recording(tmp_path, actions=np.arange(12))
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
        path = self.recording(tmp_path)
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
        path = self.recording(tmp_path)
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
        path = self.recording(tmp_path)
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
        deadline = time.monotonic() + 120
        while not (tmp_path / "waiting").exists() and time.monotonic() < deadline:
            assert process.poll() is None
            time.sleep(0.05)
        process.send_signal(signal.SIGKILL)
        process.wait()
        assert not rewards_path(path).exists()
        relabel_file(path, fake_model())

    @pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
    @pytest.mark.parametrize("name", ["pixels", "truncated"])
    def test_a_damaged_npz_is_refused(self, tmp_path, save, name):
        path = self.recording(tmp_path, save)
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
        path = self.recording(tmp_path)
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

    def test_what_is_no_result_is_refused(self, tmp_path):
        with pytest.raises(RecordingError, match="make them with relabel_file"):
            load_rewards(tmp_path / "none.npz")
        with pytest.raises(RecordingError, match="holds no rewards"):
            load_rewards(self.recording(tmp_path))
        path = relabel_file(self.recording(tmp_path), fake_model())
        with np.load(path) as file:
            arrays = dict(file)
        np.savez(path, **arrays | {"metadata": np.array('{"format_version": 99}')})
        with pytest.raises(RecordingError, match="format version 99, expected 1"):
            load_rewards(path)

    def test_sizes_and_goals_are_checked(self, tmp_path):
        path = self.recording(tmp_path)
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


class TestEpisodes:
    def test_an_episode_shows_its_shapes(self):
        episode = Episode(colored("red", "red"), terminated=False, truncated=True, goal_index=1)
        assert repr(episode) == (
            "Episode(1 steps, {'pixels': [2, 4, 4, 3]}, terminated=False, truncated=True, "
            "goal_index=1)"
        )

    @pytest.mark.parametrize(
        ("flags", "message"),
        [
            (np.array([True, False, False]), "terminated in step 1 and goes on to step 3"),
            (np.zeros(4, bool), r"each of the 3 steps, got shape \[4\]"),
        ],
    )
    def test_flags_must_fit(self, flags, message):
        with pytest.raises(ValueError, match=message):
            relabel(colored(*["red"] * 4), fake_model(), terminated=flags, truncated=False)

    def test_a_reset_alone_earns_nothing(self):
        rewards = relabel(colored("red"), fake_model(), terminated=False, truncated=False)
        assert rewards.reward.shape == rewards.score.shape == (0,)
        (lane,) = relabel_side_by_side([[Episode(colored("red"), False, False)]], fake_model())
        assert [len(rewards.reward) for rewards in lane] == [0]

    def test_an_episode_has_a_frame(self):
        with pytest.raises(ValueError, match="at least the frame of the reset"):
            Episode(colored(), False, True)
        with pytest.raises(ValueError, match="modalities of one length"):
            Episode({"pixels": colored("red", "red"), "sound": np.zeros(3)}, False, True)
        reset = Episode(colored("red"), False, False)
        for lanes in ([], [[]], [[reset, reset]]):
            with pytest.raises(ValueError, match="each with an episode, and steps in all but"):
                relabel_side_by_side(lanes, fake_model())

    def test_what_is_no_frame_is_refused(self):
        with pytest.raises(FrameError, match="expected uint8"):
            relabel(np.zeros((2, 4, 4, 3)), fake_model(), terminated=False, truncated=True)


@pytest.mark.filterwarnings("ignore:.*is set to None:UserWarning", "ignore:env_spec is None")
class TestMinari:
    @pytest.fixture
    def minari(self, tmp_path, monkeypatch):
        monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path))
        return pytest.importorskip("minari")

    def dataset(self, minari, episodes, space, observations):
        from minari.data_collector.episode_buffer import EpisodeBuffer

        buffer = [
            EpisodeBuffer(
                observations=observations(episode),
                actions=np.zeros(len(episode), dtype=np.int64),
                rewards=[0.0] * len(episode),
                terminations=[*[False] * (len(episode) - 1), episode.terminated],
                truncations=[*[False] * (len(episode) - 1), episode.truncated],
                infos={},
            )
            for episode in episodes
        ]
        made = minari.create_dataset_from_buffers(
            "noise/frames-v0",
            buffer,
            observation_space=space,
            action_space=gym.spaces.Discrete(2),
            author="nobody",
            author_email="nobody@example.org",
            code_permalink="none",
            algorithm_name="noise",
            description="noise",
            jpeg_encoding=False,
        )
        return minari.load_dataset(made.id)

    @pytest.mark.filterwarnings("ignore::vlmreward.guard.RewardDesignWarning")
    @pytest.mark.parametrize("observed_as", ["dict", "frames"])
    def test_a_data_set_earns_what_was_paid_online(self, minari, observed_as):
        reward_model = reward_model_of(timing=RewardTiming(window=2, discount=0.9))
        episodes, paid = play(reward_model)
        space = NoiseEnv.observation_space
        if observed_as == "dict":
            dataset = self.dataset(minari, episodes, space, lambda episode: dict(episode.obs))
        else:
            dataset = self.dataset(minari, episodes, space["pixels"], lambda e: e.obs["pixels"])
        relabelled = list(relabel_minari(dataset, reward_model))
        assert len(relabelled) == len(paid)
        for rewards, steps in zip(relabelled, paid, strict=True):
            np.testing.assert_array_equal(rewards.reward, steps[:, 0])
            np.testing.assert_array_equal(rewards.score, steps[:, 1])
        with pytest.raises(ValueError, match="each of the 4 episodes"):
            relabel_minari(dataset, reward_model, [0, 1])

    def test_a_data_set_without_frames_is_refused(self, minari):
        space = gym.spaces.Dict({"position": gym.spaces.Box(-1, 1, (2,), np.float32)})
        episodes = [Episode(colored("red", "red"), False, True)]
        dataset = self.dataset(
            minari, episodes, space, lambda e: {"position": np.zeros((len(e) + 1, 2), np.float32)}
        )
        with pytest.raises(FrameError, match=r"'pixels', got a data set with \['position'\]"):
            list(relabel_minari(dataset, fake_model()))
