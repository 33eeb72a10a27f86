"""`VectorVLMReward` against single environments stepped and scored by hand, in every mode."""

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.vector import AsyncVectorEnv, AutoresetMode, SyncVectorEnv

from vlmreward import CosineHead, FakeEncoder, FrameError, Goal, RewardModel, RewardTiming
from vlmreward.goal_source import SampledGoals
from vlmreward.wrappers import VectorVLMReward
from vlmreward_envs.playroom import PlayroomVectorEnv

NUM_ENVS, NUM_STEPS = 3, 40


def make_vector(env_class, mode, vector_class=SyncVectorEnv):
    makers = [lambda index=index: env_class(index, horizon=3 + index) for index in range(NUM_ENVS)]
    return vector_class(makers, autoreset_mode=mode)


def by_hand(env_class, reward_model, actions, ends_on_success, index):
    """One environment: (frame led to, score, reward, terminated, truncated) of every step."""
    env = env_class(index, horizon=3 + index)
    env.reset(seed=index)
    for action in actions:
        obs, env_reward, terminated, truncated, _ = env.step(action)
        scores = reward_model.score(obs["pixels"][None], 0)
        reward = float(scores.reward[0])
        terminated = terminated or (ends_on_success and reward > 0)
        yield obs["pixels"], float(scores.score[0]), reward, terminated, truncated, env_reward
        if terminated or truncated:
            env.reset()


def draw_actions():
    return np.random.default_rng(0).integers(0, 3, (NUM_STEPS, NUM_ENVS))


@pytest.mark.parametrize("ends_on_success", [True, False])
@pytest.mark.parametrize("vector_class", [SyncVectorEnv, AsyncVectorEnv])
@pytest.mark.parametrize("mode", list(AutoresetMode))
def test_every_step_is_paid_for_the_frame_it_led_to(
    scripted_env_class, reward_model, mode, vector_class, ends_on_success
):
    inner = make_vector(scripted_env_class, mode, vector_class)
    envs = VectorVLMReward(inner, reward_model, terminate_on_success=ends_on_success)
    obs, _ = envs.reset(seed=0)
    actions = draw_actions()
    # Each environment takes its own actions in order; a step that only resets takes none.
    expected = [
        by_hand(scripted_env_class, reward_model, actions[:, index], ends_on_success, index)
        for index in range(NUM_ENVS)
    ]
    taken = np.zeros(NUM_ENVS, dtype=int)
    done = np.zeros(NUM_ENVS, dtype=bool)
    num_ends = 0
    while taken.max() < NUM_STEPS:
        resets = done & (mode is AutoresetMode.NEXT_STEP)
        if mode is AutoresetMode.DISABLED and done.any():
            obs, _ = envs.reset(options={"reset_mask": done.copy()})
        batch = actions[taken, np.arange(NUM_ENVS)]
        obs, rewards, terminated, truncated, infos = envs.step(batch)
        done = terminated | truncated
        for index in range(NUM_ENVS):
            if resets[index]:
                assert rewards[index] == 0.0
                assert np.isnan(infos["vlm_score"][index])
                assert not done[index]
                assert obs["pixels"][index][0, 0, 2] == 0  # the first frame of an episode
                continue
            taken[index] += 1
            frame, score, reward, is_terminated, is_truncated, env_reward = next(expected[index])
            assert rewards[index] == reward
            assert infos["vlm_score"][index] == pytest.approx(score, abs=1e-6)
            assert infos["env_reward"][index] == env_reward
            assert (terminated[index], truncated[index]) == (is_terminated, is_truncated)
            ended_at_once = mode is AutoresetMode.SAME_STEP and done[index]
            led_to = (
                infos["final_obs"][index]
                if ended_at_once
                else {key: values[index] for key, values in obs.items()}
            )
            assert np.array_equal(led_to["pixels"], frame)
            if ended_at_once:
                assert infos["_final_obs"][index]
                assert obs["pixels"][index][0, 0, 2] == 0
            num_ends += bool(done[index])
    assert num_ends > 10
    envs.close()


