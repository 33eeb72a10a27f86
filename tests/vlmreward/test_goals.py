import dataclasses

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vlmreward import FrameError, Goal, goals_from_prompts


def test_a_single_prompt_becomes_a_tuple():
    goal = Goal("a red room", negative_prompts=["a green room"])
    assert goal.prompts == ("a red room",)
    assert goal.negative_prompts == ("a green room",)
    assert goal == Goal(["a red room"], ("a green room",))
    assert hash(goal) == hash(Goal(["a red room"], ("a green room",)))


def test_goals_are_frozen_and_can_be_replaced():
    goal = Goal("a red room")
    with pytest.raises(dataclasses.FrozenInstanceError):
        goal.prompts = ("a green room",)
    assert dataclasses.replace(goal, negative_prompts=["x"]) == Goal("a red room", ["x"])


@pytest.mark.parametrize("blank", ["", " ", "\t\n"])
@pytest.mark.parametrize("field", ["prompts", "negative_prompts"])
def test_blank_prompts_are_refused(blank, field):
    with pytest.raises(ValueError, match=f"`{field}` is empty or blank"):
        Goal(**{"prompts": "a red room", field: [blank]})


def test_no_prompt_is_refused():
    with pytest.raises(ValueError, match="needs a prompt or an image, got neither"):
        Goal([])


@pytest.mark.parametrize("wrong", [[3], [None], [b"bytes"]])
def test_prompts_of_another_type_are_refused(wrong):
    with pytest.raises(TypeError):
        Goal(wrong)


@pytest.mark.parametrize("negative", ["a red room", "A  RED room ", "a red\nroom"])
def test_a_goal_among_its_own_negatives_is_refused(negative):
    with pytest.raises(ValueError, match="among its own negatives"):
        Goal(["one wording", "a red room"], negative_prompts=["a blue room", negative])


def test_a_prompt_given_twice_is_refused():
    with pytest.raises(ValueError, match="twice"):
        Goal("a", negative_prompts=["b", "B "])


def test_every_other_prompt_is_a_negative():
    first, second, third = goals_from_prompts(["a", "b", "c"])
    assert first == Goal("a", ["b", "c"])
    assert second == Goal("b", ["a", "c"])
    assert third == Goal("c", ["a", "b"])


@given(num_prompts=st.integers(2, 8), data=st.data(), seed=st.integers(0, 100))
def test_sampled_negatives_are_other_prompts_and_repeatable(num_prompts, data, seed):
    prompts = [f"task {index}" for index in range(num_prompts)]
    num_negatives = data.draw(st.integers(1, num_prompts - 1))

    def draw():
        generator = np.random.default_rng(seed)
        return goals_from_prompts(prompts, num_negatives=num_negatives, generator=generator)

    goals = draw()
    assert draw() == goals
    for prompt, goal in zip(prompts, goals, strict=True):
        assert goal.prompts == (prompt,)
        assert len(set(goal.negative_prompts)) == num_negatives
        assert set(goal.negative_prompts) <= set(prompts) - {prompt}


def test_sampled_negatives_are_uniform():
    prompts = [f"task {index}" for index in range(5)]
    generator = np.random.default_rng(0)
    counts = dict.fromkeys(prompts[1:], 0)
    for _ in range(2000):
        for text in goals_from_prompts(prompts, num_negatives=2, generator=generator)[
            0
        ].negative_prompts:
            counts[text] += 1
    # Binomial(2000, 1/2) has a standard deviation of 22.
    assert all(abs(count - 1000) < 5 * 22 for count in counts.values())


@pytest.mark.parametrize("num_negatives", [0, 3, -1])
def test_an_impossible_number_of_negatives_is_refused(num_negatives):
    with pytest.raises(ValueError, match="num_negatives between 1 and 2"):
        goals_from_prompts(
            ["a", "b", "c"], num_negatives=num_negatives, generator=np.random.default_rng(0)
        )


def test_sampling_needs_a_generator():
    with pytest.raises(ValueError, match="without a generator"):
        goals_from_prompts(["a", "b", "c"], num_negatives=1)


def test_a_single_prompt_has_no_negatives_to_take():
    with pytest.raises(ValueError, match="at least two prompts, got 1"):
        goals_from_prompts(["a"])


def test_goal_images_are_kept_apart_and_compared_by_content():
    black, white = np.zeros((1, 4, 4, 3), np.uint8), np.full((1, 4, 4, 3), 255, np.uint8)
    goal = Goal("a dark room", images=black)
    assert goal == Goal("a dark room", images=black.copy())
    assert goal != Goal("a dark room", images=white)
    assert goal != Goal("a dark room")
    assert len({goal, Goal("a dark room", images=black.copy())}) == 1
    black[:] = 7  # the goal has its own copy
    assert goal.images.max() == 0


def test_bad_goal_images_and_weights_are_refused():
    with pytest.raises(FrameError, match="add the batch axis"):
        Goal(images=np.zeros((4, 4, 3), np.uint8))
    with pytest.raises(ValueError, match=r"image_weight from 0 to 1, got 1\.5"):
        Goal("a room", image_weight=1.5)


def test_a_goal_among_its_baselines_is_refused():
    with pytest.raises(ValueError, match="among its own baselines"):
        Goal("a red room", baseline_prompts=["A  red room"])
