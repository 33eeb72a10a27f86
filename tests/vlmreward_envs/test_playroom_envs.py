from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env
from gymnasium.vector import AutoresetMode

import vlmreward_envs
from vlmreward_envs.playroom import Action, PlayroomConfig, PlayroomEnv, PlayroomVectorEnv

gym.register_envs(vlmreward_envs)

LIFT = "the person is holding the red ball"


def test_gymnasium_check_env() -> None:
    check_env(PlayroomEnv(LIFT), skip_render_check=True)


def test_made_by_its_id() -> None:
    env = gym.make("vlmreward/Playroom-v0", goals=LIFT, frame_size=64, render_mode="rgb_array")
    obs, info = env.reset(seed=0)
    assert obs["pixels"].shape == (64, 64, 3)
    assert env.observation_space.contains(obs)
    assert info == {"success": False, "env_reward": 0.0, "goal": LIFT}
    envs = gym.make_vec("vlmreward/Playroom-v0", num_envs=3, goals=LIFT, render_mode="rgb_array")
    assert isinstance(envs.unwrapped, PlayroomVectorEnv)
    obs, _ = envs.reset(seed=0)
    assert envs.observation_space.contains(obs)


@pytest.mark.parametrize("make", [PlayroomEnv, lambda **kw: PlayroomVectorEnv(2, **kw)])
@pytest.mark.parametrize("mode", ["human", "ansi", "rgb_array_list"])
def test_other_render_modes_are_refused(make: Any, mode: str) -> None:
    with pytest.raises(ValueError, match=f"render_mode='{mode}'.*rgb_array"):
        make(render_mode=mode)


@pytest.mark.parametrize("mode", list(AutoresetMode))
def test_vector_env_equals_single_envs(mode: AutoresetMode) -> None:
    """Every room of the vector env is the single env of its seed, over several episodes."""
    num_envs, limit = 4, 7
    goals = [LIFT, "the person is next to the blue key"]
    settings: dict[str, Any] = {"max_episode_steps": limit, "terminate_on_success": True}
    vector = PlayroomVectorEnv(num_envs, goals, autoreset_mode=mode, **settings)
    singles = [PlayroomEnv(goals, **settings) for _ in range(num_envs)]
    rng = np.random.default_rng(0)
    obs, infos = vector.reset(seed=5)
    expected = [env.reset(seed=5 + i)[0] for i, env in enumerate(singles)]
    ended = np.zeros(num_envs, dtype=bool)
    num_ends = 0
    for _ in range(40):
        for i in range(num_envs):
            assert np.array_equal(obs["pixels"][i], expected[i]["pixels"])
            assert np.array_equal(obs["position"][i], expected[i]["position"])
        if mode is AutoresetMode.DISABLED and ended.any():
            obs, _ = vector.reset(options={"reset_mask": ended})
            for i in np.nonzero(ended)[0]:
                expected[i] = singles[i].reset()[0]
            ended[:] = False
            continue
        actions = rng.integers(0, 7, num_envs)
        obs, rewards, terminated, truncated, infos = vector.step(actions)
        for i, env in enumerate(singles):
            if mode is AutoresetMode.NEXT_STEP and ended[i]:
                expected[i] = env.reset()[0]
                assert (rewards[i], terminated[i], truncated[i]) == (0.0, False, False)
                ended[i] = False
                continue
            expected[i], reward, end, limit_reached, info = env.step(actions[i])
            assert (reward, end, limit_reached) == (rewards[i], terminated[i], truncated[i])
            ended[i] = end or limit_reached
            num_ends += ended[i]
            final = mode is AutoresetMode.SAME_STEP and ended[i]
            batch_info = infos["final_info"] if final else infos
            for name, value in info.items():
                assert batch_info[name][i] == value
                assert batch_info[f"_{name}"][i]
            if final:
                last = infos["final_obs"][i]
                assert np.array_equal(last["pixels"], expected[i]["pixels"])
                assert np.array_equal(last["position"], expected[i]["position"])
                expected[i] = env.reset()[0]
        if mode is AutoresetMode.SAME_STEP:
            if ended.any():
                assert infos["_final_obs"].tolist() == ended.tolist()
            ended[:] = False
    assert num_ends > 5


def test_disabled_autoreset_refuses_to_step_ended_rooms() -> None:
    vector = PlayroomVectorEnv(2, max_episode_steps=1, autoreset_mode=AutoresetMode.DISABLED)
    vector.reset(seed=0)
    vector.step(np.zeros(2, dtype=np.int64))
    with pytest.raises(ValueError, match=r"environments \[0, 1\] have ended"):
        vector.step(np.zeros(2, dtype=np.int64))


def test_same_seed_same_bytes_and_unseeded_resets_differ() -> None:
    def rollout(seed: int | None) -> bytes:
        env = PlayroomEnv(LIFT, max_episode_steps=5)
        obs, _ = env.reset(seed=seed)
        frames = [obs["pixels"]]
        for action in range(7):
            frames.append(env.step(action)[0]["pixels"])
        frames.append(env.reset()[0]["pixels"])
        return b"".join(frame.tobytes() for frame in frames)

    assert rollout(3) == rollout(3)
    assert rollout(3) != rollout(4)
    assert rollout(None) != rollout(None)


def test_ground_truth_reward_and_success_termination() -> None:
    config = PlayroomConfig(grid_size=3, num_objects=1)
    for terminate in (False, True):
        env = PlayroomEnv(LIFT, config=config, terminate_on_success=terminate)
        rng = np.random.default_rng(0)
        env.reset(seed=0)
        for _ in range(200):
            _, reward, terminated, truncated, info = env.step(rng.integers(1, 6))
            assert reward == info["env_reward"] == float(info["success"])
            if info["success"] or truncated:
                break
        assert info["success"]
        assert terminated is terminate
        assert not truncated


@pytest.mark.parametrize("action", [-1, 7])
def test_bad_action_is_named(action: int) -> None:
    env = PlayroomEnv()
    env.reset(seed=0)
    with pytest.raises(ValueError, match=r"0\.\.6"):
        env.step(action)
    vector = PlayroomVectorEnv(2)
    vector.reset(seed=0)
    with pytest.raises(ValueError, match="actions must"):
        vector.step(np.array([action, 0]))
    with pytest.raises(ValueError, match="2 integers, got int64"):
        vector.step(np.array([0]))


def test_bad_reset_mask_and_seeds_are_named() -> None:
    vector = PlayroomVectorEnv(2)
    with pytest.raises(ValueError, match="reset_mask must be a boolean array"):
        vector.reset(options={"reset_mask": np.array([1, 0])})
    with pytest.raises(ValueError, match="got 3 seeds"):
        vector.reset(seed=[1, 2, 3])


def test_actions_are_documented_in_order() -> None:
    assert [a.name for a in Action] == [
        "STAY",
        "LEFT",
        "RIGHT",
        "UP",
        "DOWN",
        "PICK_UP",
        "PUT_DOWN",
    ]
