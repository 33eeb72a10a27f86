"""On scripted environments. `../on_dm_control.py` has real ones."""

import unittest
import warnings

import dm_env
import numpy as np
import pytest
from dm_env import specs, test_utils

from vlmreward import (
    CosineHead,
    FakeEncoder,
    FrameError,
    Goal,
    RewardModel,
    RewardTiming,
    SoftmaxHead,
    ThresholdHead,
)
from vlmreward.goal_source import SampledGoals, ToldGoals
from vlmreward.guard import RewardDesignWarning
from vlmreward.wrappers.dm_env import DmEnvVLMReward

BLUE, RED, END = 0, 1, 2


class ScriptedEnvironment(dm_env.Environment):
    """Shows red for action 1 and blue for the others, and says in one pixel where it is.

    Every episode starts on a red frame: whoever scores it pays by mistake. Episodes are cut off
    after four steps, and end by themselves on action 2.
    """

    def __init__(self, horizon=4):
        self.horizon = horizon
        self.episode, self.time, self.red = -1, 0, True
        self.ended, self.closed = True, False

    def reset(self):
        self.episode += 1
        self.time, self.red, self.ended = 0, True, False
        return dm_env.restart(self._obs())

    def step(self, action):
        if self.ended:
            return self.reset()
        self.time += 1
        self.red = action == RED
        self.ended = action == END or self.time == self.horizon
        reward, obs = 0.25 * self.time, self._obs()
        if action == END:
            return dm_env.termination(reward, obs)
        if self.ended:
            return dm_env.truncation(reward, obs, discount=0.9)
        return dm_env.transition(reward, obs, discount=0.9)

    def draw(self):
        pixels = np.zeros((8, 8, 3), np.uint8)
        pixels[..., 0 if self.red else 2] = 255
        pixels[0, 0] = (0, self.episode % 256, self.time)
        return pixels

    def observation_spec(self):
        return {
            "pixels": specs.BoundedArray((8, 8, 3), np.uint8, 0, 255),
            "position": specs.Array((2,), np.int64),
        }

    def action_spec(self):
        return specs.DiscreteArray(3)

    def close(self):
        self.closed = True

    def _obs(self):
        return {"pixels": self.draw(), "position": np.array([self.episode, self.time])}


class BlindEnvironment(ScriptedEnvironment):
    """Shows its position only, and counts discounts in float32."""

    def observation_spec(self):
        return specs.Array((2,), np.int64)

    def discount_spec(self):
        return specs.BoundedArray((), np.float32, 0.5, 1.0)

    def step(self, action):
        step = super().step(action)
        return step if step.first() else step._replace(discount=np.float32(1.0))

    def _obs(self):
        return super()._obs()["position"]


def reward_model_of(head=None, timing=None, encoder=None):
    """Goal 0 pays for red, goal 1 for blue."""
    red, blue = "a red room", "a blue room"
    head = head or ThresholdHead(SoftmaxHead(temperature=0.1), threshold=0.5)
    goals = [Goal(red, [blue]), Goal(blue, [red])]
    return RewardModel(encoder or FakeEncoder(), goals, head, timing)


class TestContract(test_utils.EnvironmentTestMixin, unittest.TestCase):
    """dm_env's own checks, with success, time limits and true ends on the way."""

    def make_object_under_test(self):
        return DmEnvVLMReward(ScriptedEnvironment(), reward_model_of(), observe_goal=True)

    def make_action_sequence(self):
        # Success; four steps to the time limit; a true end: with a reset after each.
        return [BLUE, RED, BLUE, *[BLUE] * 4, RED, END, BLUE, BLUE]


class TestContractOfADenseReward(TestContract):
    def make_object_under_test(self):
        timing = RewardTiming(window=2, discount=0.9)
        return DmEnvVLMReward(ScriptedEnvironment(), reward_model_of(CosineHead(), timing))


class TestContractWhereFramesAreRendered(TestContract):
    def make_object_under_test(self):
        return DmEnvVLMReward(BlindEnvironment(), reward_model_of(), render=lambda env: env.draw())


def test_pays_for_the_frame_that_the_action_led_to():
    reward_model = reward_model_of()
    environment = DmEnvVLMReward(ScriptedEnvironment(), reward_model, terminate_on_success=False)
    environment.reset()
    for action in (BLUE, RED, BLUE, RED):
        step = environment.step(action)
        scores = reward_model.score(step.observation["pixels"][None])
        assert step.reward == float(action == RED) == float(scores.reward[0])
        assert environment.last_info["vlm_score"] == float(scores.score[0])
    assert step.last()


