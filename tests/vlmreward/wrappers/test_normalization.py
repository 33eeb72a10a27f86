"""Gymnasium's and SB3's normalisation of rewards around the wrappers, and what stays as it was.

Both divide by the standard deviation of a running discounted return. They compose with a wrapper if
every step that an action took is counted once, steps that only reset are not, and everything in the
infos is still in the reward's own unit.
"""

import functools

import dm_env
import gymnasium as gym
import numpy as np
import pytest
from gymnasium.vector import AutoresetMode, SyncVectorEnv
from gymnasium.wrappers import NormalizeReward, RecordEpisodeStatistics
from gymnasium.wrappers.vector import NormalizeReward as VectorNormalizeReward
from stable_baselines3 import SAC
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.vec_env import DummyVecEnv, VecExtractDictObs, VecNormalize

from vlmreward import (
    CosineHead,
    FakeEncoder,
    Goal,
    NormalizedHead,
    RewardModel,
    RewardTiming,
    ThresholdHead,
)
from vlmreward.wrappers import VectorVLMReward, VLMReward
from vlmreward.wrappers.dm_env import DmEnvVLMReward
from vlmreward.wrappers.sb3 import VecVLMReward

pytestmark = pytest.mark.filterwarnings("ignore::vlmreward.guard.RewardDesignWarning")

NUM_ENVS, NUM_STEPS, GAMMA, EPSILON = 3, 60, 0.9, 1e-8
PRIOR = 1e-4  # both libraries start from this many observations of mean 0 and variance 1
DENSE, BINARY = CosineHead(), ThresholdHead(CosineHead(), 0.65)


class NoiseEnv(gym.Env):
    """Shows noise; episodes differ in length and in how they end."""

    action_space = gym.spaces.Box(-1, 1, (1,), np.float32)
    observation_space = gym.spaces.Dict(
        {
            "pixels": gym.spaces.Box(0, 255, (4, 4, 3), np.uint8),
            "state": gym.spaces.Box(0, 10, (1,), np.float32),
        }
    )
    render_mode = None

    def __init__(self, env_id=0):
        self.rng = np.random.default_rng(env_id)

    def reset(self, *, seed=None, options=None):
        self.time, self.length = 0, int(self.rng.integers(2, 8))
        self.terminates = bool(self.rng.integers(2))
        return self._look(), {}

    def step(self, action):
        self.time += 1
        over = self.time >= self.length
        return self._look(), 7.0, over and self.terminates, over and not self.terminates, {}

    def _look(self):
        pixels = self.rng.integers(0, 200, (4, 4, 3), dtype=np.uint8)
        pixels[..., 0] += np.uint8(self.rng.integers(56))
        return {"pixels": pixels, "state": np.array([self.time], np.float32)}


ENV_FNS = [functools.partial(NoiseEnv, index) for index in range(NUM_ENVS)]


def reward_model_of(head=DENSE, timing=None):
    return RewardModel(FakeEncoder(), Goal("a red room"), head, timing)


def variance_of(returns):
    """What the running statistics of some discounted returns say in the end."""
    count, mean = len(returns), np.mean(returns)
    moment = count * np.var(returns) + PRIOR + mean**2 * count * PRIOR / (count + PRIOR)
    return moment / (count + PRIOR)


class TestOneEnvironment:
    def play(self, env, num_steps=NUM_STEPS):
        env.reset()
        steps = []
        for _ in range(num_steps):
            _, reward, terminated, truncated, info = env.step(np.zeros(1, np.float32))
            steps.append((float(np.ravel(reward)[0]), terminated, info))
            if terminated or truncated:
                env.reset()
        return steps

    @pytest.mark.parametrize("timing", [RewardTiming(), RewardTiming(discount=0.9)], ids=repr)
    def test_only_the_reward_is_scaled(self, timing):
        raw = self.play(VLMReward(NoiseEnv(), reward_model_of(timing=timing)))
        inner = VLMReward(NoiseEnv(), reward_model_of(timing=timing))
        env = NormalizeReward(inner, gamma=GAMMA, epsilon=EPSILON)
        accumulated, returns = 0.0, []
        for (reward, terminated, info), (own, _, own_info) in zip(self.play(env), raw, strict=True):
            assert info == own_info
            assert info["vlm_reward"] == own
            assert info["env_reward"] == 7.0
            accumulated = accumulated * GAMMA * (1 - terminated) + own
            returns.append(accumulated)
            scale = np.sqrt(variance_of(returns) + EPSILON)
            assert reward == pytest.approx(own / scale, rel=1e-6)

    def test_it_can_be_frozen_kept_and_given_to_another(self, tmp_path):
        trained = NormalizeReward(VLMReward(NoiseEnv(), reward_model_of()))
        self.play(trained)
        rms = trained.return_rms
        np.savez(tmp_path / "scale.npz", mean=rms.mean, var=rms.var, count=rms.count)

        env = NormalizeReward(VLMReward(NoiseEnv(5), reward_model_of()))
        env.update_running_mean = False
        with np.load(tmp_path / "scale.npz") as saved:
            env.return_rms.mean, env.return_rms.var = saved["mean"], saved["var"]
            env.return_rms.count = saved["count"]
        steps = self.play(env)
        assert env.return_rms.var == rms.var
        assert env.return_rms.count == rms.count == NUM_STEPS + PRIOR
        for reward, _, info in steps:
            assert reward == pytest.approx(info["vlm_reward"] / np.sqrt(rms.var + 1e-8))

    def test_statistics_of_episodes_inside_are_in_the_rewards_own_unit(self):
        counted = RecordEpisodeStatistics(VLMReward(NoiseEnv(), reward_model_of()))
        env, total, num_episodes = NormalizeReward(counted), 0.0, 0
        for _, _, info in self.play(env):
            total += info["vlm_reward"]
            if "episode" in info:
                assert info["episode"]["r"] == pytest.approx(total)
                total, num_episodes = 0.0, num_episodes + 1
        assert num_episodes > 5


