import numpy as np
import pytest
import torch

from vlmreward import (
    CosineHead,
    FakeEncoder,
    FrameError,
    Goal,
    MissingModalityError,
    RewardModel,
    RewardTiming,
)
from vlmreward.relabel import (
    Episode,
    RecordingError,
    load_rewards,
    relabel,
    relabel_file,
    relabel_side_by_side,
)

from .rollouts import colored, fake_model, save_flat


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
