"""The pictures of the pages of heads: what they are drawn from, and that each is drawn."""

import io
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import head_data
import head_panels
import negatives_pictures
import reward_heads
from vlmreward import SoftmaxHead, heads
from vlmreward.heads import Similarities

DOCS = Path(__file__).resolve().parents[2] / "docs"
LARGEST = 120_000  # bytes


@pytest.fixture(scope="module")
def drawn(tmp_path_factory):
    folder = tmp_path_factory.mktemp("images")
    reward_heads.main(num_frames=60, images=folder)
    return folder


def test_the_episode_lifts_and_puts_down():
    episode = head_data.walk()
    assert episode.frames.shape == (head_data.NUM_STEPS + 1, 96, 96, 3)
    assert np.flatnonzero(np.diff(episode.labels.astype(int))).tolist() == [7, 17]


def test_every_picture_is_drawn_and_small(drawn):
    for path in drawn.iterdir():
        assert min(Image.open(io.BytesIO(path.read_bytes())).size) > 500
        assert path.stat().st_size < LARGEST


def test_the_pages_show_what_is_drawn(drawn):
    shipped = {path.name: path for path in (DOCS / "images").glob("heads*.png")}
    assert set(shipped) == {path.name for path in drawn.iterdir()}
    assert set(reward_heads.PAGES) == {page.stem for page in (DOCS / "heads").glob("*.md")}
    assert max(path.stat().st_size for path in shipped.values()) < LARGEST


def test_the_overview_has_one_head_of_each_kind():
    kinds = [type(head).__name__ for head in reward_heads.choices(scale=100.0).values()]
    assert sorted(kinds) == sorted({n for n in heads.__all__ if n.endswith("Head")} - {"Head"})


def test_the_same_seeds_draw_the_same_bytes(drawn):
    bench = head_data.Bench(head_data.playroom_encoder(), num_frames=60)
    again = head_panels.few_colours(reward_heads.PAGES["softmax"](bench))
    assert again == (drawn / "heads_softmax.png").read_bytes()


@pytest.mark.parametrize("sentence", [head_data.HOLDING, head_data.BESIDE])
def test_a_goal_has_all_others_of_its_family_as_negatives_and_nothing_as_the_last(sentence):
    goal = head_data.goal_of(sentence)
    assert len(set(goal.negative_prompts)) == 36
    assert goal.negative_prompts[-1].endswith("nothing")
    assert goal.baseline_prompts == goal.negative_prompts[-1:]


class TestDrawnNegatives:
    cosines = Similarities.of(
        torch.tensor([0.30, 0.22]),
        negatives=torch.tensor([[0.10, 0.00, 0.10, 0.20], [0.20, 0.10, 0.15, 0.25]]),
    )

    def test_all_of_them_are_the_softmax(self):
        every = (SoftmaxHead(0.01).score(self.cosines) > 0.5).tolist()
        assert every == [True, False]
        for with_nothing in (False, True):
            paid = negatives_pictures.paid_with(self.cosines, 4, 0, with_nothing)
            assert paid.tolist() == every

    def test_nothing_is_one_of_them_if_asked_for(self):
        for seed in range(20):
            paid = negatives_pictures.paid_with(self.cosines, 1, seed, with_nothing=True)
            assert paid.tolist() == [True, False]
        drawn = [
            negatives_pictures.paid_with(self.cosines, 1, seed, False)[1] for seed in range(20)
        ]
        assert {bool(paid) for paid in drawn} == {False, True}


def test_blurring_takes_the_mean_of_nine_pixels():
    frames = np.zeros((1, 5, 5, 3), np.uint8)
    frames[0, 2, 2] = 90
    blurred = negatives_pictures.blurred(frames)
    expected = np.zeros((5, 5))
    expected[1:4, 1:4] = 10
    assert np.array_equal(blurred[0, ..., 0], expected)
    assert np.array_equal(negatives_pictures.blurred(np.full_like(frames, 7)), frames * 0 + 7)


def test_few_colours_keep_a_picture_that_has_few():
    rng = np.random.default_rng(0)
    palette = rng.integers(0, 256, (40, 3), dtype=np.uint8)
    pixels = palette[rng.integers(0, 40, (64, 64))]
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "PNG")
    kept = Image.open(io.BytesIO(head_panels.few_colours(stream.getvalue()))).convert("RGB")
    assert np.abs(np.asarray(kept).astype(int) - pixels).max() <= 4
