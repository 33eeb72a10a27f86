from collections.abc import Sequence
from functools import partial

import numpy as np
import pytest
import torch

from playroom_sound_accuracy import best_single, difference, goal_precision, interval, table
from playroom_sound_calibration import (
    choose_threshold,
    pooled_similarities,
    present_head,
    present_scores,
)
from playroom_sound_domain import (
    GOALS_OF_KIND,
    SENTENCES,
    sound_goals,
)
from playroom_sound_dropout import measure_dropout
from playroom_sound_streams import ContrastiveSteps
from vlmreward import RewardModel, SoftmaxHead, ThresholdHead
from vlmreward.backbone import MultimodalEncoder
from vlmreward.backbone.files import tokenizer_of
from vlmreward.backbone.model import BackboneConfig
from vlmreward_envs.playroom_sound import GoalKind


def test_precision_is_of_a_goals_own_sentence() -> None:
    is_true = torch.zeros(1, 4, len(SENTENCES), dtype=torch.bool)
    ringing = SENTENCES.index("a bell is ringing")
    is_true[0, :2, ringing] = True
    text = torch.eye(len(SENTENCES))
    embedded = torch.zeros(1, 4, len(SENTENCES))
    embedded[0, :, ringing] = torch.tensor([0.9, 0.2, 0.5, 0.1])
    found = goal_precision(is_true, embedded, text)
    assert found[ringing] == pytest.approx((1 + 2 / 3) / 2)
    assert np.isnan(np.delete(found, ringing)).all()
    assert np.isnan(goal_precision(is_true, embedded, text, [GoalKind.SEEN])).all()


def made_up_precision(values: dict[GoalKind, float]) -> np.ndarray:
    """The same for all goals of a kind; NaN for the others."""
    found = np.full(len(SENTENCES), np.nan)
    for kind, value in values.items():
        found[GOALS_OF_KIND[kind]] = value
    return found


def test_what_is_better_than_what_and_how_surely() -> None:
    told = [made_up_precision({GoalKind.TOLD: value}) for value in (0.8, 0.9)]
    mean = [made_up_precision({GoalKind.TOLD: value}) for value in (0.5, 0.5, 0.5)]
    found = difference(told, mean, [GoalKind.TOLD])
    assert found["value"] == pytest.approx(0.35)
    assert (found["low"], found["high"]) == (pytest.approx(0.3), pytest.approx(0.4))
    rows = table({"ttm": told, "mean": mean})
    assert set(rows["ttm"]) == {"told"}
    assert rows["ttm"]["told"]["value"] == pytest.approx(0.85)
    goals = np.array([[0.0, 1.0], [0.0, 1.0]])
    assert interval(goals)["low"] == 0.0
    assert interval(goals, goals)["value"] == 0.0
    assert interval(goals, goals)["high"] == 0.0  # goals are drawn together
    assert interval(goals, resample_goals=False) == {"value": 0.5, "low": 0.5, "high": 0.5}
    uneven = [told[0].copy() for _ in range(2)]
    uneven[1][GOALS_OF_KIND[GoalKind.TOLD][0]] = 0.0  # the second seed lacks one goal of many
    num_goals = len(GOALS_OF_KIND[GoalKind.TOLD])
    these = difference(uneven, mean, [GoalKind.TOLD], resample_goals=False)
    assert these["high"] == pytest.approx(0.3)
    assert these["low"] == pytest.approx(0.3 - 0.8 / num_goals)
    assert these["value"] == pytest.approx(0.3 - 0.4 / num_goals)


def test_the_best_single_stream_is_chosen_kind_by_kind() -> None:
    seen, heard = GoalKind.SEEN, GoalKind.HEARD
    streams = {
        "video": made_up_precision({seen: 0.9, heard: 0.2}),
        "audio": made_up_precision({seen: 0.1, heard: 0.7}),
    }
    best = best_single(streams, [seen, heard])
    assert np.array_equal(best, made_up_precision({seen: 0.9, heard: 0.7}), equal_nan=True)


class OneVectorASentence(MultimodalEncoder):
    """Sentences at right angles to each other and to the last direction."""

    known = tuple(
        dict.fromkeys(
            text
            for kind in (GoalKind.HEARD, GoalKind.SEEN)
            for goal in sound_goals(kind)
            for text in (goal.prompts[0], *goal.negative_prompts)
        )
    )

    def encode_text(self, texts: Sequence[str]) -> torch.Tensor:
        rows = torch.tensor([self.known.index(text) for text in texts])
        return torch.nn.functional.one_hot(rows, self.embed_dim).float()


def f1(labels: np.ndarray, paid: np.ndarray) -> float:
    return 2 * (labels & paid).sum() / (labels.sum() + paid.sum())


