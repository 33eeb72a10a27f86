"""What every head promises, and the mathematics of each, worked out another way."""

import dataclasses

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn.functional import normalize

from vlmreward.heads import (
    ContrastHead,
    CosineHead,
    GoalBaselineHead,
    Head,
    NormalizedHead,
    SigmoidHead,
    Similarities,
    SoftmaxHead,
    ThresholdHead,
    head_config,
    head_from_config,
)

HEADS = [
    ContrastHead(),
    CosineHead(),
    GoalBaselineHead(0.5),
    NormalizedHead(CosineHead(), 0.25, 0.05),
    NormalizedHead(GoalBaselineHead(1.0), -0.5, 2.0),
    SigmoidHead(10.0, -3.0),
    SoftmaxHead(0.05),
    ThresholdHead(SoftmaxHead(0.05), 0.5),
    ThresholdHead(GoalBaselineHead(1.0), 0.2),
]


def unit(seed, *shape):
    generator = torch.Generator().manual_seed(seed)
    return normalize(torch.randn(*shape, generator=generator, dtype=torch.float64), dim=-1)


def similarities(obs, goal, negatives, baseline):
    """Of observations [B, D] with one goal [D], its negatives [M, D] and its baseline [D]."""
    return Similarities.of(
        (obs @ goal).float(),
        negatives=(obs @ negatives.T).float(),
        baseline=(obs @ baseline).float(),
        goal_to_baseline=(goal @ baseline).float().expand(len(obs)),
    )


@pytest.fixture
def batch():
    return similarities(unit(0, 9, 6), unit(1, 6), unit(2, 4, 6), unit(3, 6))


@pytest.mark.parametrize("head", HEADS, ids=repr)
class TestContract:
    def test_it_is_a_head(self, head):
        assert isinstance(head, Head)

    def test_one_finite_score_and_reward_a_row(self, head, batch):
        score = head.score(batch)
        reward = head.reward(score)
        assert score.shape == reward.shape == (9,)
        assert score.dtype == reward.dtype == torch.float32
        assert bool(score.isfinite().all())

    def test_rows_do_not_see_each_other(self, head, batch):
        for row in range(9):
            alone = Similarities(*(value[row : row + 1] for value in vars(batch).values()))
            assert torch.equal(head.score(alone), head.score(batch)[row : row + 1])

    def test_settings_make_the_round_trip(self, head):
        assert head_from_config(head_config(head)) == head

    def test_padding_takes_no_part(self, head, batch):
        padded = Similarities(
            batch.goal,
            torch.cat([batch.negatives, torch.full((9, 2), 0.99)], dim=1),
            torch.cat([batch.is_negative, torch.zeros(9, 2, dtype=torch.bool)], dim=1),
            batch.baseline,
            batch.goal_to_baseline,
        )
        torch.testing.assert_close(head.score(padded), head.score(batch))


# Not goal-baseline heads: they pay most at the goal itself, and less beyond it on the line.
@pytest.mark.parametrize("head", [head for head in HEADS if not head.needs_baseline], ids=repr)
def test_more_of_the_goal_never_scores_less(head, batch):
    nearer = dataclasses.replace(batch, goal=batch.goal + 0.05)
    assert bool((head.score(nearer) >= head.score(batch)).all())


@given(seed=st.integers(0, 10_000), alpha=st.floats(0, 1), dim=st.integers(2, 40))
def test_goal_baseline_equals_the_explicit_projection_matrix(seed, alpha, dim):
    obs, goal, baseline = (unit(3 * seed + i, dim).numpy() for i in range(3))
    if np.linalg.norm(goal - baseline) < 1e-3:
        return
    direction = (goal - baseline) / np.linalg.norm(goal - baseline)
    matrix = np.outer(direction, direction)
    projected = baseline + matrix @ (obs - baseline)
    mixed = alpha * projected + (1 - alpha) * obs
    expected = 1 - 0.5 * np.sum((mixed - goal) ** 2)
    tensors = (torch.from_numpy(x) for x in (obs[None], goal, goal[None], baseline))
    got = GoalBaselineHead(alpha).score(similarities(*tensors))
    assert float(got[0]) == pytest.approx(expected, abs=1e-5)


