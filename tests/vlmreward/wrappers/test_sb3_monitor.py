import functools
import json

import gymnasium as gym
import numpy as np
import pytest
from stable_baselines3 import DQN, PPO
from stable_baselines3.common.logger import configure
from stable_baselines3.common.vec_env import (
    DummyVecEnv,
    VecMonitor,
    VecNormalize,
    VecTransposeImage,
)

from vlmreward import (
    CosineHead,
    FakeEncoder,
    Goal,
    RewardModel,
    RewardTiming,
    SoftmaxHead,
    ThresholdHead,
)
from vlmreward.monitor import RewardMonitor, SecondOpinion
from vlmreward.wrappers.sb3 import VecVLMReward
from vlmreward.wrappers.sb3_monitor import RewardMonitorCallback

WAIT, WALK, PAINT = range(3)
NUM_ENVS = 4


class PaintedEnv(gym.Env):
    """The goal is a green room, a walk away; in its place, a learner can paint.

    A painter turns one more quadrant of the frame green with every step. Three of four are enough
    to be paid, for a softmax between green and black: the cosines are k/4 and 1 - k/4. Nobody has
    reached the goal then. With `paints=False`, the action does nothing, and the goal is nearer, so
    that it is found.
    """

    action_space = gym.spaces.Discrete(3)
    render_mode = None

    def __init__(self, *, paints=True, horizon=6, size=4):
        self.paints, self.horizon, self.size = paints, horizon, size
        self.distance = 5 if paints else 4
        self.observation_space = gym.spaces.Dict(
            {
                "pixels": gym.spaces.Box(0, 255, (size, size, 3), np.uint8),
                "state": gym.spaces.Box(0.0, 1.0, (3,), np.float32),
            }
        )

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.time = self.walked = self.painted = 0
        return self._obs(), {}

    def step(self, action):
        self.time += 1
        self.walked += action == WALK
        self.painted += self.paints and action == PAINT
        success = self.walked >= self.distance
        return self._obs(), float(success), False, self.time >= self.horizon, {"success": success}

    def _obs(self):
        half = self.size // 2
        pixels = np.zeros((self.size, self.size, 3), np.uint8)
        for quadrant in range(4 if self.walked >= self.distance else min(self.painted, 4)):
            row, column = np.array(divmod(quadrant, 2)) * half
            pixels[row : row + half, column : column + half, 1] = 255
        state = np.array([self.time, self.walked, self.painted], np.float32) / self.horizon
        return {"pixels": pixels, "state": state}


def green_room(timing=None):
    """The reward model that three painted quadrants fool."""
    goal = Goal("a green room", negative_prompts=["a black room"])
    head = ThresholdHead(SoftmaxHead(temperature=0.1), threshold=0.5)
    return RewardModel(FakeEncoder(), goal, head, timing)


def make_venv(*, paints, observe="embedding", reward_model=None):
    size = 36 if observe == "pixels" else 4  # the least that SB3's CNN takes
    base = DummyVecEnv([functools.partial(PaintedEnv, paints=paints, size=size)] * NUM_ENVS)
    return VecVLMReward(base, reward_model or green_room(), observe=observe)


def make_monitor(**settings):
    defaults = {"calibrated_rate": 0.02, "episodes": 50, "look_every": 200, "significance": 0.05}
    return RewardMonitor(NUM_ENVS, **(defaults | settings))


def second_opinion(share=0.5):
    """The plain cosine, which three quadrants (.75) do not satisfy."""
    model = RewardModel(FakeEncoder(), Goal("a green room"), ThresholdHead(CosineHead(), 0.9))
    return SecondOpinion(model, share=share, generator=np.random.default_rng(0))


def make_agent(venv, n_steps=32):
    return PPO(
        "MultiInputPolicy",
        venv,
        n_steps=n_steps,
        batch_size=32,
        n_epochs=4,
        learning_rate=3e-3,
        policy_kwargs={"net_arch": [16]},
        seed=0,
        device="cpu",
    )


@pytest.fixture(scope="module")
def trained():
    """Reports of the same learner, with and without paint."""
    reports = {}
    for paints in (True, False):
        venv = make_venv(paints=paints)
        monitor = make_monitor(max_disagreement=0.2)
        make_agent(venv).learn(2048, callback=RewardMonitorCallback(monitor, second_opinion()))
        reports[paints] = monitor.report()
    return reports


def test_a_learner_that_fools_the_reward_model_is_found_out(trained):
    report = trained[True]
    assert report.returns.vlm_after > 0.9  # it has learned, but not what was meant
    assert report.returns.env_after < 0.1
    assert {"false_positives", "disagreement"} <= set(report.alarms)
    assert set(report.first_alarm) == {"false_positives", "returns", "disagreement"}
    assert report.false_positives.rate > 0.1
    assert report.disagreement.rate > 0.9
    assert json.loads(json.dumps(report.to_dict())) == report.to_dict()


def test_the_same_learner_without_paint_is_not_accused(trained):
    report = trained[False]
    assert report.returns.env_after > 0.5  # it has learned what was meant
    assert report.first_alarm == {}
    assert report.alarms == ()
    assert report.false_positives.events == 0
    assert report.false_positives.trials > 500
    assert report.disagreement.rate == 0.0


