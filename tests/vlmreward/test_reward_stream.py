"""`RewardStream` against a plain reading of `RewardTiming`, one environment at a time."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn.functional import normalize

from vlmreward import (
    ContrastHead,
    CosineHead,
    FakeEncoder,
    Goal,
    RewardModel,
    RewardTiming,
    SoftmaxHead,
    ThresholdHead,
)
from vlmreward.encoders import CachedEncoder
from vlmreward.reward_stream import RewardStream

from .remembering import RememberingEncoder

GOALS = [Goal("a red room", ["a green room"]), Goal("a blue room", ["a red room"])]
BINARY = ThresholdHead(SoftmaxHead(0.3), 0.6)


class CountingEncoder(FakeEncoder):
    def __init__(self):
        super().__init__()
        self.batch_sizes = []

    @property
    def num_frames(self):
        return sum(self.batch_sizes)

    def encode_obs(self, obs):
        self.batch_sizes.append(len(obs["pixels"]))
        return super().encode_obs(obs)


def draw_frames(rng, *shape):
    return rng.integers(0, 256, (*shape, 4, 4, 3), dtype=np.uint8)


def by_hand(reward_model, goal_index, frames, terminated):
    """The rewards of one episode: frames [T + 1, H, W, 3], the reset's first."""
    timing, head = reward_model.timing, reward_model.head
    embedding = reward_model.encoder.encode_obs({"pixels": frames})
    num_steps = len(frames) - 1

    def value(step):
        past = embedding[max(0, step + 1 - timing.window) : step + 1]
        pooled = embedding[step]
        if timing.window > 1 and timing.pooling == "mean":
            pooled = past.mean(dim=0)
        elif timing.window > 1 and timing.pooling == "max":
            pooled = past.amax(dim=0)
        elif timing.window > 1:
            pooled = past[-1] - past[0]
        pooled = normalize(pooled, dim=0)
        return reward_model.score_embeddings(pooled[None], goal_index)

    rewards, in_a_row, before = [], 0, None
    for step in range(1, num_steps + 1):
        is_last = step == num_steps
        every = timing.score_every
        if not (is_last or (every != "episode_end" and step % every == 0)):
            rewards.append(0.0)
            continue
        paid = float(value(step).reward[0])
        if timing.discount is not None:
            before = float(value(0).reward[0]) if before is None else before
            after = 0.0 if is_last and terminated else paid
            rewards.append(timing.discount * after - before)
            before = after
            continue
        in_a_row = in_a_row + 1 if paid > 0 else 0
        is_paid = timing.success_steps == 1 or in_a_row >= timing.success_steps
        rewards.append(paid if is_paid else 0.0)
    assert head is reward_model.head
    return rewards


TIMINGS = [
    RewardTiming(),
    RewardTiming(window=3),
    RewardTiming(window=3, pooling="max"),
    RewardTiming(window=3, pooling="last_minus_first"),
    RewardTiming(discount=0.9),
    RewardTiming(window=2, discount=1.0),
    RewardTiming(score_every=3),
    RewardTiming(window=4, score_every=2),
    RewardTiming(window=2, score_every=3, pooling="max"),
    RewardTiming(score_every="episode_end"),
    RewardTiming(window=3, score_every="episode_end"),
    RewardTiming(success_steps=2),
    RewardTiming(success_steps=2, score_every=2),
]


