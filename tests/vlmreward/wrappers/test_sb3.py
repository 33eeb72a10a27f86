import functools

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium.vector import AutoresetMode, SyncVectorEnv
from gymnasium.wrappers import AddRenderObservation
from minigrid.wrappers import ImgObsWrapper
from stable_baselines3 import A2C, DQN, PPO, SAC
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.logger import configure
from stable_baselines3.common.vec_env import (
    DummyVecEnv,
    SubprocVecEnv,
    VecMonitor,
    VecTransposeImage,
)

from vlmreward import (
    FakeEncoder,
    FrameError,
    Goal,
    RewardModel,
    RewardTiming,
    SoftmaxHead,
    ThresholdHead,
)
from vlmreward.goal_source import SampledGoals
from vlmreward.wrappers.sb3 import VectorEnvAdapter, VecVLMReward, VLMRewardCallback
from vlmreward_envs.playroom import PlayroomEnv, PlayroomVectorEnv

ENDS_ITSELF, RED = 2, 1


def make_venv(kind, env_class, num_envs):
    env_fns = [functools.partial(env_class, env_id=index) for index in range(num_envs)]
    if kind == "adapter":
        return VectorEnvAdapter(SyncVectorEnv(env_fns, autoreset_mode=AutoresetMode.SAME_STEP))
    return {"dummy": DummyVecEnv, "subproc": SubprocVecEnv}[kind](env_fns)


def paid_by_hand(reward_model, pixels, goal_index):
    scores = reward_model.score(pixels[None], goal_index)
    return float(scores.reward[0]), float(scores.score[0])


def check_against_single_envs(venv, env_class, reward_model, goals, actions, *, terminate, embed):
    """Steps `venv` beside plain environments, and compares everything a learner sees."""

    def shown(obs):
        if not embed:
            return obs
        embedding = FakeEncoder().encode_obs({"pixels": obs["pixels"][None]})[0].numpy()
        return {"embedding": embedding, "position": obs["position"]}

    def same(got, expected):
        assert got.keys() == expected.keys()
        for key in expected:
            np.testing.assert_array_equal(got[key], expected[key])

    envs = [env_class(env_id=index) for index in range(venv.num_envs)]
    obs = venv.reset()
    for index, env in enumerate(envs):
        same({key: obs[key][index] for key in obs}, shown(env.reset()[0]))
    reset_infos = list(venv.reset_infos)
    returns, env_returns, lengths = np.zeros((3, venv.num_envs))
    for row in actions:
        obs, rewards, dones, infos = venv.step(row)
        for index, env in enumerate(envs):
            led_to, env_reward, terminated, truncated, _ = env.step(row[index])
            reward, probability = paid_by_hand(reward_model, led_to["pixels"], goals[index])
            success = terminate and reward > 0
            returns[index] += reward
            env_returns[index] += env_reward
            lengths[index] += 1
            info = infos[index]
            assert rewards[index] == reward
            assert info["env_reward"] == env_reward
            assert info["vlm_score"] == pytest.approx(probability, abs=1e-6)
            assert info["time"] == env.time
            assert dones[index] == (terminated or truncated or success)
            assert info["TimeLimit.truncated"] == (truncated and not terminated and not success)
            if dones[index]:
                same(info["terminal_observation"], shown(led_to))
                assert info["episode"]["r"] == returns[index]
                assert info["episode"]["l"] == lengths[index]
                assert info["env_episode_return"] == env_returns[index]
                returns[index] = env_returns[index] = lengths[index] = 0
                led_to, reset_info = env.reset()
                reset_infos[index] = reset_info
            else:
                assert "terminal_observation" not in info
                assert "episode" not in info
            same({key: obs[key][index] for key in obs}, shown(led_to))
        assert venv.reset_infos == reset_infos