def test_the_first_frame_of_an_episode_is_never_paid():
    environment = DmEnvVLMReward(ScriptedEnvironment(), reward_model_of())
    for _ in range(2):
        first = environment.step(RED)  # starts an episode: fresh, then after LAST
        assert first.first()
        assert (first.reward, first.discount) == (None, None)
        assert environment.last_info == {"goal_index": 0}
        rewards = [environment.step(BLUE).reward for _ in range(4)]
        assert rewards == [0.0] * 4


def test_success_ends_the_episode_and_the_next_step_starts_one():
    inner = ScriptedEnvironment()
    environment = DmEnvVLMReward(inner, reward_model_of())
    environment.reset()
    assert environment.step(BLUE).mid()
    step = environment.step(RED)
    assert (step.step_type, step.reward, step.discount) == (dm_env.StepType.LAST, 1.0, 0.0)
    assert not inner.ended
    step = environment.step(RED)
    assert step.first()
    np.testing.assert_array_equal(step.observation["position"], [1, 0])


def test_ends_keep_their_discount():
    environment = DmEnvVLMReward(ScriptedEnvironment(), reward_model_of())
    environment.reset()
    steps = [environment.step(BLUE) for _ in range(4)]
    assert [step.last() for step in steps] == [False] * 3 + [True]
    assert [step.discount for step in steps] == [0.9] * 4  # a time limit
    environment.reset()
    step = environment.step(END)
    assert (step.last(), step.discount, step.reward) == (True, 0.0, 0.0)


def test_a_true_end_has_no_potential_and_a_time_limit_keeps_its_own():
    timing = RewardTiming(discount=0.9)
    reward_model = reward_model_of(CosineHead(), timing)
    environment = DmEnvVLMReward(ScriptedEnvironment(), reward_model, goal_index=1)

    def play(actions):
        first = environment.reset()
        steps = [environment.step(action) for action in actions]
        assert steps[-1].last()
        frames = np.stack([step.observation["pixels"] for step in (first, *steps)])
        potential = reward_model.score(frames, 1).reward.numpy()
        return sum(0.9**t * step.reward for t, step in enumerate(steps)), potential

    discounted, potential = play([BLUE, BLUE, END])
    assert discounted == pytest.approx(-potential[0], abs=1e-6)
    discounted, potential = play([BLUE] * 4)
    assert discounted == pytest.approx(0.9**4 * potential[-1] - potential[0], abs=1e-6)


def test_the_reset_is_in_the_window_and_episodes_are_apart():
    reward_model = reward_model_of(CosineHead(), RewardTiming(window=2))
    environment = DmEnvVLMReward(ScriptedEnvironment(), reward_model, goal_index=1)
    for _ in range(2):
        environment.reset()
        rewards = [float(environment.step(BLUE).reward) for _ in range(4)]
        # Half of the first window is the red frame of the reset.
        assert rewards == pytest.approx([2**-0.5, 1, 1, 1], abs=0.01)


def test_an_episode_can_be_scored_at_its_end_alone():
    timing = RewardTiming(score_every="episode_end")
    environment = DmEnvVLMReward(ScriptedEnvironment(), reward_model_of(timing=timing))
    environment.reset()
    steps, scores = [], []
    for _ in range(4):
        steps.append(environment.step(RED))
        scores.append(environment.last_info["vlm_score"])
    assert [step.reward for step in steps] == [0, 0, 0, 1]
    assert np.isnan(scores).tolist() == [True, True, True, False]
    assert steps[-1].discount == 0.0  # success at the time limit is success


def test_the_environments_own_reward_is_kept_aside():
    environment = DmEnvVLMReward(ScriptedEnvironment(), reward_model_of(), goal_index=1)
    assert environment.last_info == {}
    environment.reset()
    environment.step(BLUE)
    info = environment.last_info
    assert {**info, "vlm_score": None} == {
        "env_reward": 0.25,
        "vlm_reward": 1.0,
        "vlm_score": None,
        "goal_index": 1,
    }
    assert 0.5 < info["vlm_score"] <= 1


def test_specs_say_what_is_paid():
    inner = ScriptedEnvironment()
    binary = DmEnvVLMReward(inner, reward_model_of(), observe_goal=True)
    assert binary.reward_spec() == specs.BoundedArray((), np.float32, 0.0, 1.0, name="reward")
    assert binary.action_spec() == inner.action_spec()
    spec = binary.observation_spec()
    assert list(spec) == ["pixels", "position", "goal_embedding"]
    assert (spec["goal_embedding"].shape, spec["goal_embedding"].dtype) == ((16,), np.float32)
    dense = DmEnvVLMReward(inner, reward_model_of(CosineHead()))
    assert type(dense.reward_spec()) is specs.Array
    assert dense.reward_spec().dtype == np.float32
    assert dense.observation_spec() == inner.observation_spec()
    assert dense.discount_spec() == inner.discount_spec()


