import gymnasium as gym
import numpy as np
import pytest

from vlmreward import FrameError, RewardTiming
from vlmreward.relabel import Episode, relabel_minari

from .rollouts import NoiseEnv, colored, fake_model, play, reward_model_of


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