@pytest.mark.parametrize("kind", ["dummy", "adapter"])
@pytest.mark.parametrize("terminate", [True, False])
@pytest.mark.parametrize("embed", [True, False])
def test_every_frame_is_paid_as_by_hand(kind, terminate, embed, scripted_env_class, reward_model):
    goals = np.array([0, 1, 0])
    venv = VecVLMReward(
        make_venv(kind, scripted_env_class, 3),
        reward_model,
        goals,
        terminate_on_success=terminate,
        observe="embedding" if embed else "pixels",
    )
    actions = np.random.default_rng(0).integers(0, 3, (60, 3))
    check_against_single_envs(
        venv, scripted_env_class, reward_model, goals, actions, terminate=terminate, embed=embed
    )


def test_every_frame_is_paid_as_by_hand_across_processes(scripted_env_class, reward_model):
    base = make_venv("subproc", scripted_env_class, 2)
    try:
        venv = VecVLMReward(base, reward_model, observe="embedding")
        actions = np.random.default_rng(1).integers(0, 3, (30, 2))
        check_against_single_envs(
            venv, scripted_env_class, reward_model, [0, 0], actions, terminate=True, embed=True
        )
    finally:
        base.close()


def test_the_next_episodes_first_frame_is_never_paid(scripted_env_class, reward_model):
    # It is red, which is what goal 0 pays for; no action here leads to red.
    venv = VecVLMReward(make_venv("dummy", scripted_env_class, 2), reward_model)
    venv.reset()
    actions = np.random.default_rng(0).choice([0, ENDS_ITSELF], (40, 2))
    steps = [venv.step(row)[1:3] for row in actions]
    assert sum(dones.sum() for _, dones in steps) > 20
    assert sum(rewards.sum() for rewards, _ in steps) == 0


def test_one_forward_pass_per_step(scripted_env_class, reward_model, encoder):
    venv = VecVLMReward(make_venv("dummy", scripted_env_class, 3), reward_model)
    venv.reset()
    assert encoder.batch_sizes == []
    for row in ([0, 0, 0], [RED, ENDS_ITSELF, 0], [0, 0, 0]):
        venv.step(np.array(row))
    assert encoder.batch_sizes == [3, 3, 3]


def test_embeddings_come_from_the_pass_that_pays(scripted_env_class, reward_model, encoder):
    venv = VecVLMReward(
        make_venv("dummy", scripted_env_class, 3), reward_model, observe="embedding"
    )
    assert set(venv.observation_space.spaces) == {"embedding", "position"}
    assert venv.reset()["embedding"].shape == (3, encoder.embed_dim)
    venv.step(np.array([0, 0, 0]))
    venv.step(np.array([0, ENDS_ITSELF, ENDS_ITSELF]))
    assert encoder.batch_sizes == [3, 3, 5]
    # Success is known only after scoring: the first frame of the next episode comes after it.
    venv.step(np.array([RED, 0, 0]))
    assert encoder.batch_sizes == [3, 3, 5, 3, 1]


def test_wrappers_go_around_it(scripted_env_class, reward_model):
    venv = make_venv("dummy", scripted_env_class, 2)
    with pytest.raises(ValueError, match="Put VecVLMReward inside, VecMonitor around"):
        VecVLMReward(VecMonitor(venv), reward_model)
    around = VecTransposeImage(VecMonitor(VecVLMReward(venv, reward_model)))
    assert around.reset()["pixels"].shape == (2, 3, 8, 8)
    *_, infos = around.step(np.array([RED, 0]))
    assert infos[0]["episode"]["r"] == 1.0
    assert infos[0]["terminal_observation"]["pixels"].shape == (3, 8, 8)


def test_observations_without_pixels_are_refused(reward_model):
    venv = make_vec_env("CartPole-v1", n_envs=1)
    with pytest.raises(FrameError, match="AddRenderObservation"):
        VecVLMReward(venv, reward_model)


def test_wrong_arguments_are_refused(scripted_env_class, reward_model):
    venv = make_venv("dummy", scripted_env_class, 2)
    with pytest.raises(IndexError, match="goal_index from 0 to 1"):
        VecVLMReward(venv, reward_model, [0, 2])
    with pytest.raises(ValueError, match="each of the 2 observations"):
        VecVLMReward(venv, reward_model, [0, 1, 0])
    with pytest.raises((ValueError, TypeError)):
        VecVLMReward(venv, reward_model, observe="both")