@pytest.mark.parametrize("mode", list(AutoresetMode))
def test_one_forward_pass_a_step(scripted_env_class, reward_model, encoder, mode):
    envs = VectorVLMReward(
        make_vector(scripted_env_class, mode), reward_model, terminate_on_success=False
    )
    envs.reset(seed=0)
    encoder.batch_sizes.clear()
    envs.step(np.zeros(NUM_ENVS, dtype=int))
    assert encoder.batch_sizes == [NUM_ENVS]


@pytest.mark.parametrize("mode", [AutoresetMode.SAME_STEP, AutoresetMode.NEXT_STEP])
def test_a_playroom_is_scored_as_well(reward_model, mode):
    rooms = PlayroomVectorEnv(4, max_episode_steps=3, autoreset_mode=mode, frame_size=32)
    envs = VectorVLMReward(rooms, reward_model)
    envs.reset(seed=0)
    for _ in range(10):
        obs, rewards, *_ = envs.step(envs.action_space.sample())
    assert rewards.shape == (4,)
    assert envs.observation_space.contains(obs)


def test_goals_are_drawn_anew_for_every_episode_and_shown(scripted_env_class, reward_model):
    source = SampledGoals([0, 1], np.random.default_rng(0))
    inner = make_vector(scripted_env_class, AutoresetMode.SAME_STEP)
    envs = VectorVLMReward(inner, reward_model, source, observe_goal=True)
    obs, _ = envs.reset(seed=0)
    embeddings = reward_model.goal_embeddings([0, 1]).numpy()
    seen = set()
    for action in draw_actions():
        before = envs.goal_index
        assert np.allclose(obs["goal_embedding"], embeddings[before])
        obs, rewards, terminated, truncated, infos = envs.step(action)
        assert np.array_equal(infos["goal_index"], before)
        for index in np.flatnonzero(terminated | truncated):
            last = infos["final_obs"][index]
            assert np.allclose(last["goal_embedding"], embeddings[before[index]])
            scores = reward_model.score(last["pixels"][None], int(before[index]))
            assert rewards[index] == float(scores.reward[0])
        seen |= set(envs.goal_index.tolist())
    assert seen == {0, 1}
    assert envs.observation_space.contains(obs)


def test_a_potential_difference_telescopes_over_each_episode(scripted_env_class):
    timing = RewardTiming(discount=1.0)
    reward_model = RewardModel(FakeEncoder(), Goal("a red room"), CosineHead(), timing)
    inner = make_vector(scripted_env_class, AutoresetMode.NEXT_STEP)
    envs = VectorVLMReward(inner, reward_model)
    obs, _ = envs.reset(seed=0)
    start = reward_model.score(obs["pixels"]).score.numpy()
    total = np.zeros(NUM_ENVS)
    ended = np.zeros(NUM_ENVS, dtype=bool)
    checked = 0
    for action in draw_actions():
        obs, rewards, terminated, truncated, _ = envs.step(action)
        phi = reward_model.score(obs["pixels"]).score.numpy()
        start, total = np.where(ended, phi, start), np.where(ended, 0.0, total + rewards)
        ended = terminated | truncated
        for index in np.flatnonzero(ended):
            last = 0.0 if terminated[index] else phi[index]
            assert total[index] == pytest.approx(last - start[index], abs=1e-5)
            checked += 1
    assert checked > 5


def test_environments_without_pixels_or_mode_are_refused(reward_model, scripted_env_class):
    with pytest.raises(FrameError, match="AddRenderObservation"):
        VectorVLMReward(gym.make_vec("CartPole-v1", 2), reward_model)
    envs = make_vector(scripted_env_class, AutoresetMode.SAME_STEP)
    envs.metadata = {}
    with pytest.raises(ValueError, match="to be an AutoresetMode, got None"):
        VectorVLMReward(envs, reward_model)
