import warnings

import gymnasium as gym
import numpy as np
import pytest
from stable_baselines3.common.vec_env import DummyVecEnv

from vlmreward import (
    CosineHead,
    FakeEncoder,
    Goal,
    RewardModel,
    RewardTiming,
    SoftmaxHead,
    ThresholdHead,
)
from vlmreward.guard import RewardDesignWarning, TerminationGuard, is_binary
from vlmreward.wrappers import VLMReward
from vlmreward.wrappers.sb3 import VecVLMReward

BINARY = ThresholdHead(CosineHead(), threshold=0.9)
DENSE = CosineHead()
PLAIN = RewardTiming()
POTENTIAL = RewardTiming(discount=0.99)

ENDS_SUCCESS = "success ends episodes, but .* pays a dense reward.*docs/termination.md"
ENDS_ITSELF = "ended an episode before its time limit while a dense reward.*docs/termination.md"

BLUE, RED, END = range(3)


class RoomEnv(gym.Env):
    """Shows the colour that its action names; END ends the episode, four steps cut it off."""

    action_space = gym.spaces.Discrete(3)
    observation_space = gym.spaces.Dict({"pixels": gym.spaces.Box(0, 255, (4, 4, 3), np.uint8)})
    render_mode = None

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.time = 0
        return self._obs(BLUE), {}

    def step(self, action):
        self.time += 1
        return self._obs(action), 0.0, bool(action == END), self.time >= 4, {}

    def _obs(self, action):
        pixels = np.zeros((4, 4, 3), np.uint8)
        pixels[..., 0 if action == RED else 2] = 200
        return {"pixels": pixels}


class OneRoom:
    """The same steps through either wrapper."""

    def __init__(self, kind, head, timing=PLAIN, **settings):
        self.kind = kind
        model = RewardModel(FakeEncoder(), Goal("a red room", ["a blue room"]), head, timing)
        if kind == "gymnasium":
            self.env = VLMReward(RoomEnv(), model, **settings)
        else:
            self.env = VecVLMReward(DummyVecEnv([RoomEnv]), model, **settings)
        self.env.reset()

    def step(self, action):
        """Returns whether the episode ended."""
        if self.kind == "sb3":
            return bool(self.env.step(np.array([action]))[2][0])
        *_, terminated, truncated, _ = self.env.step(action)
        if terminated or truncated:
            self.env.reset()
        return terminated or truncated


@pytest.fixture(params=["gymnasium", "sb3"])
def make(request):
    """Builds an environment around a head."""

    def build(head, timing=PLAIN, **settings):
        return OneRoom(request.param, head, timing, **settings)

    return build


def design_warnings(record):
    return [each for each in record if issubclass(each.category, RewardDesignWarning)]


@pytest.mark.parametrize(
    ("head", "timing", "expected"),
    [
        (BINARY, PLAIN, True),
        (BINARY, RewardTiming(score_every=4, success_steps=2), True),
        (BINARY, POTENTIAL, False),
        (DENSE, PLAIN, False),
        (SoftmaxHead(0.1), PLAIN, False),
    ],
)
def test_what_is_binary(head, timing, expected):
    assert is_binary(head, timing) is expected
    assert TerminationGuard(head, timing, None).ends_on_success is expected


def test_success_that_ends_a_dense_reward_warns_when_the_wrapper_is_made(make):
    with pytest.warns(RewardDesignWarning, match=ENDS_SUCCESS) as record:
        env = make(DENSE, terminate_on_success=True)
    assert len(design_warnings(record)) == 1
    assert "CosineHead" in str(record[0].message)
    assert env.step(RED)  # it is done all the same
    with pytest.warns(RewardDesignWarning, match=ENDS_SUCCESS):
        make(BINARY, POTENTIAL, terminate_on_success=True)


def test_an_end_before_the_time_limit_warns_once_where_the_reward_is_dense(make):
    env = make(DENSE)
    for _ in range(4):
        env.step(BLUE)  # cut off by the time limit
    with pytest.warns(RewardDesignWarning, match=ENDS_ITSELF) as record:
        assert env.step(END)
    assert len(design_warnings(record)) == 1
    assert env.step(END)  # a second warning would be an error here


def test_both_may_be_due(make):
    with pytest.warns(RewardDesignWarning, match=ENDS_SUCCESS):
        env = make(DENSE, terminate_on_success=True)
    with pytest.warns(RewardDesignWarning, match=ENDS_ITSELF):
        env.step(END)


@pytest.mark.parametrize(
    ("head", "timing", "terminate"),
    [
        (BINARY, PLAIN, None),
        (BINARY, PLAIN, True),
        (BINARY, PLAIN, False),
        (DENSE, POTENTIAL, None),
        (DENSE, POTENTIAL, False),
        (BINARY, POTENTIAL, None),
    ],
)
def test_no_warning_where_ends_and_reward_go_together(make, head, timing, terminate):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        env = make(head, timing, terminate_on_success=terminate)
        for action in (BLUE, RED, END, BLUE, BLUE, BLUE, BLUE, RED, END):
            env.step(action)


def test_a_fixed_horizon_is_fine_with_a_dense_reward(make):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        env = make(DENSE, terminate_on_success=False)
        ends = [env.step(action) for action in (BLUE, RED, BLUE, RED) * 2]
    assert ends == [False, False, False, True] * 2


def test_each_wrapper_warns_for_itself(make):
    for _ in range(2):
        env = make(DENSE)
        with pytest.warns(RewardDesignWarning, match=ENDS_ITSELF):
            env.step(END)