@pytest.mark.parametrize("timing", TIMINGS, ids=repr)
@pytest.mark.parametrize("head", [BINARY, CosineHead(), ContrastHead()], ids=repr)
@pytest.mark.parametrize("encode_all", [False, True])
def test_rows_are_paid_as_if_alone(timing, head, encode_all):
    rng = np.random.default_rng(0)
    reward_model = RewardModel(FakeEncoder(), GOALS, head, timing)
    stream = RewardStream(reward_model, 3, [0, 1, 0], encode_all=encode_all)
    first = draw_frames(rng, 3)
    stream.start([0, 1, 2], {"pixels": first})
    history = [[frame] for frame in first]
    paid = [[] for _ in range(3)]
    goal_index = [0, 1, 0]
    checked = 0
    for _ in range(30):
        frames = draw_frames(rng, 3)
        ends = rng.random(3) < 0.25
        terminated = ends & (rng.random(3) < 0.5)
        started = rng.permutation(np.flatnonzero(ends)).tolist()
        fresh, goals = draw_frames(rng, len(started)), rng.integers(2, size=len(started))
        step = stream.step(
            {"pixels": frames},
            terminated=terminated,
            truncated=ends & ~terminated,
            started=started,
            first_obs={"pixels": fresh},
            goal_index=goals,
        )
        for row in range(3):
            history[row].append(frames[row])
            paid[row].append(step.reward[row])
            if ends[row]:
                expected = by_hand(
                    reward_model, goal_index[row], np.stack(history[row]), terminated[row]
                )
                np.testing.assert_allclose(paid[row], expected, atol=1e-5)
                checked += len(expected)
                place = started.index(row)
                history[row], paid[row] = [fresh[place]], []
                goal_index[row] = int(goals[place])
    assert checked > 40
    assert stream.goal_index.tolist() == goal_index


@pytest.mark.parametrize("timing", TIMINGS, ids=repr)
@pytest.mark.parametrize("encode_all", [False, True])
def test_steps_planned_ahead_are_paid_alike_from_one_batch(timing, encode_all):
    rng = np.random.default_rng(0)
    encoder = CountingEncoder()
    reward_model = RewardModel(encoder, GOALS, CosineHead(), timing)
    online, ahead = (
        RewardStream(reward_model, 3, [0, 1, 0], encode_all=encode_all) for _ in range(2)
    )
    first = {"pixels": draw_frames(rng, 3)}
    for stream in (online, ahead):
        stream.start([0, 1, 2], first)
    planned, paid = [], []
    for _ in range(20):
        ends = rng.random(3) < 0.25
        started = np.flatnonzero(ends).tolist()
        step = {
            "obs": {"pixels": draw_frames(rng, 3)},
            "terminated": ends & (rng.random(3) < 0.5),
            "truncated": ends,
            "started": started,
            "first_obs": {"pixels": draw_frames(rng, len(started))},
            "goal_index": rng.integers(2, size=len(started)),
        }
        paid.append(online.step(**step))
        planned.append(ahead.planner.plan(**step))
        np.testing.assert_array_equal(ahead.goal_index, online.goal_index)
    encoder.batch_sizes.clear()
    embeddings = ahead.encode(planned)
    assert encoder.batch_sizes == [sum(step.num_rows for step in planned)]
    for expected, step, embedding in zip(paid, planned, embeddings, strict=True):
        got = ahead.pay(step, embedding)
        np.testing.assert_array_equal(got.reward, expected.reward)
        np.testing.assert_array_equal(got.score, expected.score)


@given(seed=st.integers(0, 1000), num_steps=st.integers(1, 12), discount=st.floats(0.5, 1.0))
def test_a_discounted_potential_difference_telescopes(seed, num_steps, discount):
    frames = draw_frames(np.random.default_rng(seed), num_steps + 1)
    timing = RewardTiming(discount=discount)
    reward_model = RewardModel(FakeEncoder(), GOALS[0], CosineHead(), timing)
    stream = RewardStream(reward_model, 1)
    stream.start([0], {"pixels": frames[:1]})
    total = sum(
        discount**step * float(stream.step({"pixels": frames[step + 1 : step + 2]}).reward[0])
        for step in range(num_steps)
    )
    phi = reward_model.score(frames).score
    assert total == pytest.approx(discount**num_steps * float(phi[-1]) - float(phi[0]), abs=1e-4)


