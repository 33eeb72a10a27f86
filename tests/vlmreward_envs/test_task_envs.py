from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium.utils.env_checker import check_env
from gymnasium.vector import AutoresetMode

import vlmreward_envs
from vlmreward_envs.adversarial_bandit import AdversarialBanditVectorEnv, draw_arm_probabilities
from vlmreward_envs.dark_room import DarkRoomEnv, DarkRoomVectorEnv
from vlmreward_envs.key_to_door import DarkKeyToDoorEnv, DarkKeyToDoorVectorEnv
from vlmreward_envs.watermaze import WatermazeVectorEnv, platform_positions

gym.register_envs(vlmreward_envs)

IDS = {
    "vlmreward/AdversarialBandit-v0": {"task_seed": 4},
    "vlmreward/DarkKeyToDoor-v0": {"key": (1, 2), "door": (8, 0)},
    "vlmreward/DarkRoom-v0": {"goal": (7, 1)},
    "vlmreward/DarkRoomHard-v0": {"goal": (3, 16)},
    "vlmreward/Watermaze-v0": {"task_id": 6},
}
each_id = pytest.mark.parametrize("env_id", IDS)


def task_of(env: Any) -> int:
    return env.reset(seed=None)[1]["task_id"]


@each_id
@pytest.mark.parametrize("chosen", [False, True])
def test_gymnasium_check_env(env_id: str, chosen: bool) -> None:
    choices = IDS[env_id] if chosen else {}
    env = gym.make(env_id, render_mode="rgb_array", **choices)
    check_env(env.unwrapped)
    assert env.unwrapped.render().shape == (224, 224, 3)


def test_what_was_chosen_is_the_task() -> None:
    ids = {env_id: task_of(gym.make(env_id, **choices)) for env_id, choices in IDS.items()}
    assert ids == {
        "vlmreward/AdversarialBandit-v0": 4,
        "vlmreward/DarkKeyToDoor-v0": (2 * 9 + 1) * 81 + 8,
        "vlmreward/DarkRoom-v0": 1 * 9 + 7,
        "vlmreward/DarkRoomHard-v0": 16 * 17 + 3,
        "vlmreward/Watermaze-v0": 6,
    }


@each_id
def test_a_drawn_task_stays_until_a_seed_or_an_option_changes_it(env_id: str) -> None:
    env = gym.make(env_id)
    tasks = {seed: env.reset(seed=seed)[1]["task_id"] for seed in range(20)}
    assert len(set(tasks.values())) > 10
    assert env.reset(seed=3)[1]["task_id"] == tasks[3]
    assert {task_of(env) for _ in range(5)} == {tasks[3]}
    chosen = env.reset(options=IDS[env_id])[1]["task_id"]
    assert chosen == task_of(gym.make(env_id, **IDS[env_id]))
    assert task_of(env) == env.reset(seed=5)[1]["task_id"] == chosen


def test_unseeded_envs_differ() -> None:
    drawn = {task_of(gym.make("vlmreward/DarkKeyToDoor-v0")) for _ in range(4)}
    assert len(drawn) > 1


def test_random_starts_go_on_from_episode_to_episode() -> None:
    env = DarkKeyToDoorEnv(key=(0, 0), door=(8, 8))
    first = [tuple(env.reset(seed=1)[0])] + [tuple(env.reset()[0]) for _ in range(9)]
    again = [tuple(env.reset(seed=1)[0])] + [tuple(env.reset()[0]) for _ in range(9)]
    assert first == again
    assert len(set(first)) > 5


@each_id
def test_vector_env_equals_single_envs(env_id: str) -> None:
    """Every row is the single environment of its seed; an episode begins where another ends."""
    num_envs = 3
    vector = gym.make_vec(env_id, num_envs=num_envs, vectorization_mode="vector_entry_point")
    singles = [gym.make(env_id) for _ in range(num_envs)]
    assert vector.metadata["autoreset_mode"] is AutoresetMode.SAME_STEP
    length = singles[0].unwrapped.tasks.episode_length
    rng = np.random.default_rng(0)
    obs, infos = vector.reset(seed=11)
    expected = [env.reset(seed=11 + row) for row, env in enumerate(singles)]
    assert vector.observation_space.contains(obs)
    for number in range(1, 2 * length + 3):
        for row in range(num_envs):
            assert np.array_equal(obs[row], expected[row][0])
            assert infos["task_id"][row] == expected[row][1]["task_id"]
        actions = rng.integers(singles[0].action_space.n, size=num_envs)
        obs, rewards, terminated, truncated, infos = vector.step(actions)
        ends = number % length == 0
        assert truncated.tolist() == [ends] * num_envs
        assert not terminated.any()
        for row, env in enumerate(singles):
            *last, info = env.step(actions[row])
            assert last[1:] == [rewards[row], False, ends]
            paid = infos["final_info"] if ends else infos
            assert paid["env_reward"][row] == info["env_reward"] == rewards[row]
            expected[row] = (last[0], info)
            if ends:
                assert np.array_equal(infos["final_obs"][row], last[0])
                assert infos["_final_obs"].all()
                assert infos["_final_info"].all()
                expected[row] = env.reset()


