import numpy as np
import pytest
import torch

from vlmreward.pretraining import CaptionedFrames
from vlmreward.pretraining.captions import draw_texts


def frames(count: int) -> torch.Tensor:
    return torch.zeros(count, 8, 8, 3, dtype=torch.uint8)


BATCH = CaptionedFrames(
    frames(3),
    captions=[["a", "b"], ["b"], ["c"]],
    near_misses=[[["x", "y"], []], [["x"]], [["a"]]],
)


def test_all_true_captions_of_a_frame_are_positives_however_they_got_there() -> None:
    texts = draw_texts(BATCH, 10, 10, np.random.default_rng(0))
    assert sorted(texts.texts) == ["a", "b", "c", "x", "y"]
    truth = {
        (frame, text)
        for frame in range(3)
        for column, text in enumerate(texts.texts)
        if texts.is_true[frame, column]
    }
    assert truth == {(0, "a"), (0, "b"), (1, "b"), (2, "c")}


def test_every_frame_keeps_a_positive_and_counts_are_respected() -> None:
    drawn = set()
    for seed in range(20):
        texts = draw_texts(BATCH, 1, 0, np.random.default_rng(seed))
        assert texts.is_true.any(dim=1).all()
        assert not {"x", "y"} & set(texts.texts)
        assert len(texts.texts) == len(set(texts.texts)) <= 3
        drawn.add(texts.texts)
    assert len(drawn) == 2  # frame 0 draws "a" or "b"


def test_same_generator_state_same_texts() -> None:
    first = draw_texts(BATCH, 1, 1, np.random.default_rng(5))
    second = draw_texts(BATCH, 1, 1, np.random.default_rng(5))
    assert first.texts == second.texts


@pytest.mark.parametrize(
    ("captions", "near_misses", "message"),
    [
        ([["a"]], [[[]]], "got 2 frames, 1 lists of captions"),
        ([["a"], []], [[[]], []], "frame 1 has no caption"),
        ([["a"], ["b", "c"]], [[[]], [[]]], "frame 1 has 2 captions and 1 lists of near"),
    ],
)
def test_what_does_not_fit_is_named(
    captions: list[list[str]], near_misses: list[list[list[str]]], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        CaptionedFrames(frames(2), captions, near_misses)