def test_seeds_reach_the_environments():
    env_fns = [lambda: gym.make("CartPole-v1")] * 2
    adapter = VectorEnvAdapter(SyncVectorEnv(env_fns, autoreset_mode=AutoresetMode.SAME_STEP))
    dummy = DummyVecEnv(env_fns)
    for venv in (adapter, dummy):
        venv.seed(3)
    first = adapter.reset()
    np.testing.assert_array_equal(first, dummy.reset())
    for row in np.random.default_rng(0).integers(0, 2, (50, 2)):
        for got, expected in zip(adapter.step(row)[:3], dummy.step(row)[:3], strict=True):
            np.testing.assert_array_equal(got, expected)
    # A seed counts for one reset.
    assert not np.array_equal(first, adapter.reset())


def test_a_native_vector_environment_pays_as_a_loop_of_environments_does():
    num_envs, sentence = 4, "the person is next to the blue key"
    kwargs = {"max_episode_steps": 6, "frame_size": 32}
    native = PlayroomVectorEnv(num_envs, sentence, autoreset_mode=AutoresetMode.SAME_STEP, **kwargs)
    loop = DummyVecEnv([functools.partial(PlayroomEnv, sentence, **kwargs)] * num_envs)
    # Dark rooms pay at once, light ones never.
    goal = Goal("a black room", negative_prompts=["a white room"])
    reward_model = RewardModel(FakeEncoder(), goal, ThresholdHead(SoftmaxHead(0.02), threshold=0.5))
    venvs = [
        VecVLMReward(venv, reward_model, observe="embedding")
        for venv in (VectorEnvAdapter(native), loop)
    ]
    for venv in venvs:
        venv.seed(5)
    observations = [venv.reset() for venv in venvs]
    paid = cut_off = 0
    for row in np.random.default_rng(0).integers(0, 7, (40, num_envs)):
        for key in ("embedding", "position"):
            np.testing.assert_array_equal(observations[0][key], observations[1][key])
        steps = [venv.step(row) for venv in venvs]
        observations = [obs for obs, *_ in steps]
        np.testing.assert_array_equal(steps[0][1], steps[1][1])
        np.testing.assert_array_equal(steps[0][2], steps[1][2])
        for got, expected in zip(steps[0][3], steps[1][3], strict=True):
            assert got.keys() == expected.keys()
            assert got["vlm_score"] == expected["vlm_score"]
            assert got["env_reward"] == expected["env_reward"]
            cut_off += got["TimeLimit.truncated"]
        paid += steps[0][1].sum()
    assert paid > 3
    assert cut_off > 3


@pytest.mark.parametrize("mode", [AutoresetMode.NEXT_STEP, AutoresetMode.DISABLED])
def test_other_autoreset_modes_are_refused(mode, scripted_env_class):
    with pytest.raises(ValueError, match="SAME_STEP, got"):
        VectorEnvAdapter(SyncVectorEnv([scripted_env_class], autoreset_mode=mode))


def test_final_observations_may_be_batched(scripted_env_class):
    """A natively vectorised environment has no reason to return an array of dicts."""

    class Batched(SyncVectorEnv):
        def step(self, actions):
            *rest, infos = super().step(actions)
            if "final_obs" in infos:
                rows = [row or self.single_observation_space.sample() for row in infos["final_obs"]]
                infos["final_obs"] = {key: np.stack([row[key] for row in rows]) for key in rows[0]}
            return *rest, infos

    env = Batched([scripted_env_class] * 2, autoreset_mode=AutoresetMode.SAME_STEP)
    adapter = VectorEnvAdapter(env)
    adapter.reset()
    *_, infos = adapter.step(np.array([0, ENDS_ITSELF]))
    assert infos[1]["terminal_observation"]["position"].tolist() == [0, 1]
    assert "terminal_observation" not in infos[0]


def test_only_resets_reach_single_environments(scripted_env_class):
    adapter = make_venv("adapter", scripted_env_class, 3)
    adapter.reset()
    ((obs, info),) = adapter.env_method("reset", indices=[1])
    assert obs["position"].tolist() == [1, 0]
    assert info == {"episode_index": 1}
    with pytest.raises(NotImplementedError, match="got 'render'"):
        adapter.env_method("render")
    with pytest.raises(NotImplementedError, match="cannot set 'x'"):
        adapter.set_attr("x", 1)