def test_vector_choices_are_one_for_all_or_one_for_each() -> None:
    goals = [(0, 0), (1, 0), (0, 1)]
    envs = DarkRoomVectorEnv(3, goal=goals)
    assert envs.reset(seed=0)[1]["task_id"].tolist() == [0, 1, 9]
    assert envs.reset(options={"goal": (8, 8)})[1]["task_id"].tolist() == [80] * 3
    doors = DarkKeyToDoorVectorEnv(2, key=(0, 0), door=[(1, 0), (2, 0)])
    assert doors.reset(seed=0)[1]["task_id"].tolist() == [1, 2]
    arms = AdversarialBanditVectorEnv(2, task_seed=[5, 6], split="test")
    arms.reset(seed=0)
    expected = draw_arm_probabilities(torch.tensor([5, 6]), "test")
    assert torch.equal(arms.tasks.arm_probabilities, expected)
    pools = WatermazeVectorEnv(2, task_id=[5, 6])
    assert pools.reset(seed=0)[1]["task_id"].tolist() == [5, 6]
    assert torch.equal(pools.tasks.platform, platform_positions(torch.tensor([5, 6])))


def test_frames_are_a_box_of_pixels() -> None:
    envs = WatermazeVectorEnv(3)
    assert envs.single_observation_space == gym.spaces.Box(0, 255, (72, 96, 3), np.uint8)
    obs, _ = envs.reset(seed=0)
    assert obs.dtype == np.uint8
    assert envs.observation_space.contains(obs)


def test_unseeded_reset_of_a_vector_env_goes_on() -> None:
    envs = DarkKeyToDoorVectorEnv(50)
    first, infos = envs.reset()
    second, later = envs.reset()
    assert infos["task_id"].tolist() == later["task_id"].tolist()
    assert not np.array_equal(first, second)
    seeds = list(range(50))
    assert np.array_equal(envs.reset(seed=seeds)[0], envs.reset(seed=0)[0])


def test_a_picture_shows_where_an_episode_ended() -> None:
    """No new episode begins before the last frame of the old one can be drawn."""
    env = DarkRoomEnv(goal=(0, 4), render_mode="rgb_array")
    env.reset(seed=0)
    for _ in range(20):
        obs, _, _, truncated, _ = env.step(1)
    assert truncated
    assert obs.tolist() == [0, 4]
    at_end = env.render()
    env.reset()
    assert not np.array_equal(env.render(), at_end)
    env.step(1)
    for _ in range(3):
        env.step(1)
    assert np.array_equal(env.render(), at_end)


def test_stepping_on_after_the_end_is_refused() -> None:
    env = DarkRoomEnv()
    env.reset(seed=0)
    for _ in range(20):
        env.step(0)
    with pytest.raises(RuntimeError, match="over after 20 steps"):
        env.step(0)


@pytest.mark.parametrize("make", [DarkRoomEnv, lambda: DarkRoomVectorEnv(2)])
@pytest.mark.parametrize(
    ("goal", "message"),
    [
        ((9, 0), r"goal=\(9, 0\), expected x and y in 0\.\.8"),
        ((0, -1), r"expected x and y in 0\.\.8"),
        ((0.5, 0), r"goal=\(0\.5, 0\), expected \(x, y\) in whole cells"),
        (4, r"goal=4, expected \(x, y\) in whole cells"),
        ([(0, 0)] * 3, r"expected \(x, y\) in whole cells"),
    ],
)
def test_bad_goals_are_named(make: Any, goal: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make().reset(options={"goal": goal})


@pytest.mark.parametrize("make", [DarkRoomEnv, lambda **kw: DarkRoomVectorEnv(2, **kw)])
def test_bad_arguments_are_refused_at_once(make: Any) -> None:
    with pytest.raises(ValueError, match=r"goal=\(9, 0\), expected x and y in 0\.\.8"):
        make(goal=(9, 0))
    with pytest.raises(ValueError, match="render_mode='human'"):
        make(render_mode="human")


def test_other_bad_input_is_named() -> None:
    env = gym.make("vlmreward/AdversarialBandit-v0").unwrapped
    with pytest.raises(ValueError, match="split='both', expected one of"):
        gym.make("vlmreward/AdversarialBandit-v0", split="both")
    with pytest.raises(ValueError, match=r"task_seed=0\.5, expected an integer"):
        env.reset(options={"task_seed": 0.5})
    with pytest.raises(ValueError, match=r"task_id=0\.5, expected an integer, or one for each"):
        gym.make("vlmreward/Watermaze-v0").reset(seed=0, options={"task_id": 0.5})
    with pytest.raises(ValueError, match=r"options \['goal'\], expected \['task_seed'\]"):
        env.reset(options={"goal": (0, 0)})
    env = DarkRoomEnv()
    env.reset(seed=0)
    with pytest.raises(ValueError, match=r"0\.\.4, got 5"):
        env.step(5)
    envs = DarkRoomVectorEnv(2)
    envs.reset(seed=0)
    with pytest.raises(ValueError, match="actions must be 2 integers"):
        envs.step(np.array([0]))
    with pytest.raises(ValueError, match=r"actions must lie in 0\.\.4"):
        envs.step(np.array([0, 5]))
    with pytest.raises(ValueError, match="got 3 seeds, expected one or 2"):
        envs.reset(seed=[1, 2, 3])
    with pytest.raises(ValueError, match="num_envs=0"):
        DarkRoomVectorEnv(0)
