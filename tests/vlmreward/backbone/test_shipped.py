"""What the backbone of the package can tell, in rooms that it was not trained in."""

from pathlib import Path

import numpy as np
import pytest
import torch

import vlmreward
from vlmreward import Goal, RewardModel
from vlmreward.backbone import load_backbone, shipped_backbones
from vlmreward.reward_stream import RewardStream
from vlmreward_envs.playroom_sound import PlayroomSoundRooms

NUM_ROOMS, NUM_STEPS = 24, 40
GOALS = {
    "a bell is ringing": "no bell is ringing",
    "there are footsteps": "there are no footsteps",
    "something is being picked up": "nothing is being picked up",
}


def test_one_is_shipped_and_is_small() -> None:
    assert shipped_backbones() == ["playroom_sound"]
    folder = Path(vlmreward.__file__).parent / "assets" / "backbones"
    assert sum(path.stat().st_size for path in folder.iterdir()) < 10_000_000


@pytest.mark.parametrize("stream", ["audio", "video", "fusion", "episode", "present"])
def test_every_stream_has_a_head(stream) -> None:
    encoder = load_backbone("playroom_sound", stream=stream, device="cpu")
    assert encoder.calibrated_head is not None
    assert "command" in encoder.training
    assert encoder.training["streams"]["started_from"] == "playroom"


@pytest.mark.parametrize("stream", ["audio", "present"])
@pytest.mark.parametrize("sentence", GOALS)
def test_it_hears(sentence, stream) -> None:
    encoder = load_backbone("playroom_sound", stream=stream, device="cpu")
    goal = Goal(sentence, negative_prompts=[GOALS[sentence]])
    paying = RewardStream(RewardModel(encoder, goal), NUM_ROOMS)
    rooms = PlayroomSoundRooms(NUM_ROOMS, sentence, max_episode_steps=NUM_STEPS + 1)
    rooms.reset(torch.arange(NUM_ROOMS))
    generator = torch.Generator().manual_seed(0)

    def sensed():
        camera_works = stream == "present" and len(rewards) % 2
        frames = {"pixels": rooms.render().numpy()} if camera_works else {}
        return {"audio": rooms.listen().numpy(), **frames}

    rewards, truth = [], []
    paying.start(range(NUM_ROOMS), sensed())
    for _ in range(NUM_STEPS):
        rooms.step(torch.randint(0, 7, (NUM_ROOMS,), generator=generator))
        truth.append(rooms.success.numpy())
        rewards.append(paying.step(sensed()).reward)
    paid, truth = np.array(rewards) > 0, np.array(truth)
    assert truth.sum() > 20
    assert paid[truth].mean() > 0.8
    assert paid[~truth].mean() < 0.02
