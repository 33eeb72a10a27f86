import json

import numpy as np
import pytest
import torch

from vlmreward import (
    CosineHead,
    FakeEncoder,
    FrameError,
    Goal,
    GoalBaselineHead,
    MissingModalityError,
    RewardModel,
    RewardTiming,
    SoftmaxHead,
    ThresholdHead,
)
from vlmreward.heads import Similarities

HEAD = ThresholdHead(SoftmaxHead(temperature=0.5), threshold=0.6)
RED, GREEN, BLUE = "a red room", "a green room", "a blue room"


class CountingEncoder(FakeEncoder):
    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.obs_calls = 0
        self.texts = []

    def encode_obs(self, obs):
        self.obs_calls += 1
        return super().encode_obs(obs)

    def encode_text(self, texts):
        self.texts += texts
        return super().encode_text(texts)


def frame(*rgb):
    return np.broadcast_to(np.array(rgb, np.uint8), (8, 8, 3)).copy()


FRAMES = np.stack([frame(255, 0, 0), frame(0, 255, 0), frame(0, 0, 255), frame(200, 100, 0)])


def by_hand(encoder, goal, one_frame):
    """Equations 1 and 2 for one frame, in NumPy."""
    f = encoder.encode_obs({"pixels": one_frame[None]})[0].double().numpy()
    g = encoder.encode_text(list(goal.prompts)).double().numpy().mean(0)
    texts = [g / np.linalg.norm(g)]
    if goal.negative_prompts:
        texts += list(encoder.encode_text(list(goal.negative_prompts)).double().numpy())
    weights = np.exp(np.array([f @ text for text in texts]) / HEAD.head.temperature)
    return weights[0] / weights.sum()


def test_each_row_is_scored_for_its_own_goal_in_one_pass():
    goals = [
        Goal(RED, [GREEN, BLUE]),
        Goal([GREEN, "a yellow room"], [RED]),
        Goal(BLUE, [RED, GREEN, "a black room", "a white room"]),
    ]
    encoder = CountingEncoder()
    reward_model = RewardModel(encoder, goals, HEAD)
    index = np.array([2, 1, 0, 0])
    scores = reward_model.score({"pixels": FRAMES}, index)
    assert encoder.obs_calls == 1
    expected = [by_hand(encoder, goals[i], x) for i, x in zip(index, FRAMES, strict=True)]
    np.testing.assert_allclose(scores.score, expected, atol=1e-6)
    assert scores.reward.tolist() == [float(p > HEAD.threshold) for p in expected]
    torch.testing.assert_close(scores.embedding, encoder.encode_obs({"pixels": FRAMES}))


def test_several_prompts_are_the_unit_mean():
    encoder = FakeEncoder()
    reward_model = RewardModel(encoder, Goal([RED, GREEN], [BLUE]), HEAD)
    # The mean of two orthogonal unit vectors has length 1/sqrt(2); rescaled, its cosine to either
    # is 1/sqrt(2), not 1/2.
    cosine = 1 / np.sqrt(2)
    expected = np.exp(cosine / 0.5) / (np.exp(cosine / 0.5) + 1)
    got = reward_model.score(FRAMES[:1]).score
    assert float(got[0]) == pytest.approx(expected, abs=1e-6)


def test_goals_with_fewer_negatives_are_not_padded_into_the_sum():
    alone = RewardModel(FakeEncoder(), Goal(RED, [GREEN]), HEAD)
    beside = RewardModel(FakeEncoder(), [Goal(BLUE, [RED, GREEN, "x"]), Goal(RED, [GREEN])], HEAD)
    torch.testing.assert_close(alone.score(FRAMES).score, beside.score(FRAMES, 1).score)


def test_every_text_is_embedded_once_at_construction():
    encoder = CountingEncoder()
    texts = [RED, GREEN, BLUE]
    goals = [Goal(text, [other for other in texts if other != text]) for text in texts]
    reward_model = RewardModel(encoder, goals, HEAD)
    assert sorted(encoder.texts) == sorted(texts)
    reward_model(FRAMES)
    assert len(encoder.texts) == len(texts)


def test_rewards_do_not_depend_on_how_the_batch_was_split():
    goals = [Goal(RED, [GREEN]), Goal(GREEN, [RED])]
    reward_model = RewardModel(FakeEncoder(), goals, HEAD)
    frames = np.random.default_rng(0).integers(0, 256, (7, 8, 8, 3), dtype=np.uint8)
    index = np.array([0, 1, 1, 0, 1, 0, 0])
    whole = reward_model.score(frames, index)
    parts = [reward_model.score(frames[i : i + 3], index[i : i + 3]) for i in (0, 3, 6)]
    assert torch.equal(whole.score, torch.cat([part.score for part in parts]))


def test_calling_is_scoring():
    reward_model = RewardModel(FakeEncoder(), Goal(RED, [GREEN]), HEAD)
    assert torch.equal(reward_model(FRAMES), reward_model.score(FRAMES).reward)
    embedding = reward_model.score(FRAMES).embedding
    assert torch.equal(
        reward_model.score_embeddings(embedding).score,
        reward_model.score(FRAMES).score,
    )