class TestVectorEnvironments:
    def make(self, mode, head=DENSE):
        return VectorVLMReward(SyncVectorEnv(ENV_FNS, autoreset_mode=mode), reward_model_of(head))

    def play(self, envs, num_steps=NUM_STEPS):
        """Steps in any mode; returns the rewards, the ends, the infos, and who did more than reset.

        In the mode without resets, whoever has ended is reset.
        """
        mode = envs.metadata["autoreset_mode"]
        envs.reset()
        ended = np.zeros(NUM_ENVS, dtype=bool)
        steps = []
        for _ in range(num_steps):
            acted = ~ended if mode is AutoresetMode.NEXT_STEP else np.ones(NUM_ENVS, dtype=bool)
            _, rewards, terminated, truncated, infos = envs.step(np.zeros((NUM_ENVS, 1)))
            ended = terminated | truncated
            steps.append((rewards, terminated, ended, infos, acted))
            if mode is AutoresetMode.DISABLED and ended.any():
                envs.reset(options={"reset_mask": ended.copy()})
        return steps

    @pytest.mark.parametrize("head", [DENSE, BINARY], ids=["dense", "success_ends"])
    @pytest.mark.parametrize("mode", AutoresetMode)
    def test_only_the_reward_is_scaled_and_resets_are_not_counted(self, mode, head):
        raw = self.play(self.make(mode, head))
        envs = VectorNormalizeReward(self.make(mode, head), gamma=GAMMA, epsilon=EPSILON)
        accumulated, returns = np.zeros(NUM_ENVS), []
        for step, own_step in zip(self.play(envs), raw, strict=True):
            rewards, _, _, infos, _ = step
            own, terminated, ended, own_infos, acted = own_step
            for key in ("env_reward", "vlm_score", "goal_index"):
                np.testing.assert_array_equal(infos[key], own_infos[key])
            assert (infos["env_reward"][acted] == 7.0).all()
            assert (own[~acted] == 0).all()
            goes_on = GAMMA * (1 - terminated)
            accumulated = np.where(acted, accumulated * goes_on + own, accumulated)
            returns += accumulated[acted].tolist()
            scale = np.sqrt(variance_of(returns) + EPSILON)
            np.testing.assert_allclose(rewards, own / scale, rtol=1e-4)
            if mode is AutoresetMode.SAME_STEP:
                accumulated[ended] = 0
            elif mode is AutoresetMode.DISABLED and ended.any():
                accumulated[:] = 0  # Gymnasium's wrapper forgets everywhere at any reset
        assert envs.return_rms.count == pytest.approx(len(returns) + PRIOR)
        assert sum(ended.sum() for _, _, ended, _, _ in raw) > 20

    @pytest.mark.parametrize("mode", AutoresetMode)
    def test_it_can_be_frozen_and_given_to_another(self, mode):
        trained = VectorNormalizeReward(self.make(mode))
        self.play(trained)
        envs = VectorNormalizeReward(self.make(mode))
        envs.update_running_mean = False
        envs.return_rms = trained.return_rms
        before = float(trained.return_rms.var)
        raw = self.play(self.make(mode))
        for step, own in zip(self.play(envs), raw, strict=True):
            np.testing.assert_allclose(step[0], own[0] / np.sqrt(before + 1e-8))
        assert trained.return_rms.var == before


class DmEnv(dm_env.Environment):
    """The same noise for `dm_env`."""

    def __init__(self):
        self.inner = NoiseEnv()

    def reset(self):
        return dm_env.restart(self.inner.reset()[0])

    def step(self, action):
        obs, reward, terminated, truncated, _ = self.inner.step(action)
        if terminated or truncated:
            return dm_env.termination(reward, obs) if terminated else dm_env.truncation(reward, obs)
        return dm_env.transition(reward, obs)

    def observation_spec(self):
        return {"pixels": dm_env.specs.Array((4, 4, 3), np.uint8)}

    def action_spec(self):
        return dm_env.specs.Array((1,), np.float32)


