import json

import numpy as np
import pytest

from vlmreward import ContrastHead, Goal, RewardTiming, SoftmaxHead, ThresholdHead
from vlmreward.reward_file import EncoderSource, load_reward, save_reward

GOALS = (
    Goal("the person is holding the red ball", ["the person is holding nothing"]),
    Goal(
        ["the person is next to the red ball", "the red ball is next to the person"],
        ["the person is next to nothing"],
        baseline_prompts=["the person is in the top left of the room"],
    ),
)
HEAD = ThresholdHead(SoftmaxHead(0.02), 0.7)


def test_a_reward_comes_back_the_same(tmp_path):
    timing = RewardTiming(score_every=2)
    save_reward(tmp_path / "a" / "reward.json", EncoderSource(), GOALS, HEAD, timing=timing)
    model = load_reward(tmp_path / "a" / "reward.json", device="cpu")
    assert (model.goals, model.head, model.timing) == (GOALS, HEAD, timing)
    assert model.encoder.name == "playroom"
    assert [file.name for file in (tmp_path / "a").iterdir()] == ["reward.json"]


def test_goals_with_images_and_foreign_heads_are_refused(tmp_path):
    goal = Goal("a room", images=np.zeros((1, 4, 4, 3), np.uint8))
    with pytest.raises(ValueError, match="has images"):
        save_reward(tmp_path / "reward.json", EncoderSource(), goal, HEAD)

    class Other(ContrastHead):
        pass

    with pytest.raises(TypeError, match="got Other"):
        save_reward(tmp_path / "reward.json", EncoderSource(), GOALS[0], Other())
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"format": 99}, "has format 99"),
        ({"head": {"kind": "median"}}, "expected a head of kind"),
        ({"goals": [{"prompts": [""]}]}, "empty or blank"),
        ({"goals": [{"words": ["a"]}]}, "no reward written by save_reward"),
        ({"encoder": {"name": "playrom"}}, "Did you mean 'playroom'"),
    ],
)
def test_damaged_files_are_refused(tmp_path, change, message):
    path = tmp_path / "reward.json"
    save_reward(path, EncoderSource(), GOALS, HEAD)
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    with pytest.raises(ValueError, match=message):
        load_reward(path)


def test_files_that_are_missing_or_no_json_are_refused(tmp_path):
    with pytest.raises(ValueError, match="found none at"):
        load_reward(tmp_path / "reward.json")
    (tmp_path / "reward.json").write_text("{")
    with pytest.raises(ValueError, match="JSONDecodeError"):
        load_reward(tmp_path / "reward.json")
