import doctest
import importlib
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium.utils.env_checker import check_env
from gymnasium.vector import AutoresetMode

import vlmreward_envs
from vlmreward_envs.playroom_sound import (
    GoalKind,
    PlayroomSoundConfig,
    PlayroomSoundEnv,
    PlayroomSoundRooms,
    PlayroomSoundVectorEnv,
    all_goals,
)

gym.register_envs(vlmreward_envs)

RINGING = "a bell is ringing"
GOALS = [
    RINGING,
    "there are footsteps",
    "the person is next to the red ball while a bell is ringing",
]


def test_gymnasium_check_env() -> None:
    check_env(PlayroomSoundEnv(RINGING, frame_size=32), skip_render_check=True)


def test_made_by_its_id() -> None:
    env = gym.make("vlmreward/PlayroomSound-v0", goals=RINGING, render_mode="rgb_array")
    obs, info = env.reset(seed=0)
    assert {name: (value.dtype, value.shape) for name, value in obs.items()} == {
        "pixels": (np.uint8, (96, 96, 3)),
        "audio": (np.float32, (1600,)),
        "position": (np.int64, (2,)),
    }
    assert env.observation_space.contains(obs)
    assert env.observation_space["audio"] == gym.spaces.Box(-1.0, 1.0, (1600,), np.float32)  # type: ignore[index]
    assert info == {"success": False, "env_reward": 0.0, "goal": RINGING}
    envs = gym.make_vec("vlmreward/PlayroomSound-v0", num_envs=3, frame_size=32)
    assert isinstance(envs.unwrapped, PlayroomSoundVectorEnv)
    obs, _ = envs.reset(seed=0)
    assert envs.observation_space.contains(obs)


def test_goals_are_to_be_heard_by_default() -> None:
    heard = tuple(goal.sentence for goal in all_goals(GoalKind.HEARD))
    assert PlayroomSoundRooms(1).goals == heard


@pytest.mark.parametrize("mode", list(AutoresetMode))
def test_vector_env_equals_single_envs(mode: AutoresetMode) -> None:
    """Every room of the vector env is the single env of its seed, over several episodes."""
    num_envs = 3
    settings: dict[str, Any] = {
        "config": PlayroomSoundConfig(mean_pause=4),
        "max_episode_steps": 9,
        "terminate_on_success": True,
        "frame_size": 32,
    }
    vector = PlayroomSoundVectorEnv(num_envs, GOALS, autoreset_mode=mode, **settings)
    singles = [PlayroomSoundEnv(GOALS, **settings) for _ in range(num_envs)]
    rng = np.random.default_rng(0)

    def same(batch: dict[str, Any], row: int, single: dict[str, Any]) -> bool:
        return all(np.array_equal(batch[name][row], single[name]) for name in single)

    obs, _ = vector.reset(seed=5)
    expected = [env.reset(seed=5 + i)[0] for i, env in enumerate(singles)]
    ended = np.zeros(num_envs, dtype=bool)
    num_terminated = num_truncated = 0
    for _ in range(24):
        assert all(same(obs, i, expected[i]) for i in range(num_envs))
        if mode is AutoresetMode.DISABLED and ended.any():
            obs, _ = vector.reset(options={"reset_mask": ended})
            for row in np.flatnonzero(ended).tolist():
                expected[row] = singles[row].reset()[0]
            ended[:] = False
            continue
        actions = rng.integers(0, 7, num_envs)
        obs, rewards, terminated, truncated, infos = vector.step(actions)
        for i, env in enumerate(singles):
            if mode is AutoresetMode.NEXT_STEP and ended[i]:
                expected[i] = env.reset()[0]
                ended[i] = False
                continue
            expected[i], reward, end, limit_reached, info = env.step(actions[i])
            assert (reward, end, limit_reached) == (rewards[i], terminated[i], truncated[i])
            num_terminated, num_truncated = num_terminated + end, num_truncated + limit_reached
            ended[i] = end or limit_reached
            if mode is AutoresetMode.SAME_STEP and ended[i]:
                assert infos["final_info"]["goal"][i] == info["goal"]
                final = infos["final_obs"][i]
                assert all(np.array_equal(final[name], expected[i][name]) for name in final)
                expected[i] = env.reset()[0]
                ended[i] = False
    assert num_terminated > 0
    assert num_truncated > 0


def test_same_seed_same_bytes_and_other_seeds_differ() -> None:
    def rollout(seed: int | None) -> list[bytes]:
        env = PlayroomSoundEnv(RINGING, frame_size=32)
        observations = [env.reset(seed=seed)[0]]
        observations += [env.step(action)[0] for action in (1, 2, 3, 4, 5, 6, 0) * 2]
        observations.append(env.reset()[0])
        return [obs[name].tobytes() for obs in observations for name in ("pixels", "audio")]

    assert rollout(3) == rollout(3)
    assert rollout(3) != rollout(4)
    assert rollout(None) != rollout(None)


def test_ground_truth_is_the_reward_and_ends_episodes_only_if_asked() -> None:
    for terminate in (False, True):
        env = PlayroomSoundEnv(RINGING, terminate_on_success=terminate, frame_size=32)
        env.reset(seed=0)
        for _ in range(200):
            _, reward, terminated, truncated, info = env.step(0)
            assert reward == info["env_reward"] == float(info["success"])
            if info["success"]:
                break
        assert info["success"]
        assert terminated is terminate
        assert not truncated


def test_an_episode_has_two_hundred_steps() -> None:
    rooms = PlayroomSoundRooms(1)
    stay = torch.zeros(1, dtype=torch.int64)
    assert [bool(rooms.step(stay).truncated) for _ in range(200)] == [False] * 199 + [True]


def test_unknown_goals_are_named() -> None:
    with pytest.raises(ValueError, match="a bell is ringing"):
        PlayroomSoundEnv("bell ringing")


@pytest.mark.parametrize("name", ["env", "language", "rooms", "synthesis", "vector_env"])
def test_examples_in_docstrings_run(name: str) -> None:
    module = importlib.import_module(f"vlmreward_envs.playroom_sound.{name}")
    names = {"torch": torch, **vars(vlmreward_envs.playroom_sound)}
    result = doctest.testmod(module, extraglobs=names)
    assert result.attempted > 0
    assert result.failed == 0
