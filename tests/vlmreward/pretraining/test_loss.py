import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from vlmreward.pretraining import multi_positive_contrastive_loss


def unit(rows: list[list[float]]) -> torch.Tensor:
    return torch.nn.functional.normalize(torch.tensor(rows), dim=1)


def by_hand(x: np.ndarray, y: np.ndarray, is_true: np.ndarray, scale: float) -> float:
    """The definition, one row at a time, in double precision."""

    def side(logits: np.ndarray, positive: np.ndarray) -> float:
        rows = []
        for row, mask in zip(logits, positive, strict=True):
            if mask.any():
                false = sum(math.exp(value) for value in row[~mask])
                terms = [-math.log(math.exp(v) / (math.exp(v) + false)) for v in row[mask]]
                rows.append(np.mean(terms))
        return float(np.mean(rows))

    logits = scale * x @ y.T
    return (side(logits, is_true) + side(logits.T, is_true.T)) / 2


@given(st.integers(0, 10_000), st.integers(1, 6), st.integers(1, 9), st.floats(0.5, 20))
def test_equals_the_definition(seed: int, frames: int, texts: int, scale: float) -> None:
    generator = torch.Generator().manual_seed(seed)
    x = torch.nn.functional.normalize(torch.randn(frames, 4, generator=generator), dim=1)
    y = torch.nn.functional.normalize(torch.randn(texts, 4, generator=generator), dim=1)
    is_true = torch.rand(frames, texts, generator=generator) < 0.4
    is_true[:, 0] = True
    loss = multi_positive_contrastive_loss(x, y, is_true, torch.tensor(scale))
    expected = by_hand(x.double().numpy(), y.double().numpy(), is_true.numpy(), scale)
    assert loss.item() == pytest.approx(expected, abs=1e-4)


def test_equal_captions_are_positives_of_both_frames() -> None:
    """Two frames that share their only caption: nothing pushes either away from it."""
    x, y = unit([[1.0, 0.2], [1.0, -0.2]]).requires_grad_(), unit([[1.0, 0.0]])
    shared = torch.ones(2, 1, dtype=torch.bool)
    loss = multi_positive_contrastive_loss(x, y, shared, torch.tensor(10.0))
    (gradient,) = torch.autograd.grad(loss, x)
    assert loss.item() == 0
    assert torch.equal(gradient, torch.zeros(2, 2))


def test_with_one_positive_each_it_is_the_loss_of_clip() -> None:
    generator = torch.Generator().manual_seed(0)
    x, y = (torch.nn.functional.normalize(torch.randn(5, 3, generator=generator)) for _ in "xy")
    labels = torch.arange(5)
    logits = 7.0 * x @ y.T
    clip = [torch.nn.functional.cross_entropy(side, labels) for side in (logits, logits.T)]
    loss = multi_positive_contrastive_loss(x, y, torch.eye(5).bool(), torch.tensor(7.0))
    assert loss.item() == pytest.approx(sum(clip).item() / 2, rel=1e-5)


def test_a_near_miss_lowers_its_frame_only() -> None:
    x = unit([[1.0, 0.0], [0.0, 1.0]])
    y = unit([[1.0, 0.0], [0.0, 1.0], [0.9, 0.1]])
    is_true = torch.tensor([[True, False, False], [False, True, False]])
    y.requires_grad_()
    with_miss = multi_positive_contrastive_loss(x, y, is_true, torch.tensor(5.0))
    without = multi_positive_contrastive_loss(x, y[:2], is_true[:, :2], torch.tensor(5.0))
    assert with_miss > without
    (gradient,) = torch.autograd.grad(with_miss, y)
    assert (gradient[2] @ x[0]) > 0  # descending pushes the miss away from the frame it resembles


def test_a_frame_without_truth_is_refused() -> None:
    eye = torch.eye(2)
    is_true = torch.tensor([[True, False], [False, False]])
    with pytest.raises(ValueError, match="frame 1"):
        multi_positive_contrastive_loss(eye, eye, is_true, torch.tensor(1.0))