def test_dm_env_is_paid_on_the_scale_of_a_normalized_head():
    head = NormalizedHead(DENSE, mean=0.5, std=0.1)
    raw, scaled = (DmEnvVLMReward(DmEnv(), reward_model_of(h)) for h in (DENSE, head))
    num_paid = 0
    for _ in range(NUM_STEPS):
        own, step = raw.step(np.zeros(1)), scaled.step(np.zeros(1))
        assert own.step_type == step.step_type
        if not step.first():
            assert step.reward == pytest.approx((own.reward - 0.5) / 0.1, abs=1e-5)
            assert scaled.last_info["env_reward"] == 7.0
            assert scaled.last_info["vlm_score"] == raw.last_info["vlm_score"]
            num_paid += 1
    assert num_paid > 30


class TestStableBaselines:
    def make(self, head=DENSE):
        return VecVLMReward(DummyVecEnv(ENV_FNS), reward_model_of(head))

    def play(self, venv, num_steps=NUM_STEPS):
        venv.reset()
        return [venv.step(np.zeros((NUM_ENVS, 1), np.float32))[1:] for _ in range(num_steps)]

    @pytest.mark.parametrize("head", [DENSE, BINARY], ids=["dense", "success_ends"])
    def test_only_the_reward_is_scaled(self, head):
        raw = self.play(self.make(head))
        venv = VecNormalize(self.make(head), norm_obs=False, gamma=GAMMA, clip_reward=np.inf)
        venv.reset()
        accumulated, returns, num_episodes = np.zeros(NUM_ENVS), [], 0
        for own, own_dones, own_infos in raw:
            _, rewards, dones, infos = venv.step(np.zeros((NUM_ENVS, 1), np.float32))
            np.testing.assert_array_equal(venv.get_original_reward(), own)
            accumulated = accumulated * GAMMA + own
            returns += accumulated.tolist()
            scale = np.sqrt(variance_of(returns) + EPSILON)
            np.testing.assert_allclose(rewards, own / scale, rtol=1e-5)
            np.testing.assert_array_equal(dones, own_dones)
            accumulated[dones] = 0
            for info, own_info in zip(infos, own_infos, strict=True):
                assert info["env_reward"] == own_info["env_reward"] == 7.0
                assert info["vlm_score"] == own_info["vlm_score"]
                if "episode" in own_info:
                    assert info["episode"]["r"] == own_info["episode"]["r"]
                    assert info["env_episode_return"] == own_info["env_episode_return"]
                    num_episodes += 1
        assert num_episodes > 20

    def test_it_can_be_frozen_saved_and_loaded(self, tmp_path):
        trained = VecNormalize(self.make(), norm_obs=False)
        self.play(trained)
        trained.save(tmp_path / "scale.pkl")
        venv = VecNormalize.load(tmp_path / "scale.pkl", self.make())
        venv.training = False
        before = float(trained.ret_rms.var)
        for (rewards, *_), (own, *_) in zip(self.play(venv), self.play(self.make()), strict=True):
            expected = np.clip(own / np.sqrt(before + 1e-8), -10, 10)
            np.testing.assert_allclose(rewards, expected, rtol=1e-6)
        assert venv.ret_rms.var == before

    def test_an_off_policy_learner_keeps_rewards_in_their_own_unit(self):
        venv = VecNormalize(VecExtractDictObs(self.make(), "state"), norm_obs=False)
        agent = SAC("MlpPolicy", venv, buffer_size=300, learning_starts=20, seed=0, device="cpu")
        agent.learn(60)
        buffer = agent.replay_buffer
        raw = np.stack([rewards for rewards, *_ in self.play(self.make(), buffer.pos)])
        np.testing.assert_array_equal(buffer.rewards[: buffer.pos], raw)
        sampled = buffer._get_samples(np.arange(buffer.pos), env=venv).rewards.numpy()
        scale = np.sqrt(venv.ret_rms.var + EPSILON)
        to_nearest = np.abs(sampled * scale - raw).min(axis=1)  # whichever environment was drawn
        np.testing.assert_allclose(to_nearest, 0, atol=1e-5)
        assert abs(scale - 1) > 0.01

        evaluated = VecNormalize(VecExtractDictObs(self.make(), "state"), norm_obs=False)
        evaluated.training = evaluated.norm_reward = False
        returns, _ = evaluate_policy(
            agent, evaluated, n_eval_episodes=9, return_episode_rewards=True, warn=False
        )
        own = [
            info["episode"]["r"]
            for _, _, infos in self.play(self.make())
            for info in infos
            if "episode" in info
        ]
        # Actions do not matter in this environment: episodes are those of any policy.
        assert set(np.round(returns, 4)) <= set(np.round(own, 4))
