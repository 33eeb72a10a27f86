import dataclasses
import json

import numpy as np
import pytest

from vlmreward import (
    ContrastHead,
    CosineHead,
    FakeEncoder,
    Goal,
    NormalizedHead,
    RewardModel,
    RewardTiming,
    ThresholdHead,
)
from vlmreward.evaluation import fit_normalized_head
from vlmreward.relabel import relabel
from vlmreward.reward_file import EncoderSource, load_reward, save_reward

GOALS = [Goal("a red room", ["a green room"]), Goal("a blue room", ["a red room"])]


def draw(num_frames, seed=0):
    rng = np.random.default_rng(seed)
    return rng.integers(0, 256, (num_frames, 4, 4, 3), dtype=np.uint8)


@pytest.mark.parametrize("head", [CosineHead(), ContrastHead()], ids=repr)
def test_the_frames_it_was_fitted_on_have_mean_0_and_deviation_1(head):
    frames, goal_index = draw(50), np.arange(50) % 2
    model = RewardModel(FakeEncoder(), GOALS, head)
    fitted = fit_normalized_head(model, frames, goal_index)
    raw = model(frames, goal_index).double().numpy()
    assert fitted.head == head
    assert (fitted.mean, fitted.std) == pytest.approx((raw.mean(), raw.std()))
    scores = RewardModel(FakeEncoder(), GOALS, fitted).score(frames, goal_index)
    assert scores.reward.double().mean() == pytest.approx(0.0, abs=1e-5)
    assert scores.reward.double().std(correction=0) == pytest.approx(1.0, abs=1e-4)
    np.testing.assert_array_equal(scores.score, np.float32(raw))


def test_it_is_fixed_whatever_is_scored_later():
    model = RewardModel(FakeEncoder(), GOALS, CosineHead())
    fitted = fit_normalized_head(model, draw(20))
    settings = dataclasses.asdict(fitted)
    later = RewardModel(FakeEncoder(), GOALS, fitted)
    first = later(draw(5, seed=1))
    later(np.zeros((40, 4, 4, 3), np.uint8))
    assert np.array_equal(later(draw(5, seed=1)), first)
    assert dataclasses.asdict(fitted) == settings


def test_a_saved_reward_pays_on_the_same_scale(tmp_path):
    frames = draw(6, seed=3).repeat(8, axis=1).repeat(8, axis=2)
    source = EncoderSource("playroom")
    goal = Goal("the person is next to the blue key", ["the person is next to nothing"])
    save_reward(tmp_path / "raw.json", source, goal, CosineHead())
    raw = load_reward(tmp_path / "raw.json", device="cpu")
    fitted = fit_normalized_head(raw, frames)
    save_reward(tmp_path / "fitted.json", source, goal, fitted)
    loaded = load_reward(tmp_path / "fitted.json", device="cpu")
    assert loaded.head == fitted
    assert json.loads((tmp_path / "fitted.json").read_text())["head"]["mean"] == fitted.mean
    direct = RewardModel(raw.encoder, goal, fitted)(frames)
    np.testing.assert_allclose(loaded(frames), direct, atol=1e-5)


def test_recorded_frames_are_paid_on_the_same_scale():
    head = NormalizedHead(CosineHead(), mean=0.5, std=0.1)
    frames, ends = draw(6), {"terminated": False, "truncated": True}
    raw = relabel(frames, RewardModel(FakeEncoder(), GOALS, CosineHead()), **ends)
    scaled = relabel(frames, RewardModel(FakeEncoder(), GOALS, head), **ends)
    np.testing.assert_allclose(scaled.reward, (raw.reward - 0.5) / 0.1, atol=1e-5)
    np.testing.assert_array_equal(scaled.score, raw.score)


def test_a_potential_difference_of_it_keeps_the_factor():
    discount, mean, std = 0.9, 0.5, 0.1
    frames, ends = draw(6), {"terminated": True, "truncated": False}
    timing = RewardTiming(discount=discount)
    paid = {}
    for head in (CosineHead(), NormalizedHead(CosineHead(), mean, std)):
        model = RewardModel(FakeEncoder(), GOALS, head, timing)
        paid[head] = relabel(frames, model, **ends).reward
    raw, scaled = paid.values()
    shift = np.full(5, (1 - discount) * mean / std)
    shift[-1] = mean / std  # the potential at a true end stays 0
    np.testing.assert_allclose(scaled, raw / std + shift, atol=1e-4)


@pytest.mark.parametrize(
    ("head", "frames", "message"),
    [
        (CosineHead(), draw(1), "rewards that differ between frames, got 1 with"),
        (CosineHead(), np.repeat(draw(1), 9, axis=0), "rewards that differ between frames, got 9"),
        (ThresholdHead(CosineHead(), 0.5), draw(30), "pays 0 or 1"),
    ],
)
def test_what_gives_no_scale_is_refused(head, frames, message):
    with pytest.raises(ValueError, match=message):
        fit_normalized_head(RewardModel(FakeEncoder(), GOALS, head), frames)
