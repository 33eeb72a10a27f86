"""Rewards that come later against the wrapper that pays at once, with real learners."""

import functools
import threading

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium.vector import AutoresetMode, SyncVectorEnv
from stable_baselines3 import DQN, PPO, SAC, TD3
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.vec_env import (
    DummyVecEnv,
    SubprocVecEnv,
    VecExtractDictObs,
    VecNormalize,
    is_vecenv_wrapped,
)

from vlmreward import (
    CosineHead,
    FakeEncoder,
    Goal,
    OpenCLIPEncoder,
    RewardModel,
    RewardTiming,
    SoftmaxHead,
    ThresholdHead,
)
from vlmreward.encoders import build_model, build_tokenizer
from vlmreward.goal_source import SampledGoals
from vlmreward.monitor import RewardMonitor
from vlmreward.wrappers.sb3 import VectorEnvAdapter, VecVLMReward, VLMRewardCallback
from vlmreward.wrappers.sb3_deferred import (
    DeferredDictReplayBuffer,
    DeferredReplayBuffer,
    DeferredVecVLMReward,
)
from vlmreward.wrappers.sb3_monitor import RewardMonitorCallback

NUM_ENVS = 3
GOALS = [Goal("a red room", ["a green room"]), Goal("a blue room", ["a green room"])]


def make_noise_env_class():
    """Builds the class inside a function, so that it can be sent to other processes."""

    class NoiseEnv(gym.Env):
        """Shows noise, with the action in it; episodes differ in length and in how they end."""

        render_mode = None

        def __init__(self, env_id=0, size=4, discrete=False):
            self.size, self.discrete = size, discrete
            self.rng = np.random.default_rng(env_id)
            self.action_space = (
                gym.spaces.Discrete(2) if discrete else gym.spaces.Box(-1, 1, (1,), np.float32)
            )
            self.observation_space = gym.spaces.Dict(
                {
                    "pixels": gym.spaces.Box(0, 255, (size, size, 3), np.uint8),
                    "state": gym.spaces.Box(-1, 10, (2,), np.float32),
                }
            )

        def reset(self, *, seed=None, options=None):
            self.time, self.length = 0, int(self.rng.integers(2, 8))
            self.terminates = bool(self.rng.integers(2))
            return self._look(0.0), {}

        def step(self, action):
            self.time += 1
            over = self.time >= self.length
            obs = self._look(float(np.ravel(action)[0]))
            return obs, 1.0, over and self.terminates, over and not self.terminates, {}

        def _look(self, action):
            pixels = self.rng.integers(0, 200, (self.size, self.size, 3), dtype=np.uint8)
            pixels[..., 0] += np.uint8(25 * (1 + action))
            return {"pixels": pixels, "state": np.array([action, self.time], np.float32)}

    return NoiseEnv


NoiseEnv = make_noise_env_class()


def base_venv(kind="dummy", **settings):
    env_fns = [functools.partial(make_noise_env_class(), i, **settings) for i in range(NUM_ENVS)]
    if kind == "adapter":
        return VectorEnvAdapter(SyncVectorEnv(env_fns, autoreset_mode=AutoresetMode.SAME_STEP))
    return {"dummy": DummyVecEnv, "subproc": SubprocVecEnv}[kind](env_fns)


def reward_model_of(timing=None, encoder=None):
    return RewardModel(encoder or FakeEncoder(), GOALS, CosineHead(), timing)


def make_venvs(reward_model, *, batch_size=40, **settings):
    """The wrapper that pays at once, and the one that pays later."""
    goals = [0, 1, 0]
    now = VecVLMReward(base_venv(**settings), reward_model, goals)
    later = DeferredVecVLMReward(base_venv(**settings), reward_model, goals, batch_size=batch_size)
    return now, later


def train(algorithm, venv, num_steps=120, callback=None, **settings):
    """A small learner, whose buffer fills rewards in if they come later."""
    observes_dicts = isinstance(venv.observation_space, gym.spaces.Dict)
    venv.seed(0)
    venv.action_space.seed(0)
    is_deferred = is_vecenv_wrapped(venv, DeferredVecVLMReward)
    if is_deferred:
        buffer_class = DeferredDictReplayBuffer if observes_dicts else DeferredReplayBuffer
        settings["replay_buffer_class"] = buffer_class
    defaults = {
        "learning_starts": 30,
        "train_freq": 2,
        "buffer_size": 600,
        "batch_size": 16,
        "policy_kwargs": {"net_arch": [8]},
    }
    policy = "MultiInputPolicy" if observes_dicts else "MlpPolicy"
    agent = algorithm(policy, venv, seed=0, device="cpu", **(defaults | settings))
    agent.learn(num_steps, callback=callback)
    if is_deferred:
        agent.replay_buffer.settle()
    return agent


