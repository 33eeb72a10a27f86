import json
import math

import numpy as np
import pytest

from vlmreward import (
    CosineHead,
    FakeEncoder,
    FrameError,
    Goal,
    MissingModalityError,
    SoftmaxHead,
    ThresholdHead,
)
from vlmreward.prompts import APP_TEMPLATES, fill_templates, hint, wording_sensitivity


def test_templates_make_the_prompts_of_one_goal():
    prompts = fill_templates(["a photo of {}", "{} in a room"], "a red ball")
    assert Goal(prompts).prompts == ("a photo of a red ball", "a red ball in a room")
    assert fill_templates("{}", "a {0} ball") == ("a {0} ball",)


def test_the_papers_forms_for_apps():
    filled = {form: fill_templates(text, "Maps")[0] for form, text in APP_TEMPLATES.items()}
    assert filled == {
        "A": "Open Maps",
        "B": "Open the Maps app",
        "C": "Screenshot of Maps",
        "D": "Screenshot of Maps on Android",
    }
    # The paper finds that states beat verbs.
    assert [hint(filled[form]) is None for form in "ABCD"] == [False, False, True, True]


@pytest.mark.parametrize(
    ("templates", "subject", "message"),
    [
        ([], "a ball", "at least one template"),
        (["a photo"], "a ball", r"exactly one \{\} in a template, got 0 in 'a photo'"),
        (["{} and {}"], "a ball", "got 2"),
        (["{0}"], "a ball", "got 0"),
        (["a {}"], " ", "subject in words"),
        (["a {}", "a {}"], "ball", "templates that differ"),
    ],
)
def test_bad_templates_are_refused(templates, subject, message):
    with pytest.raises(ValueError, match=message):
        fill_templates(templates, subject)


@pytest.mark.parametrize(
    "prompt",
    [
        "go to the blue key",
        "Pick up the mug",
        "put a table lamp next to a plane",
        "please open the drawer",
        "to lift a blue mug",
        "go to the key that is blue",
        "Move, slowly, to the door which was open",
        "open drawer",  # a command as likely as a name
        "reach",
    ],
)
def test_deeds_are_pointed_out(prompt):
    assert "names a deed" in hint(prompt)


@pytest.mark.parametrize(
    "prompt",
    [
        "the person is next to the blue key",
        "an open drawer",
        "open drawer is visible",
        "open drawers are on the left",
        "close up of a key",
        "close-up of a key",
        "push-button in the middle",
        "a pole vertically upright on top of the cart",
        "screenshot of Maps",
        "good picture",  # begins with the letters of "go"
        "the robot picks up the mug",  # a deed, but not found
        "",
        "please",
    ],
)
def test_states_are_left_alone(prompt):
    assert hint(prompt) is None


@pytest.fixture
def frames():
    """From black to green, a quadrant at a time."""
    frames = np.zeros((5, 8, 8, 3), np.uint8)
    quadrants = [np.s_[:4, :4], np.s_[:4, 4:], np.s_[4:, :4], np.s_[4:, 4:]]
    for number, frame in enumerate(frames):
        for quadrant in quadrants[:number]:
            frame[(*quadrant, 1)] = 255
    return frames


WORDINGS = ["a green room", "green everywhere", "a black room", "a red room"]


def test_wordings_are_compared_by_their_ranking(frames):
    found = wording_sensitivity(
        FakeEncoder(), frames, WORDINGS, head=ThresholdHead(CosineHead(), threshold=0.6)
    )
    # Cosines to green are k/4 of k green quadrants; to black 1 - k/4; to red 0.
    pairs = {(pair.first, pair.second): pair for pair in found.pairs}
    assert len(pairs) == 6
    same = pairs["a green room", "green everywhere"]
    assert (same.kendall_tau, same.spearman) == (pytest.approx(1.0), pytest.approx(1.0))
    assert same.flipped == 0.0
    opposite = pairs["a green room", "a black room"]
    assert (opposite.kendall_tau, opposite.spearman) == (pytest.approx(-1.0), pytest.approx(-1.0))
    assert opposite.flipped == 0.8  # all but the half-green frame
    assert math.isnan(pairs["a green room", "a red room"].kendall_tau)
    assert found.worst.second == "a red room"  # it ranks nothing
    assert found.paid == (0.4, 0.4, 0.4, 0.0)
    assert found.flipped == 0.8
    assert found.num_frames == 5


def test_without_a_constant_wording_the_worst_pair_is_the_lowest_tau(frames):
    found = wording_sensitivity(FakeEncoder(), frames, WORDINGS[:3])
    assert (found.worst.first, found.worst.second) == ("a green room", "a black room")
    assert found.paid is None
    assert found.flipped is None
    assert found.worst.flipped is None


def test_negatives_are_shared(frames):
    head = ThresholdHead(SoftmaxHead(temperature=0.1), threshold=0.5)
    found = wording_sensitivity(
        FakeEncoder(), frames, WORDINGS[:2], head=head, negative_prompts=["a black room"]
    )
    assert found.paid == (0.4, 0.4)


def test_it_is_a_table_of_plain_data(frames):
    head = ThresholdHead(CosineHead(), threshold=0.6)
    wordings = ["go to the green room", "a red room"]
    table = wording_sensitivity(FakeEncoder(), frames, wordings, head=head).to_dict()
    assert json.loads(json.dumps(table)) == table
    assert [row["paid"] for row in table["wordings"]] == [0.4, 0.0]
    assert [row["hint"] is None for row in table["wordings"]] == [False, True]
    assert table["pairs"][0]["kendall_tau"] is None
    assert table["worst"] == wordings


def test_batches_do_not_matter(frames):
    whole = wording_sensitivity(FakeEncoder(), frames, WORDINGS[:3])
    split = wording_sensitivity(FakeEncoder(), {"pixels": frames}, WORDINGS[:3], batch_size=2)
    assert split == whole


def test_bad_input_is_refused(frames):
    encoder = FakeEncoder()
    with pytest.raises(ValueError, match="at least two wordings"):
        wording_sensitivity(encoder, frames, ["a green room"])
    with pytest.raises(ValueError, match="at least two observations to rank, got 1"):
        wording_sensitivity(encoder, frames[:1], WORDINGS)
    with pytest.raises(ValueError, match="batch_size"):
        wording_sensitivity(encoder, frames, WORDINGS, batch_size=0)
    with pytest.raises(ValueError, match="has no negatives"):
        wording_sensitivity(encoder, frames, WORDINGS, head=SoftmaxHead(0.1))
    with pytest.raises(FrameError):
        wording_sensitivity(encoder, frames[:0], WORDINGS)
    with pytest.raises(MissingModalityError):
        wording_sensitivity(encoder, {"position": frames}, WORDINGS)