def test_the_calibrated_head_of_an_encoder_is_the_default():
    assert RewardModel(FakeEncoder(calibrated_head=HEAD), Goal(RED, [GREEN])).head == HEAD
    with pytest.raises(ValueError, match=r"no calibrated head: pass one, such as .* 0\.01;"):
        RewardModel(FakeEncoder(logit_scale=100.0), Goal(RED, [GREEN]))


def test_a_goal_without_negatives_is_refused():
    with pytest.raises(ValueError, match="has no negatives"):
        RewardModel(FakeEncoder(), [Goal(RED, [GREEN]), Goal(BLUE)], HEAD)
    with pytest.raises(ValueError, match="at least one goal"):
        RewardModel(FakeEncoder(), [], HEAD)


@pytest.mark.parametrize("index", [-1, 2, [0, 1, 2, 0]])
def test_goal_indices_out_of_range_are_refused(index):
    reward_model = RewardModel(FakeEncoder(), [Goal(RED, [GREEN]), Goal(GREEN, [RED])], HEAD)
    with pytest.raises(IndexError, match="goal_index from 0 to 1"):
        reward_model(FRAMES, index)


def test_goal_indices_of_another_length_or_type_are_refused():
    reward_model = RewardModel(FakeEncoder(), Goal(RED, [GREEN]), HEAD)
    with pytest.raises(ValueError, match=r"each of the 4 observations, got shape \[3\]"):
        reward_model(FRAMES, [0, 0, 0])
    with pytest.raises(ValueError, match=r"got shape \[1\]"):
        reward_model(FRAMES, [0])
    with pytest.raises(TypeError, match=r"whole numbers as goal_index, got dtype torch\.float"):
        reward_model(FRAMES, np.zeros(4))


def test_bad_observations_are_refused():
    reward_model = RewardModel(FakeEncoder(), Goal(RED, [GREEN]), HEAD)
    with pytest.raises(FrameError, match="add the batch axis"):
        reward_model(FRAMES[0])
    with pytest.raises(FrameError, match="size zero"):
        reward_model(FRAMES[:0])
    with pytest.raises(MissingModalityError, match="AddRenderObservation"):
        reward_model({"state": np.zeros((4, 2))})


def test_the_configuration_is_json_and_names_what_was_paid_for():
    reward_model = RewardModel(FakeEncoder(), Goal(RED, [GREEN]), HEAD)
    assert json.loads(json.dumps(reward_model.config())) == {
        "encoder": "fake",
        "head": {
            "kind": "threshold",
            "head": {"kind": "softmax", "temperature": 0.5},
            "threshold": 0.6,
        },
        "timing": RewardTiming().config(),
        "goals": [{"prompts": [RED], "negative_prompts": [GREEN]}],
    }


def test_an_image_goal_is_the_direction_of_its_image():
    encoder = FakeEncoder()
    reward_model = RewardModel(encoder, Goal(images=FRAMES[:1]), CosineHead())
    embedding = encoder.encode_obs({"pixels": FRAMES})
    expected = embedding @ embedding[0]
    torch.testing.assert_close(reward_model(FRAMES), expected)


def test_a_mixed_goal_lies_between_its_texts_and_its_images():
    encoder = FakeEncoder()
    goal = Goal(GREEN, images=FRAMES[:1], image_weight=0.25)
    text, image = encoder.encode_text([GREEN])[0], encoder.encode_obs({"pixels": FRAMES[:1]})[0]
    mixed = torch.nn.functional.normalize(0.75 * text + 0.25 * image, dim=0)
    got = RewardModel(encoder, goal, CosineHead()).goal_embeddings([0])
    torch.testing.assert_close(got, mixed[None])


def test_a_baseline_reaches_the_head_and_is_required_by_it():
    encoder, head = FakeEncoder(), GoalBaselineHead(1.0)
    goal = Goal(RED, baseline_prompts=[GREEN])
    got = RewardModel(encoder, goal, head)(FRAMES)
    cosines = encoder.encode_obs({"pixels": FRAMES}) @ encoder.encode_text([RED, GREEN]).T
    between = encoder.encode_text([RED])[0] @ encoder.encode_text([GREEN])[0]
    seen = Similarities.of(
        cosines[:, 0], baseline=cosines[:, 1], goal_to_baseline=between.expand(len(FRAMES))
    )
    torch.testing.assert_close(got, head.score(seen))
    with pytest.raises(ValueError, match="has no baseline"):
        RewardModel(encoder, Goal(RED), head)


def test_goals_with_and_without_a_baseline_can_share_a_model():
    goals = [Goal(RED, [GREEN], baseline_prompts=[BLUE]), Goal(GREEN, [RED])]
    reward_model = RewardModel(FakeEncoder(), goals, HEAD)
    alone = RewardModel(FakeEncoder(), Goal(GREEN, [RED]), HEAD)
    assert torch.equal(reward_model.score(FRAMES, 1).score, alone.score(FRAMES).score)