def check_same_buffers(got, expected, reward_tolerance=0.0):
    assert got.pos == expected.pos
    assert got.full == expected.full
    size = expected.buffer_size if expected.full else expected.pos
    assert expected.dones[:size].sum() > expected.timeouts[:size].sum() > 0
    for name in ("observations", "next_observations", "actions", "dones", "timeouts"):
        ours, theirs = getattr(got, name), getattr(expected, name)
        if not isinstance(theirs, dict):
            ours, theirs = {name: ours}, {name: theirs}
        assert ours.keys() == theirs.keys()
        for key, values in theirs.items():
            np.testing.assert_array_equal(ours[key][:size], values[:size])
    assert np.isfinite(expected.rewards[:size]).all()
    assert len(np.unique(expected.rewards[:size])) > 5
    if reward_tolerance:
        np.testing.assert_allclose(
            got.rewards[:size], expected.rewards[:size], rtol=0, atol=reward_tolerance
        )
    else:
        np.testing.assert_array_equal(got.rewards[:size], expected.rewards[:size])


def check_same_policies(got, expected):
    for ours, theirs in zip(got.policy.parameters(), expected.policy.parameters(), strict=True):
        assert torch.equal(ours, theirs)


class Recorder(BaseCallback):
    """Remembers the infos at the ends of episodes, and in between that there is nothing to tell."""

    def __init__(self):
        super().__init__()
        self.episodes, self.steps = [], []

    def _on_step(self):
        for index, info in enumerate(self.locals["infos"]):
            self.steps.append((info["env_reward"], info["goal_index"]))
            assert ("episode" in info) == bool(self.locals["dones"][index])
            if "episode" in info:
                record = info["episode"]
                self.episodes.append((index, record["r"], record["l"], info["env_episode_return"]))
        return True


@pytest.mark.filterwarnings("ignore::vlmreward.guard.RewardDesignWarning")
class TestSameAsAtOnce:
    @pytest.mark.parametrize(
        ("algorithm", "kind"), [(SAC, "dummy"), (SAC, "subproc"), (TD3, "adapter")]
    )
    def test_a_learner_from_states_learns_the_same(self, algorithm, kind):
        recorders = [Recorder(), Recorder()]
        agents = []
        for venv, recorder in zip(make_venvs(reward_model_of(), kind=kind), recorders, strict=True):
            agents.append(train(algorithm, VecExtractDictObs(venv, "state"), callback=recorder))
            venv.close()
        check_same_buffers(agents[1].replay_buffer, agents[0].replay_buffer)
        check_same_policies(agents[1], agents[0])
        assert recorders[1].episodes == recorders[0].episodes
        assert recorders[1].steps == recorders[0].steps
        assert len(recorders[0].episodes) > 10
        assert agents[0].num_timesteps == agents[1].num_timesteps >= 120

    def test_a_learner_from_pixels_learns_the_same(self):
        venvs = make_venvs(reward_model_of(), size=36, discrete=True)
        agents = [train(DQN, venv, 60) for venv in venvs]
        assert "pixels" in agents[1].replay_buffer.observations
        check_same_buffers(agents[1].replay_buffer, agents[0].replay_buffer)
        check_same_policies(agents[1], agents[0])

    @pytest.mark.parametrize(
        "timing",
        [
            RewardTiming(window=3),
            RewardTiming(discount=0.9),
            RewardTiming(score_every=2),
            RewardTiming(window=4, score_every="episode_end"),
        ],
        ids=repr,
    )
    @pytest.mark.parametrize("batch_size", [1, 7, 1000])
    def test_whatever_the_timing_and_the_batch(self, timing, batch_size):
        venvs = make_venvs(reward_model_of(timing), batch_size=batch_size)
        agents = [train(SAC, VecExtractDictObs(venv, "state"), 60) for venv in venvs]
        check_same_buffers(agents[1].replay_buffer, agents[0].replay_buffer)

    @pytest.mark.parametrize("num_rows", [4, 20])
    def test_where_the_buffer_goes_round(self, num_rows):
        agents = [
            train(DQN, venv, 100, buffer_size=NUM_ENVS * num_rows, train_freq=16)
            for venv in make_venvs(reward_model_of(), discrete=True, size=36, batch_size=1000)
        ]
        assert agents[0].replay_buffer.full
        check_same_buffers(agents[1].replay_buffer, agents[0].replay_buffer)

    def test_to_rounding_with_a_real_encoder_in_larger_batches(self):
        config = {
            "embed_dim": 16,
            "vision_cfg": {"image_size": 16, "layers": 2, "width": 32, "head_width": 16,
                           "patch_size": 8},
            "text_cfg": {"context_length": 8, "vocab_size": 49408, "width": 32, "heads": 2,
                         "layers": 1},
        }  # fmt: skip
        encoder = OpenCLIPEncoder(build_model(config), build_tokenizer(config), name="tiny")
        buffers = [
            # Nothing is learned, so that actions do not depend on rewards.
            train(SAC, VecExtractDictObs(venv, "state"), 90, learning_starts=1000).replay_buffer
            for venv in make_venvs(reward_model_of(encoder=encoder))
        ]
        check_same_buffers(buffers[1], buffers[0], reward_tolerance=1e-5)

    def test_with_goals_drawn_per_episode_and_observed(self):
        buffers = []
        for wrapper in (VecVLMReward, DeferredVecVLMReward):
            draws = SampledGoals([0, 1], np.random.default_rng(0))
            venv = wrapper(base_venv(discrete=True), reward_model_of(), draws, observe_goal=True)
            venv = VecExtractDictObs(venv, "goal_embedding")
            buffers.append(train(DQN, venv, 90).replay_buffer)
        check_same_buffers(buffers[1], buffers[0])
        assert len(np.unique(buffers[0].observations[:30], axis=0)) > 1

    def test_with_statistics_frozen_in_an_earlier_run(self):
        agents = []
        for venv in make_venvs(reward_model_of()):
            normalized = VecNormalize(VecExtractDictObs(venv, "state"), training=False)
            normalized.ret_rms.var = 0.01
            agents.append(train(SAC, normalized))
        check_same_buffers(agents[1].replay_buffer, agents[0].replay_buffer)
        check_same_policies(agents[1], agents[0])

    def test_what_is_logged(self):
        logged = []
        for venv in make_venvs(reward_model_of()):
            callback = VLMRewardCallback()
            train(SAC, VecExtractDictObs(venv, "state"), callback=callback)
            logged.append(callback.logger.name_to_value)
        for name in ("vlm_reward/episode_return", "env_reward/episode_return"):
            assert np.isfinite(logged[0][name])
            assert logged[1][name] == logged[0][name]