def test_ppo_learns_on_vlm_reward_alone(scripted_env_class, reward_model):
    # The environment's own rewards grow with time, so they would teach it to wait.
    base = make_venv("dummy", scripted_env_class, 4)
    venv = VecVLMReward(base, reward_model, observe="embedding")
    agent = PPO(
        "MultiInputPolicy",
        venv,
        n_steps=32,
        batch_size=64,
        learning_rate=3e-3,
        policy_kwargs={"net_arch": [16]},
        seed=0,
        device="cpu",
    )
    agent.learn(1500)
    mean_return, _ = evaluate_policy(agent, VecMonitor(venv), n_eval_episodes=20)
    assert mean_return > 0.95


def test_ppo_runs_from_pixels(scripted_env_class, reward_model):
    base = DummyVecEnv([functools.partial(scripted_env_class, size=36)] * 2)
    venv = VecVLMReward(base, reward_model)
    agent = PPO("MultiInputPolicy", venv, n_steps=8, batch_size=16, seed=0, device="cpu")
    agent.learn(32)
    assert agent.num_timesteps == 32


def test_dqn_runs(scripted_env_class, reward_model):
    venv = VecVLMReward(
        make_venv("dummy", scripted_env_class, 2), reward_model, observe="embedding"
    )
    agent = DQN("MultiInputPolicy", venv, learning_starts=20, buffer_size=200, seed=0, device="cpu")
    agent.learn(80)
    buffer = agent.replay_buffer
    ended = buffer.dones[: buffer.pos] == 1
    assert ended.sum() > 0
    # The successor stored for an episode's last step is that episode's own last frame: its time,
    # not the 0 that the next episode starts with.
    assert (buffer.next_observations["position"][: buffer.pos, :, 1][ended] > 0).all()


def test_the_callback_logs_what_was_paid_beside_what_was_meant(
    scripted_env_class, reward_model, tmp_path
):
    # Goal 1 pays for blue, and `success` is red: the picture of a misled reward.
    base = make_venv("dummy", scripted_env_class, 2)
    venv = VecVLMReward(base, reward_model, goal_index=1, observe="embedding")
    agent = PPO("MultiInputPolicy", venv, n_steps=16, batch_size=32, seed=0, device="cpu")
    agent.set_logger(configure(str(tmp_path), ["csv"]))
    callback = VLMRewardCallback()
    agent.learn(64, callback=callback)
    agent.logger.close()
    header = (tmp_path / "progress.csv").read_text().splitlines()[0].split(",")
    logged = dict(
        zip(header, np.genfromtxt(tmp_path / "progress.csv", delimiter=",")[-1], strict=True)
    )
    assert logged["vlm_reward/episode_return"] == logged["rollout/ep_rew_mean"] > 0.5
    assert 0 <= logged["env_reward/success_rate"] < 0.5
    assert logged["env_reward/episode_return"] >= 0.25


def test_minigrid_runs(reward_model):
    goal = Goal("a green room", negative_prompts=["a black room"])
    green = RewardModel(FakeEncoder(), goal, ThresholdHead(SoftmaxHead(0.05), threshold=0.999))

    def make_env():
        env = gym.make("MiniGrid-Empty-5x5-v0", render_mode="rgb_array", max_steps=6, tile_size=8)
        return AddRenderObservation(ImgObsWrapper(env), render_only=False)

    venv = VecVLMReward(DummyVecEnv([make_env] * 2), green)
    obs = venv.reset()
    for row in np.random.default_rng(0).integers(0, 3, (20, 2)):
        obs, _, dones, infos = venv.step(row)
        for index in range(2):
            led_to = obs["pixels"][index]
            if dones[index]:
                led_to = infos[index]["terminal_observation"]["pixels"]
            expected = paid_by_hand(green, led_to, 0)[1]
            assert infos[index]["vlm_score"] == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("observe", ["pixels", "embedding"])