def test_a_threshold_has_the_largest_f1_and_keeps_its_distance() -> None:
    labels = np.array([False, False, False, True, True])
    assert choose_threshold(np.array([0.0, 0.1, 0.2, 0.8, 0.9]), labels) == pytest.approx(0.5)
    assert choose_threshold(np.array([0.0, 0.85, 0.2, 0.8, 0.9]), labels) == pytest.approx(0.5)
    mostly = np.array([True, True, True, True, False])  # paying all is best
    assert choose_threshold(np.array([0.3, 0.4, 0.6, 0.8, 0.9]), mostly) == pytest.approx(0.15)
    rng = np.random.default_rng(0)
    labels = rng.random(300) < 0.2
    scores = rng.random(300) + labels * 0.5
    best = f1(labels, scores > choose_threshold(scores, labels))
    assert best == max(f1(labels, scores >= of) for of in scores)


def test_a_cut_sensor_changes_no_reward_once_scales_are_calibrated() -> None:
    """Sound alone has half the cosines of both together, and knows as much."""
    backbone = ContrastiveSteps(BackboneConfig(), seed=0).backbone
    make = partial(
        OneVectorASentence,
        backbone,
        tokenizer_of(backbone.config),
        name="made up",
        stream="present",
    )
    rng = torch.Generator().manual_seed(0)
    truth = torch.zeros(100, len(SENTENCES), dtype=torch.bool)
    heard, seen = GOALS_OF_KIND[GoalKind.HEARD], GOALS_OF_KIND[GoalKind.SEEN]
    truth[:, heard] = torch.rand(100, len(heard), generator=rng) < 0.3
    truth[torch.arange(100), seen[torch.randint(len(seen), (100,), generator=rng)]] = True
    temperatures = {"fusion": 0.08, "video": 0.08, "audio": 0.04}
    encoder = make(temperatures=temperatures)
    texts = encoder.encode_text(
        [SENTENCES[goal] for goal in (*seen, *heard)]
        + [goal.negative_prompts[0] for goal in sound_goals(GoalKind.HEARD)]
    )[:, :128]
    said = torch.cat([truth[:, seen], truth[:, heard], ~truth[:, heard]], dim=1).float()
    said += 0.2 * torch.randn(said.shape, generator=rng)
    fusion = torch.nn.functional.normalize(said @ texts, dim=1)
    embedded = {"fusion": fusion, "video": fusion, "audio": 0.5 * fusion}

    goals = sound_goals(GoalKind.HEARD)
    both = present_scores(encoder, fusion, "fusion", goals)
    assert torch.allclose(present_scores(encoder, 0.5 * fusion, "audio", goals), both, atol=1e-5)
    head = present_head(encoder, embedded, truth)
    false = ~truth[:, seen].T.flatten()
    is_paid = head.reward(present_scores(encoder, fusion, "video", sound_goals(GoalKind.SEEN))) > 0
    assert is_paid[false].float().mean() < 0.02

    sure = ThresholdHead(SoftmaxHead(0.08), 0.95)
    encoder = make(
        temperatures=temperatures, calibrated_head=ThresholdHead(SoftmaxHead(0.04), 0.95)
    )
    cut = measure_dropout(encoder, embedded, truth, sure)
    assert cut["camera"]["calibrated"]["changed"] == 0.0
    assert cut["camera"]["not_calibrated"]["recall"] > 0.7
    assert cut["camera"]["not_calibrated"]["recall_cut"] < 0.1
    assert cut["microphone"]["not_calibrated"]["changed"] == 0.0
    labels = truth[:, heard].T.flatten()
    assert cut["camera"]["calibrated"]["recall"] == pytest.approx(
        float((both > 0.95)[labels].float().mean())
    )
    with pytest.raises(ValueError, match="no head"):
        measure_dropout(make(temperatures=temperatures), embedded, truth, sure)


def test_pooled_similarities_are_those_of_each_goal() -> None:
    backbone = ContrastiveSteps(BackboneConfig(), seed=0).backbone
    tokenizer = tokenizer_of(backbone.config)
    encoder = MultimodalEncoder(backbone, tokenizer, name="untrained", stream="fusion")
    goals = (*sound_goals(GoalKind.HEARD)[:2], *sound_goals(GoalKind.TOLD)[:1])
    vectors = torch.nn.functional.normalize(torch.randn(4, 128), dim=1)
    pooled = pooled_similarities(encoder, vectors, goals)
    scores = SoftmaxHead(0.1).score(pooled)
    reward_model = RewardModel(encoder, goals, SoftmaxHead(0.1))
    expected = [reward_model.score_embeddings(vectors, goal).score for goal in range(3)]
    assert torch.allclose(scores, torch.cat(expected), atol=1e-6)