def test_findings_are_logged(tmp_path):
    agent = make_agent(make_venv(paints=True), n_steps=64)
    agent.set_logger(configure(str(tmp_path), ["csv"]))
    monitor = make_monitor(max_disagreement=0.2)
    agent.learn(512, callback=RewardMonitorCallback(monitor, second_opinion()))
    agent.logger.close()
    header, *rows = (tmp_path / "progress.csv").read_text().splitlines()
    logged = dict(zip(header.split(","), rows[-1].split(","), strict=True))
    report = monitor.report()
    assert float(logged["vlm_reward/false_positive_rate"]) == pytest.approx(
        report.false_positives.rate
    )
    assert float(logged["vlm_reward/disagreement"]) == pytest.approx(report.disagreement.rate)
    assert int(logged["vlm_reward/alarm"]) == len(report.alarms) >= 1


def test_training_can_stop_at_an_alarm():
    agent = make_agent(make_venv(paints=True))
    monitor = make_monitor()
    agent.learn(4096, callback=RewardMonitorCallback(monitor, stop_on_alarm=True))
    assert agent.num_timesteps == monitor.report().first_alarm["false_positives"] < 1000


class Recorded(RewardMonitor):
    """Remembers what it was told."""

    def __init__(self, **settings):
        super().__init__(NUM_ENVS, **settings)
        self.updates = []

    def update(self, reward, ended, **others):
        self.updates.append({"reward": reward.copy(), "ended": ended.copy(), **others})
        super().update(reward, ended, **others)


@pytest.mark.parametrize("observe", ["pixels", "embedding"])
def test_it_sees_the_frames_that_were_paid(observe):
    # Around the wrapper, rewards and observations are changed: the monitor must not see those.
    paid = make_venv(paints=True, observe=observe)
    around = VecTransposeImage(VecMonitor(paid)) if observe == "pixels" else VecMonitor(paid)
    venv = VecNormalize(around, norm_obs=False)
    monitor = Recorded(calibrated_rate=0.02, max_disagreement=0.2)
    agent = DQN("MultiInputPolicy", venv, learning_starts=200, buffer_size=200, seed=0)
    agent.learn(160, callback=RewardMonitorCallback(monitor, second_opinion(share=1.0)))
    rows = [row for update in monitor.updates for row in zip(*update.values(), strict=True)]
    keys = list(monitor.updates[0])
    steps = [dict(zip(keys, row, strict=True)) for row in rows]
    assert len(steps) == 160
    assert {step["reward"] for step in steps} == {0.0, 1.0}
    for step in steps:
        # The room is painted to three quarters when it pays, unless the goal was reached: only
        # the frame at the end of the episode itself says so, the next one's first is black.
        assert np.isnan(step["second_reward"]) == (step["reward"] == 0)
        if step["reward"]:
            assert step["second_reward"] == step["achieved"] == step["env_reward"]
            assert step["ended"]


def test_frames_that_were_not_scored_do_not_count():
    model = green_room(RewardTiming(score_every="episode_end"))
    monitor = Recorded(calibrated_rate=0.02, look_every=8)
    agent = make_agent(make_venv(paints=True, reward_model=model), n_steps=16)
    agent.learn(64, callback=RewardMonitorCallback(monitor))
    assert sum(update["scored"].sum() for update in monitor.updates) == 8  # two whole episodes each
    assert monitor.report().false_positives.trials <= 8


def test_without_ground_truth_a_second_opinion_is_enough():
    monitor = make_monitor(calibrated_rate=None, max_disagreement=0.2)
    callback = RewardMonitorCallback(monitor, second_opinion(), achieved=None)
    make_agent(make_venv(paints=True)).learn(512, callback=callback)
    report = monitor.report()
    assert report.false_positives is None
    assert report.returns is None
    assert report.alarms == ("disagreement",)


def test_a_dense_reward_can_have_its_returns_compared():
    head = SoftmaxHead(temperature=0.1)
    goal = Goal("a green room", negative_prompts=["a black room"])
    venv = make_venv(paints=True, reward_model=RewardModel(FakeEncoder(), goal, head))
    monitor = make_monitor(calibrated_rate=None, episodes=20)
    make_agent(venv).learn(512, callback=RewardMonitorCallback(monitor))
    assert "returns" in monitor.report().first_alarm
    with pytest.raises(ValueError, match="SoftmaxHead pays no 0 or 1"):
        make_agent(venv).learn(128, callback=RewardMonitorCallback(make_monitor()))


def test_what_does_not_fit_is_refused_when_training_starts():
    agent = make_agent(make_venv(paints=True))
    for callback, message in [
        (RewardMonitorCallback(RewardMonitor(1)), "a monitor of 4 environments, got one of 1"),
        (RewardMonitorCallback(make_monitor(), achieved=None), "there is no ground truth"),
        (RewardMonitorCallback(make_monitor(), second_opinion()), "or neither"),
        (RewardMonitorCallback(make_monitor(max_disagreement=0.1)), "or neither"),
    ]:
        with pytest.raises(ValueError, match=message):
            agent.learn(128, callback=callback)
    plain = make_agent(DummyVecEnv([functools.partial(PaintedEnv, size=36)]))
    with pytest.raises(ValueError, match="learns in a VecVLMReward, got DummyVecEnv"):
        plain.learn(32, callback=RewardMonitorCallback(RewardMonitor(1)))