def test_a_goal_source_chooses_and_the_goal_is_observed():
    reward_model = reward_model_of()
    source = SampledGoals([0, 1], np.random.default_rng(0))
    environment = DmEnvVLMReward(ScriptedEnvironment(), reward_model, source, observe_goal=True)
    chosen = set()
    for _ in range(8):
        first = environment.reset()
        goal = environment.last_info["goal_index"]
        chosen.add(goal)
        expected = reward_model.goal_embeddings(goal)[0].numpy()
        np.testing.assert_array_equal(first.observation["goal_embedding"], expected)
        step = environment.step(BLUE)
        assert step.reward == goal
        np.testing.assert_array_equal(step.observation["goal_embedding"], expected)
    assert chosen == {0, 1}


def test_a_goal_is_told_by_the_observation():
    class Telling(ScriptedEnvironment):
        def _obs(self):
            words = "a blue room" if self.episode % 2 else "a red room"
            return {**super()._obs(), "mission": words}

    reward_model = reward_model_of()
    source = ToldGoals(reward_model.goals, key="mission")
    environment = DmEnvVLMReward(Telling(), reward_model, source)
    told = []
    for _ in range(4):
        environment.reset()
        told.append(environment.last_info["goal_index"])
    assert told == [0, 1, 0, 1]


def test_rendered_frames_are_scored_where_there_is_a_render():
    environment = DmEnvVLMReward(
        BlindEnvironment(), reward_model_of(), render=lambda env: env.draw()
    )
    environment.reset()
    assert [environment.step(action).reward for action in (BLUE, RED)] == [0.0, 1.0]
    white = np.full((8, 8, 3), 255, np.uint8)
    white[0, 0] = 0
    environment = DmEnvVLMReward(
        ScriptedEnvironment(), reward_model_of(CosineHead()), render=lambda env: white
    )
    environment.reset()
    assert environment.step(RED).reward < 0.9


def test_what_cannot_be_scored_is_refused():
    with pytest.raises(FrameError, match=r"'pixels', got Array.*render=lambda"):
        DmEnvVLMReward(BlindEnvironment(), reward_model_of())
    environment = DmEnvVLMReward(
        BlindEnvironment(), reward_model_of(), render=lambda env: np.zeros((8, 8, 3), np.uint8)
    )
    environment.reset()
    with pytest.raises(FrameError, match="blank frame"):
        environment.step(BLUE)
    environment = DmEnvVLMReward(
        BlindEnvironment(), reward_model_of(), render=lambda env: env.draw() / 255
    )
    environment.reset()
    with pytest.raises(FrameError, match="expected uint8 frames"):
        environment.step(BLUE)
    with pytest.raises(IndexError, match="goal_index from 0 to 1, got 2"):
        DmEnvVLMReward(ScriptedEnvironment(), reward_model_of(), goal_index=2)
    with pytest.raises(TypeError, match="observe_goal needs observations that are mappings"):
        DmEnvVLMReward(
            BlindEnvironment(), reward_model_of(), observe_goal=True, render=lambda env: env.draw()
        )
    once = DmEnvVLMReward(ScriptedEnvironment(), reward_model_of(), observe_goal=True)
    with pytest.raises(ValueError, match="'goal_embedding' already"):
        DmEnvVLMReward(once, reward_model_of(), observe_goal=True)


def test_a_dense_reward_warns_of_true_ends_once():
    environment = DmEnvVLMReward(ScriptedEnvironment(), reward_model_of(CosineHead()))
    environment.reset()
    with pytest.warns(RewardDesignWarning, match="ended an episode before its time limit"):
        environment.step(END)
    environment.reset()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        environment.step(END)


def test_an_environment_reset_behind_its_back_is_not_paid_for():
    inner = ScriptedEnvironment()
    environment = DmEnvVLMReward(inner, reward_model_of())
    environment.reset()
    inner.ended = True
    step = environment.step(RED)
    assert step.first()
    assert step.reward is None


def test_closing_closes_the_environment():
    inner = ScriptedEnvironment()
    with DmEnvVLMReward(inner, reward_model_of()) as environment:
        environment.reset()
    assert inner.closed
