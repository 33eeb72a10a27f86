"""Thousands of malformed inputs give a typed error or a right answer; run by test_malformed_inputs.

A script of its own, so that annotations are not checked at run time: what is refused here is
refused by the library itself, as it would be for a user.
"""

import numpy as np
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from vlmreward import (
    FakeEncoder,
    Goal,
    RewardModel,
    RewardTiming,
    SoftmaxHead,
    ThresholdHead,
)

GOALS = [Goal("a red room", ["a blue room"]), Goal("a blue room", ["a red room", "a dark hall"])]
MODEL = RewardModel(FakeEncoder(), GOALS, SoftmaxHead(0.5))
TYPED = (ValueError, TypeError, IndexError)
DTYPES = ["uint8", "int64", "float32", "float64", "bool", "int8", "complex64", "object"]

sizes = st.integers(0, 5)
shapes = st.one_of(
    st.tuples(sizes, st.integers(1, 5), st.integers(1, 5), st.just(3)),
    st.lists(sizes, min_size=0, max_size=6).map(tuple),
)


@st.composite
def frames(draw):
    """Arrays, tensors, lists, mappings and other things, some of them frames."""
    rng = np.random.default_rng(draw(st.integers(0, 99)))
    values = rng.integers(0, 256, draw(shapes))
    array = values.astype(draw(st.sampled_from(["uint8", *DTYPES])))
    if array.dtype.kind == "f" and array.size and draw(st.booleans()):
        array.flat[0] = draw(st.sampled_from([np.nan, np.inf, -np.inf]))
    if array.ndim and array.dtype.kind == "u" and draw(st.booleans()):
        array = array[..., ::-1] if draw(st.booleans()) else array[::-1]
    is_tensor = array.dtype.kind in "uif" and draw(st.booleans())
    made = torch.from_numpy(array.copy()) if is_tensor else array
    wrap = draw(st.sampled_from(["bare", "bare", "bare", "dict", "list", "other", "none"]))
    other = draw(st.sampled_from(["pixel", "state", "Pixels"]))
    return {
        "bare": made,
        "dict": {"pixels": made, "position": np.zeros(3)},
        "list": array.tolist(),
        "other": {other: made},
        "none": None,
    }[wrap]


indices = st.one_of(
    st.integers(-3, 4),
    st.lists(st.integers(-1, 3), max_size=6),
    st.lists(st.floats(allow_nan=True), max_size=4),
    st.sampled_from([None, "0", True, 1.0, np.array(1), np.array([[0, 1]]), np.nan, []]),
)
words = st.one_of(st.text(max_size=8), st.none(), st.integers(), st.binary(max_size=3))
checked = settings(
    max_examples=1500,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.too_slow],
)
COUNTS = {"refused": 0, "answered": 0}


def attempt(make):
    """Return what is made, or None and what was said against it."""
    try:
        return make(), None
    except TYPED as error:
        return None, error


def refused(error):
    """Count a refusal, which must say something."""
    if error is not None:
        assert len(str(error)) > 10, repr(error)
        COUNTS["refused"] += 1
    return error is not None


def is_index(value, num_rows):
    """Whether a goal index is one by the documentation of `RewardModel.score`."""
    try:
        array = np.asarray(value)
    except ValueError:
        return False
    fits = array.dtype.kind in "iu" and array.shape in ((), (num_rows,))
    return fits and bool(((array >= 0) & (array < len(GOALS))).all())


@checked
@given(frames(), indices)
def scores_are_right_or_refused(obs, index):
    pixels = obs.get("pixels") if isinstance(obs, dict) else obs
    is_array = isinstance(pixels, np.ndarray | torch.Tensor)
    is_frames = (
        is_array
        and str(pixels.dtype).removeprefix("torch.") == "uint8"
        and len(pixels.shape) == 4
        and pixels.shape[-1] == 3
        and 0 not in pixels.shape
    )
    scores, error = attempt(lambda: MODEL.score(obs, index))
    is_right = is_frames and is_index(index, len(pixels))
    assert refused(error) != is_right, (obs, index, error)
    if not is_right:
        return
    each = np.broadcast_to(np.asarray(index), (len(pixels),))
    for row in range(len(pixels)):
        one = torch.as_tensor(np.ascontiguousarray(pixels[row : row + 1]))
        seen = FakeEncoder().encode_obs({"pixels": one})[0].double().numpy()
        goal = GOALS[int(each[row])]
        texts = FakeEncoder().encode_text([*goal.prompts, *goal.negative_prompts])
        logits = texts.double().numpy() @ seen / 0.5
        expected = np.exp(logits[0]) / np.exp(logits).sum()
        assert abs(float(scores.score[row]) - expected) < 1e-5
    COUNTS["answered"] += 1


@checked
@given(st.one_of(words, st.lists(words, max_size=3)), st.lists(words, max_size=3))
def goals_are_sound_or_refused(prompts, negatives):
    goal, error = attempt(lambda: Goal(prompts, negatives))
    if refused(error):
        return
    said = [" ".join(text.casefold().split()) for text in (*goal.prompts, *goal.negative_prompts)]
    assert all(said)
    assert len(set(said)) == len(said)
    COUNTS["answered"] += 1


numbers = st.one_of(st.floats(), st.integers(-2, 2), st.sampled_from(["1", None, True]))


@checked
@given(numbers, numbers, numbers, numbers)
def settings_are_sound_or_refused(temperature, threshold, window, discount):
    head, head_error = attempt(lambda: ThresholdHead(SoftmaxHead(temperature), threshold))
    timing, error = attempt(lambda: RewardTiming(window=window, discount=discount))
    if refused(head_error or error):
        return
    assert 0 < head.head.temperature < np.inf
    assert np.isfinite(head.threshold)
    assert timing.window >= 1
    assert timing.discount is None or 0 < timing.discount <= 1
    COUNTS["answered"] += 1


if __name__ == "__main__":
    scores_are_right_or_refused()
    goals_are_sound_or_refused()
    settings_are_sound_or_refused()
    print(COUNTS["refused"], COUNTS["answered"])