def test_goals_are_drawn_for_every_episode_and_shown(scripted_env_class, reward_model, observe):
    source = SampledGoals([0, 1], np.random.default_rng(0))
    venv = DummyVecEnv([lambda i=i: scripted_env_class(i) for i in range(3)])
    envs = VecVLMReward(venv, reward_model, source, observe=observe, observe_goal=True)
    obs = envs.reset()
    texts = reward_model.goal_embeddings([0, 1]).numpy()
    rng, seen = np.random.default_rng(0), set()
    for _ in range(30):
        before = envs.goal_index
        np.testing.assert_allclose(obs["goal_embedding"], texts[before])
        obs, rewards, dones, infos = envs.step(rng.integers(0, 2, 3))
        assert envs.observation_space.contains({key: rows[0] for key, rows in obs.items()})
        for index in range(3):
            assert infos[index]["goal_index"] == before[index]
            if dones[index]:
                last = infos[index]["terminal_observation"]
                np.testing.assert_allclose(last["goal_embedding"], texts[before[index]])
                if observe == "pixels":
                    expected, _ = paid_by_hand(reward_model, last["pixels"], int(before[index]))
                    assert rewards[index] == expected
        seen |= set(envs.goal_index.tolist())
    assert seen == {0, 1}


def test_a_reward_at_the_end_of_episodes_costs_one_encoding_each(scripted_env_class, encoder):
    timing = RewardTiming(score_every="episode_end")
    head = ThresholdHead(SoftmaxHead(0.1), threshold=0.5)
    reward_model = RewardModel(encoder, Goal("a red room", ["a blue room"]), head, timing)
    venv = DummyVecEnv([lambda i=i: scripted_env_class(i) for i in range(3)])
    envs = VecVLMReward(venv, reward_model, terminate_on_success=False)
    envs.reset()
    rewards = [envs.step([1, 0, 1])[1] for _ in range(8)]
    assert encoder.batch_sizes == [3, 3]  # of 24 steps, the two at the time limit
    assert np.stack(rewards).sum(axis=0).tolist() == [2.0, 0.0, 2.0]


def test_an_off_policy_learner_reads_the_right_last_observation(scripted_env_class, reward_model):
    venv = DummyVecEnv([lambda i=i: scripted_env_class(i) for i in range(2)])
    envs = VecVLMReward(venv, reward_model, observe="embedding")
    agent = DQN(
        "MultiInputPolicy", envs, learning_starts=8, train_freq=4, buffer_size=64, seed=0,
        device="cpu",
    )  # fmt: skip
    agent.learn(40)
    buffer = agent.replay_buffer
    last = np.flatnonzero(buffer.dones[: buffer.pos].any(axis=1))
    assert len(last)
    for step in last:
        for index in np.flatnonzero(buffer.dones[step]):
            shown = torch.from_numpy(buffer.next_observations["embedding"][step, index])[None]
            scores = reward_model.score_embeddings(shown, 0)
            assert float(scores.reward[0]) == buffer.rewards[step, index]


@pytest.mark.parametrize("algorithm", [A2C, SAC])
def test_other_algorithms_learn_on_and_off_policy(algorithm):
    def make_env():
        env = gym.make("MountainCarContinuous-v0", render_mode="rgb_array", max_episode_steps=8)
        return AddRenderObservation(env, render_only=False)

    goal = Goal("a white room", ["a black room"])
    head = ThresholdHead(SoftmaxHead(0.1), threshold=0.5)
    venv = DummyVecEnv([make_env, make_env])
    reward_model = RewardModel(FakeEncoder(), goal, head, RewardTiming(success_steps=3))
    envs = VecVLMReward(venv, reward_model, observe="embedding", observe_goal=True)
    settings = {"learning_starts": 4} if algorithm is SAC else {"n_steps": 4}
    agent = algorithm("MultiInputPolicy", envs, seed=0, device="cpu", **settings)
    agent.learn(24, callback=VLMRewardCallback())
    assert agent.num_timesteps >= 24
    assert set(envs.observation_space.spaces) == {"state", "embedding", "goal_embedding"}
