"""`DeferredScoring` against the stream that pays at once."""

import threading

import numpy as np
import pytest
import torch

from vlmreward import CosineHead, FakeEncoder, Goal, RewardModel, RewardTiming
from vlmreward.reward_stream import RewardStream
from vlmreward.wrappers import deferred
from vlmreward.wrappers.deferred import DeferredScoring, executor_for

GOALS = [Goal("a red room"), Goal("a blue room")]
NUM_ENVS = 3
TIMINGS = [
    RewardTiming(),
    RewardTiming(window=3),
    RewardTiming(discount=0.9),
    RewardTiming(window=2, discount=0.9, pooling="max"),
    RewardTiming(score_every=3),
    RewardTiming(window=4, score_every="episode_end"),
    RewardTiming(success_steps=2),
]


class BatchSensitiveEncoder(FakeEncoder):
    """Rounds a little differently in every size of batch, as a real encoder does."""

    def __init__(self):
        super().__init__()
        self.batch_sizes = []

    def encode_obs(self, obs):
        embedding = super().encode_obs(obs)
        self.batch_sizes.append(len(embedding))
        shift = 1e-6 * len(embedding) * torch.arange(self.embed_dim)
        return torch.nn.functional.normalize(embedding + shift, dim=1)


class HeldEncoder(FakeEncoder):
    """Works when it is allowed to."""

    def __init__(self):
        super().__init__()
        self.has_begun, self.may_end = threading.Event(), threading.Event()

    def encode_obs(self, obs):
        self.has_begun.set()
        assert self.may_end.wait(60)
        return super().encode_obs(obs)


def draw_steps(num_steps):
    rng = np.random.default_rng(0)

    def frames(num_rows):
        return {"pixels": rng.integers(0, 256, (num_rows, 4, 4, 3), dtype=np.uint8)}

    for _ in range(num_steps):
        ends = rng.random(NUM_ENVS) < 0.2
        started = np.flatnonzero(ends).tolist()
        yield {
            "obs": frames(NUM_ENVS),
            "terminated": ends & (rng.random(NUM_ENVS) < 0.5),
            "truncated": ends,
            "started": started,
            "first_obs": frames(len(started)),
            "goal_index": rng.integers(2, size=len(started)),
        }


def make_stream(encoder, timing=None):
    stream = RewardStream(RewardModel(encoder, GOALS, CosineHead(), timing), NUM_ENVS)
    first = np.random.default_rng(1).integers(0, 256, (NUM_ENVS, 4, 4, 3), dtype=np.uint8)
    stream.start(range(NUM_ENVS), {"pixels": first})
    return stream


def frame(value):
    return {"pixels": np.full((NUM_ENVS, 4, 4, 3), value, np.uint8)}


@pytest.fixture(params=["cpu", "cuda"])
def device_type(request, monkeypatch):
    """Lets the encoder work as it would on a device; it is on the CPU in truth."""
    executor = executor_for(torch.device(request.param))
    monkeypatch.setattr(deferred, "executor_for", lambda device: executor)
    return request.param


def test_another_device_is_handed_its_work_by_whoever_steps():
    for device_type, is_caller in (("cpu", False), ("cuda", True), ("mps", True)):
        executor = executor_for(torch.device(device_type))
        future = executor.submit(threading.get_ident)
        assert (future.result(60) == threading.get_ident()) == is_caller
        executor.shutdown()


@pytest.mark.parametrize("timing", TIMINGS, ids=repr)
@pytest.mark.parametrize("batch_size", [1, 10, 1000])
@pytest.mark.usefixtures("device_type")
def test_every_step_is_paid_as_if_at_once_and_in_order(timing, batch_size):
    encoder = BatchSensitiveEncoder() if batch_size == 1 else FakeEncoder()
    stream = make_stream(encoder, timing)
    expected = [stream.step(**step) for step in draw_steps(40)]
    stream = make_stream(encoder, timing)
    scoring = DeferredScoring(stream, batch_size)
    paid, steps = [], []
    for number, step in enumerate(draw_steps(40)):
        steps.append(scoring.add(stream.planner.plan(**step), paid.append))
        if number == 25:
            steps[23].result()
    scoring.settle()
    assert [step.result() for step in steps] == paid
    for got, at_once in zip(paid, expected, strict=True):
        np.testing.assert_array_equal(got.reward, at_once.reward)
        np.testing.assert_array_equal(got.score, at_once.score)
    scoring.close()


def test_frames_go_through_the_encoder_in_batches():
    encoder = BatchSensitiveEncoder()
    scoring = DeferredScoring(stream := make_stream(encoder), batch_size=12)
    steps = [scoring.add(stream.planner.plan(frame(value))) for value in range(10)]
    scoring.settle()
    assert encoder.batch_sizes == [12, 12, 6]
    assert all(step.is_paid for step in steps)
    scoring.close()


def test_an_earlier_result_does_not_wait_for_later_batches():
    encoder = BatchSensitiveEncoder()
    scoring = DeferredScoring(stream := make_stream(encoder), batch_size=6)
    steps = [scoring.add(stream.planner.plan(frame(value))) for value in range(5)]
    steps[0].result()
    assert [step.is_paid for step in steps] == [True, True, False, False, False]
    steps[4].result()
    assert encoder.batch_sizes == [6, 6, 3]
    scoring.close()


def test_whoever_steps_goes_on_while_a_batch_is_encoded():
    encoder = HeldEncoder()
    scoring = DeferredScoring(stream := make_stream(encoder), batch_size=NUM_ENVS)
    steps = [scoring.add(stream.planner.plan(frame(value))) for value in (0, 1)]
    assert encoder.has_begun.wait(60)  # so both calls of `add` came back before the encoder did
    assert not steps[0].is_paid
    encoder.may_end.set()
    scoring.settle()
    assert steps[0].is_paid
    scoring.close()


def test_no_more_than_three_batches_are_held():
    encoder = HeldEncoder()
    scoring = DeferredScoring(stream := make_stream(encoder), batch_size=2 * NUM_ENVS)
    for value in range(5):  # two batches are with the thread, and half of the third is here
        scoring.add(stream.planner.plan(frame(value)))
    sixth = threading.Thread(target=lambda: scoring.add(stream.planner.plan(frame(5))))
    sixth.start()
    sixth.join(0.2)
    assert sixth.is_alive()
    encoder.may_end.set()
    sixth.join(60)
    assert not sixth.is_alive()
    scoring.close()


@pytest.mark.usefixtures("device_type")
def test_what_the_encoder_raises_reaches_whoever_waits():
    class Failing(FakeEncoder):
        def encode_obs(self, obs):
            raise ZeroDivisionError("no device")

    scoring = DeferredScoring(stream := make_stream(Failing()), batch_size=1)
    step = scoring.add(stream.planner.plan(frame(0)))
    for _ in range(2):
        with pytest.raises(ZeroDivisionError, match="no device"):
            step.result()
    scoring.close()


def test_batch_sizes_are_positive():
    with pytest.raises(ValueError, match="positive batch_size, got 0"):
        DeferredScoring(make_stream(FakeEncoder()), 0)