def test_steps_without_a_score_are_not_encoded_and_pay_nothing():
    encoder = CountingEncoder()
    timing = RewardTiming(score_every=4)
    stream = RewardStream(RewardModel(encoder, GOALS[0], CosineHead(), timing), 2)
    stream.start([0, 1])
    frames = draw_frames(np.random.default_rng(0), 2)
    for number in range(1, 9):
        step = stream.step({"pixels": frames})
        scored = number % 4 == 0
        assert np.isnan(step.score).all() == (not scored)
        assert encoder.num_frames == 2 * (number // 4)


def test_only_the_rows_whose_episode_ends_are_encoded_at_its_end():
    encoder = CountingEncoder()
    timing = RewardTiming(score_every="episode_end")
    stream = RewardStream(RewardModel(encoder, GOALS[0], CosineHead(), timing), 3)
    stream.start([0, 1, 2])
    frames = draw_frames(np.random.default_rng(0), 3)
    step = stream.step({"pixels": frames}, truncated=[False, True, False])
    assert encoder.num_frames == 1
    assert np.isfinite(step.score).tolist() == [False, True, False]
    alone = RewardModel(FakeEncoder(), GOALS[0], CosineHead())(frames[1:2])
    assert step.reward[1] == float(alone[0])


@pytest.mark.parametrize(
    ("timing", "batch_sizes"),
    [
        # Nine steps of two environments, which end with the last.
        (RewardTiming(window=3, score_every="episode_end"), [2 * 3]),
        (RewardTiming(window=20, score_every="episode_end"), [2 * 10]),  # the reset's is the tenth
        (RewardTiming(window=2, score_every=4), [2 * 2, 2 * 2, 2 * 1]),
        (RewardTiming(window=4, score_every=4), [2 * 4, 2 * 4, 2 * 1]),
        (RewardTiming(window=2), [2 * 2] + [2] * 8),
        (RewardTiming(window=2, discount=0.9), [2] * 10),
    ],
    ids=repr,
)
def test_frames_of_a_window_are_encoded_in_one_batch_when_a_score_needs_them(timing, batch_sizes):
    encoder = CountingEncoder()
    stream = RewardStream(RewardModel(encoder, GOALS[0], CosineHead(), timing), 2)
    rng = np.random.default_rng(0)
    stream.start([0, 1], {"pixels": draw_frames(rng, 2)})
    for step in range(1, 10):
        stream.step({"pixels": draw_frames(rng, 2)}, truncated=[step == 9] * 2)
    assert encoder.batch_sizes == batch_sizes


def test_a_frame_that_waits_may_be_overwritten_by_who_drew_it():
    timing = RewardTiming(window=4, score_every="episode_end")
    reward_model = RewardModel(FakeEncoder(), GOALS[0], CosineHead(), timing)
    frames = draw_frames(np.random.default_rng(0), 4, 1)
    paid = []
    for reused in (None, np.empty_like(frames[0])):
        stream = RewardStream(reward_model, 1)
        for step, frame in enumerate(frames):
            shown = frame
            if reused is not None:
                reused[:] = frame
                shown = reused
            if step == 0:
                stream.start([0], {"pixels": shown})
            else:
                last = stream.step({"pixels": shown}, truncated=[step == 3])
        paid.append(float(last.reward[0]))
    assert paid[0] == paid[1] != 0


def test_rows_that_only_reset_are_neither_encoded_nor_paid():
    encoder = CountingEncoder()
    stream = RewardStream(RewardModel(encoder, GOALS[0], BINARY), 2)
    stream.start([0, 1])
    red = np.zeros((2, 4, 4, 3), np.uint8)
    red[..., 0] = 255
    step = stream.step({"pixels": red}, stepped=np.array([True, False]))
    assert step.reward.tolist() == [1.0, 0.0]
    assert encoder.num_frames == 1


def test_arrays_and_tensors_are_paid_alike():
    frames = draw_frames(np.random.default_rng(0), 3, 4)
    rewards = []
    for convert in (np.asarray, torch.from_numpy):
        timing = RewardTiming(discount=0.9)
        stream = RewardStream(RewardModel(FakeEncoder(), GOALS[0], CosineHead(), timing), 4)
        stream.start([0, 1, 2, 3], {"pixels": convert(frames[0])})
        step = stream.step(
            {"pixels": convert(frames[1])},
            truncated=[False, True, False, True],
            started=[1, 3],
            first_obs={"pixels": convert(frames[2][:2])},
        )
        rewards.append(step.reward)
    assert np.array_equal(*rewards)


def test_a_missing_first_frame_is_refused():
    timing = RewardTiming(window=2)
    stream = RewardStream(RewardModel(FakeEncoder(), GOALS[0], CosineHead(), timing), 1)
    with pytest.raises(ValueError, match="expected first_obs, got none"):
        stream.start([0])


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"window": 0}, "window of at least 1"),
        ({"success_steps": 0}, "success_steps of at least 1"),
        ({"score_every": 0}, "score_every as a count"),
        ({"discount": 0.0}, "a discount in"),
        ({"discount": 1.1}, "a discount in"),
        ({"discount": 0.9, "score_every": 2}, "needs the score of every step"),
        ({"discount": 0.9, "success_steps": 2}, "needs the score of every step"),
    ],
)
def test_bad_timings_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        RewardTiming(**settings)