def test_goal_baseline_at_alpha_0_is_the_cosine(batch):
    torch.testing.assert_close(GoalBaselineHead(0.0).score(batch), CosineHead().score(batch))


def test_goal_baseline_pays_1_at_the_goal_and_less_at_the_baseline():
    goal, baseline = unit(0, 8), unit(1, 8)
    at = similarities(torch.stack([goal, baseline]), goal, goal[None], baseline)
    for alpha in (0.0, 0.3, 1.0):
        at_goal, at_baseline = GoalBaselineHead(alpha).score(at).tolist()
        assert at_goal == pytest.approx(1.0, abs=1e-6)
        assert at_baseline == pytest.approx(float(goal @ baseline), abs=1e-6)


@pytest.mark.parametrize("alpha", [-0.1, 1.1, float("nan")])
def test_bad_alphas_are_refused(alpha):
    with pytest.raises(ValueError, match="alpha from 0"):
        GoalBaselineHead(alpha)


def test_contrast_with_one_negative_is_a_difference():
    seen = Similarities.of(torch.tensor([0.3]), negatives=torch.tensor([[0.25]]))
    assert float(ContrastHead().score(seen)[0]) == pytest.approx(0.05)


@pytest.mark.parametrize(("scale", "bias"), [(0.0, 1.0), (-1.0, 0.0), (1.0, float("inf"))])
def test_bad_sigmoids_are_refused(scale, bias):
    with pytest.raises(ValueError, match="positive scale and a finite bias"):
        SigmoidHead(scale, bias)


@given(
    rewards=st.lists(st.floats(-1, 1, width=32), min_size=1, max_size=8),
    mean=st.floats(-1, 1),
    std=st.floats(0.01, 10),
)
def test_a_normalized_reward_is_affine_and_its_score_the_other_heads(rewards, mean, std):
    score = torch.tensor(rewards)
    head = NormalizedHead(CosineHead(), mean, std)
    expected = (np.float64(rewards) - mean) / std
    np.testing.assert_allclose(head.reward(score).numpy(), expected, rtol=1e-4, atol=1e-4)
    assert torch.equal(head.score(Similarities.of(score)), score)
    # So a threshold around it means what it meant without it.
    outer = ThresholdHead(head, 0.25)
    assert torch.equal(outer.reward(score), ThresholdHead(CosineHead(), 0.25).reward(score))


@pytest.mark.parametrize(
    ("mean", "std"), [(0.0, 0.0), (0.0, -1.0), (float("nan"), 1.0), (0.0, float("inf"))]
)
def test_bad_scales_are_refused(mean, std):
    with pytest.raises(ValueError, match="finite mean and a positive std"):
        NormalizedHead(CosineHead(), mean, std)


def test_a_binary_reward_is_not_normalized():
    with pytest.raises(ValueError, match="pays 0 or 1, which is a scale already"):
        NormalizedHead(ThresholdHead(CosineHead(), 0.5), 0.5, 0.5)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"kind": "median"}, "expected a head of kind"),
        ({"kind": "softmax"}, "expected the settings"),
        ({"kind": "softmax", "temperature": 1.0, "threshold": 0.5}, "got .*threshold"),
        ({"kind": "softmax", "temperature": -1.0}, "positive temperature"),
    ],
)
def test_bad_configurations_are_refused(config, message):
    with pytest.raises(ValueError, match=message):
        head_from_config(config)


def test_a_head_from_elsewhere_has_no_configuration():
    class Other(CosineHead):
        pass

    with pytest.raises(TypeError, match="got Other"):
        head_config(Other())