class CountingEncoder(FakeEncoder):
    """Remembers how many frames each forward pass had, and where it ran."""

    def __init__(self):
        super().__init__()
        self.batch_sizes, self.threads = [], set()

    def encode_obs(self, obs):
        self.batch_sizes.append(len(obs["pixels"]))
        self.threads.add(threading.get_ident())
        return super().encode_obs(obs)


@pytest.mark.filterwarnings("ignore::vlmreward.guard.RewardDesignWarning")
class TestBatches:
    def deferred(self, encoder, timing=None, batch_size=1000, num_envs=1):
        env_fns = [functools.partial(NoiseEnv, index) for index in range(num_envs)]
        reward_model = reward_model_of(timing, encoder)
        venv = DeferredVecVLMReward(DummyVecEnv(env_fns), reward_model, batch_size=batch_size)
        return VecExtractDictObs(venv, "state")

    @pytest.mark.parametrize("timing", [RewardTiming(), RewardTiming(window=20)], ids=repr)
    def test_the_frames_of_an_episode_are_one_batch_in_a_thread_of_its_own(self, timing):
        encoder, recorder = CountingEncoder(), Recorder()
        venv = self.deferred(encoder, timing)
        train(SAC, venv, 40, callback=recorder, train_freq=(1, "episode"), gradient_steps=1)
        lengths = [length for _, _, length, _ in recorder.episodes]
        with_first = int(timing.window > 1)  # the frame of the reset has a part in a window
        assert encoder.batch_sizes == [length + with_first for length in lengths]
        assert len(lengths) > 5
        assert encoder.threads.isdisjoint({threading.get_ident()})

    def test_full_batches_do_not_wait_for_the_end_of_an_episode(self):
        encoder = CountingEncoder()
        train(SAC, self.deferred(encoder, batch_size=2), 40, learning_starts=1000)
        assert max(encoder.batch_sizes) == 2
        assert encoder.batch_sizes.count(2) > 10

    def test_gradient_steps_that_sample_old_transitions_wait_for_nothing(self):
        encoder = CountingEncoder()
        agent = train(SAC, self.deferred(encoder, num_envs=NUM_ENVS), 30, learning_starts=1000)
        buffer = agent.replay_buffer
        num_batches = len(encoder.batch_sizes)
        venv = agent.env
        while True:  # until a step after which rewards are pending
            action = np.zeros((NUM_ENVS, 1), np.float32)
            obs, reward, dones, infos = venv.step(action)
            buffer.add(obs, obs, action, reward, dones, infos)
            if not dones.any():
                break
            num_batches = len(encoder.batch_sizes)
        position = buffer.pos - 1
        assert np.isnan(buffer.rewards[position]).all()
        samples = buffer._get_samples(np.arange(position))
        assert samples.rewards.isfinite().all()
        assert len(encoder.batch_sizes) == num_batches
        samples = buffer._get_samples(np.full(10, position))
        assert samples.rewards.isfinite().all()
        assert len(encoder.batch_sizes) == num_batches + 1

    def test_a_saved_buffer_has_its_rewards(self, tmp_path):
        agent = SAC(
            "MlpPolicy", self.deferred(CountingEncoder()), learning_starts=1000, device="cpu",
            buffer_size=100, replay_buffer_class=DeferredReplayBuffer,
        )  # fmt: skip
        agent.learn(30)
        pending = np.isnan(agent.replay_buffer.rewards[:30])
        agent.save_replay_buffer(tmp_path / "buffer.pkl")
        agent.load_replay_buffer(tmp_path / "buffer.pkl")
        assert pending.any()
        assert np.isfinite(agent.replay_buffer.rewards[:30]).all()
        agent.learn(10, reset_num_timesteps=False)
        agent.replay_buffer.settle()
        assert np.isfinite(agent.replay_buffer.rewards[:40]).all()

    def test_training_goes_on_after_a_reset(self):
        agent = train(SAC, self.deferred(CountingEncoder()), 30)
        agent.learn(30)  # resets the environments, with rewards pending
        agent.replay_buffer.settle()
        assert np.isfinite(agent.replay_buffer.rewards[:60]).all()


