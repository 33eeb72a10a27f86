import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from stable_baselines3.common.vec_env import DummyVecEnv

from vlmreward import CosineHead, FakeEncoder, Goal, RewardModel, ThresholdHead
from vlmreward.relabel import Episode, load_rewards, relabel, relabel_file, relabel_side_by_side
from vlmreward.wrappers.sb3 import VecVLMReward

from .rollouts import HEADS, SIZE, TIMINGS, NoiseEnv, play, reward_model_of, save_flat, save_zarr


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
