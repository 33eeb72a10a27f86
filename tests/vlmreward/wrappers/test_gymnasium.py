import gymnasium as gym
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env
from gymnasium.wrappers import AddRenderObservation, TransformReward
from minigrid.wrappers import ImgObsWrapper

from vlmreward import FakeEncoder, FrameError, Goal, RewardModel, SoftmaxHead, ThresholdHead
from vlmreward.wrappers import VLMReward


def test_pays_for_the_frame_that_the_action_led_to(scripted_env_class, reward_model):
    env = VLMReward(scripted_env_class(), reward_model, terminate_on_success=False)
    obs, _ = env.reset()
    for action in (0, 1, 0, 1):
        obs, reward, *_, info = env.step(action)
        scores = reward_model.score(obs["pixels"][None])
        assert reward == float(action == 1) == float(scores.reward[0])
        assert info["vlm_reward"] == reward
        assert info["vlm_score"] == float(scores.score[0])


def test_the_environments_own_reward_and_infos_are_kept(scripted_env_class, reward_model):
    env = VLMReward(scripted_env_class(), reward_model)
    _, info = env.reset()
    assert info == {"episode_index": 0, "goal_index": 0}
    *_, info = env.step(0)
    assert info["env_reward"] == 0.25
    assert info["success"] is False
    assert info["time"] == 1


def test_success_terminates_and_a_time_limit_truncates(scripted_env_class, reward_model):
    env = VLMReward(scripted_env_class(), reward_model)
    env.reset()
    _, reward, terminated, truncated, _ = env.step(1)
    assert (reward, terminated, truncated) == (1.0, True, False)
    env.reset()
    ends = [env.step(0)[2:4] for _ in range(4)]
    assert ends == [(False, False)] * 3 + [(False, True)]


def test_success_on_the_last_step_is_both(scripted_env_class, reward_model):
    env = VLMReward(scripted_env_class(horizon=1), reward_model)
    env.reset()
    assert env.step(1)[1:4] == (1.0, True, True)


def test_without_termination_episodes_go_on(scripted_env_class, reward_model):
    env = VLMReward(scripted_env_class(), reward_model, terminate_on_success=False)
    env.reset()
    steps = [env.step(1)[1:4] for _ in range(4)]
    assert steps == [(1.0, False, False)] * 3 + [(1.0, False, True)]


def test_the_environments_own_termination_stays(scripted_env_class, reward_model):
    env = VLMReward(scripted_env_class(), reward_model)
    env.reset()
    assert env.step(2)[1:4] == (0.0, True, False)


def test_the_goal_is_chosen_by_its_index(scripted_env_class, reward_model):
    env = VLMReward(scripted_env_class(), reward_model, goal_index=1)
    env.reset()
    assert env.step(0)[1] == 1.0
    with pytest.raises(IndexError, match="goal_index from 0 to 1, got 2"):
        VLMReward(scripted_env_class(), reward_model, goal_index=2)


def test_other_wrappers_go_around_it(scripted_env_class, reward_model):
    env = TransformReward(VLMReward(scripted_env_class(), reward_model), lambda r: 10 * r)
    env.reset()
    assert env.step(1)[1] == 10.0


@pytest.mark.filterwarnings("ignore:.*different from the unwrapped version.*")
def test_passes_gymnasiums_checker(scripted_env_class, reward_model):
    check_env(VLMReward(scripted_env_class(), reward_model), skip_render_check=True)


@pytest.mark.parametrize("render_mode", [None, "ansi"])
def test_other_render_modes_are_refused(reward_model, render_mode):
    env = gym.make("FrozenLake-v1", render_mode=render_mode)
    with pytest.raises(FrameError, match=f"got {render_mode!r}.*AddRenderObservation"):
        VLMReward(env, reward_model)


def test_an_environment_without_pixels_is_rendered(reward_model):
    env = VLMReward(gym.make("CartPole-v1", render_mode="rgb_array"), reward_model)
    env.reset(seed=0)
    *_, info = env.step(0)
    frame = env.render()
    assert info["vlm_score"] == float(reward_model.score(frame[None]).score[0])


def test_a_blank_rendering_is_refused(scripted_env_class, reward_model):
    class LostContext(scripted_env_class):
        def __init__(self):
            super().__init__()
            self.observation_space = gym.spaces.Discrete(2)

        def render(self):
            return np.zeros((8, 8, 3), np.uint8)

        def _obs(self):
            return 0

    env = VLMReward(LostContext(), reward_model)
    env.reset()
    with pytest.raises(FrameError, match="blank frame"):
        env.step(0)


def test_minigrid_is_paid_for_the_picture_it_shows():
    goal = Goal("a green room", negative_prompts=["a black room"])
    reward_model = RewardModel(FakeEncoder(), goal, ThresholdHead(SoftmaxHead(0.05), threshold=0.5))
    inner = gym.make("MiniGrid-Empty-5x5-v0", render_mode="rgb_array", highlight=False)
    env = VLMReward(AddRenderObservation(ImgObsWrapper(inner), render_only=False), reward_model)
    obs, _ = env.reset(seed=0)
    assert obs["state"].shape == (7, 7, 3)
    for action in (2, 2, 1, 2, 2):  # forward twice, turn right, forward twice: onto the goal
        obs, reward, terminated, _, info = env.step(action)
        scores = reward_model.score(obs["pixels"][None])
        assert reward == float(scores.reward[0])
        assert info["vlm_score"] == float(scores.score[0])
        np.testing.assert_array_equal(obs["pixels"], env.render())
    assert info["env_reward"] > 0
    assert terminated
