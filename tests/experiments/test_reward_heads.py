import io

import numpy as np
from PIL import Image

import reward_heads
from vlmreward import load_encoder


def test_the_episode_lifts_and_puts_down():
    frames, reached = reward_heads.walk()
    assert frames.shape == (reward_heads.NUM_STEPS + 1, 96, 96, 3)
    assert np.flatnonzero(np.diff(reached.astype(int))).tolist() == [7, 17]


def test_the_picture_is_drawn(tmp_path, monkeypatch):
    monkeypatch.setattr(reward_heads, "PICTURE", tmp_path / "heads.png")
    reward_heads.main()
    picture = Image.open(io.BytesIO((tmp_path / "heads.png").read_bytes()))
    assert min(picture.size) > 800


def test_heads_of_every_kind_are_chosen():
    encoder = load_encoder("playroom", device="cpu")
    frames, _ = reward_heads.walk()
    goal = reward_heads.Goal(reward_heads.GOAL, ["the person is holding nothing"])
    kinds = {type(head).__name__ for _, head, _ in reward_heads.choices(encoder, goal, frames)}
    assert len(kinds) == 6