def remembered(encoder, frames):
    """What is to be scored of an episode, by hand."""
    total = torch.zeros(encoder.embed_dim)
    for own in FakeEncoder.encode_obs(encoder, {"pixels": frames}):
        total = 0.5 * total + own
    return normalize(total, dim=0)


def test_an_encoder_that_remembers_reads_every_step_and_forgets_at_resets():
    encoder = RememberingEncoder()
    reward_model = RewardModel(encoder, GOALS, CosineHead(), RewardTiming(score_every=3))
    stream = RewardStream(reward_model, num_envs=2, goal_index=[0, 1])
    assert stream.needs_first_frame
    frames = draw_frames(np.random.default_rng(0), 6, 2)
    first = stream.start([0, 1], {"pixels": frames[0]})
    assert torch.allclose(first, encoder.encode_obs({"pixels": frames[0]}))
    scores = []
    for step in range(1, 4):
        paid = stream.step({"pixels": frames[step]})
        scores.append(paid.score)
    assert np.isnan(scores[0]).all()
    assert np.isnan(scores[1]).all()
    for row in range(2):
        expected = remembered(encoder, frames[:4, row])
        assert torch.allclose(paid.embedding[row], expected, atol=1e-6)
        by_head = reward_model.score_embeddings(expected[None], row).score
        assert scores[2][row] == pytest.approx(float(by_head), abs=1e-6)
    # The first environment's episode ends, and the next one's first frame is the fifth.
    ended = stream.step(
        {"pixels": frames[4]},
        truncated=[True, False],
        started=[0],
        first_obs={"pixels": frames[5, :1]},
    )
    assert torch.allclose(ended.embedding[0], remembered(encoder, frames[:5, 0]), atol=1e-6)
    after = stream.step({"pixels": frames[1]})
    assert torch.allclose(after.embedding[0], remembered(encoder, frames[[5, 1], 0]), atol=1e-6)
    assert torch.allclose(
        after.embedding[1], remembered(encoder, frames[[0, 1, 2, 3, 4, 1], 1]), atol=1e-6
    )


def test_an_encoder_that_remembers_takes_no_window_and_no_cache():
    timing = RewardTiming(window=4)
    reward_model = RewardModel(RememberingEncoder(), GOALS, CosineHead(), timing)
    with pytest.raises(ValueError, match="remembers whole episodes, got a timing with a window"):
        RewardStream(reward_model, num_envs=1)
    with pytest.raises(TypeError, match="remembers episodes, and CachedEncoder knows single"):
        CachedEncoder(RememberingEncoder())