class TestRefusals:
    def deferred(self, head=None, **settings):
        model = RewardModel(FakeEncoder(), GOALS, head or CosineHead())
        return DeferredVecVLMReward(base_venv(), model, **settings)

    def test_success_that_ends_episodes(self):
        binary = ThresholdHead(SoftmaxHead(0.1), threshold=0.5)
        with pytest.raises(ValueError, match="pass terminate_on_success=False, or use VecVLMRew"):
            self.deferred(binary)
        self.deferred(binary, terminate_on_success=False).close()

    def test_learners_on_policy(self):
        venv = VecExtractDictObs(self.deferred(), "state")
        agent = PPO("MlpPolicy", venv, n_steps=8, batch_size=8 * NUM_ENVS)
        with pytest.raises(RuntimeError, match="On-policy algorithms and evaluation need each"):
            agent.learn(8 * NUM_ENVS)

    def test_buffers_that_fill_nothing_in(self):
        agent = SAC("MlpPolicy", VecExtractDictObs(self.deferred(), "state"))
        with pytest.raises(RuntimeError, match="replay_buffer_class=DeferredDictReplayBuffer"):
            agent.learn(20)

    def test_environments_that_pay_at_once(self):
        venv = VecExtractDictObs(VecVLMReward(base_venv(), reward_model_of()), "state")
        agent = SAC("MlpPolicy", venv, replay_buffer_class=DeferredReplayBuffer)
        with pytest.raises(ValueError, match="got steps of another environment"):
            agent.learn(20)

    @pytest.mark.filterwarnings("ignore::vlmreward.guard.RewardDesignWarning")
    def test_running_statistics_of_rewards(self):
        with pytest.raises(ValueError, match="norm_reward=False, or freeze it"):
            train(SAC, VecNormalize(VecExtractDictObs(self.deferred(), "state")), 60)
        norm_obs = VecNormalize(VecExtractDictObs(self.deferred(), "state"), norm_reward=False)
        train(SAC, norm_obs, 60)

    def test_the_monitor(self):
        venv = VecExtractDictObs(self.deferred(), "state")
        callback = RewardMonitorCallback(RewardMonitor(NUM_ENVS))
        with pytest.raises(ValueError, match="those of a DeferredVecVLMReward come later"):
            train(SAC, venv, 20, callback=callback)

    def test_batches_of_no_frame(self):
        with pytest.raises(ValueError, match="positive batch_size, got 0"):
            self.deferred(batch_size=0)
