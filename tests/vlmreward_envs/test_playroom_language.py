import numpy as np
import pytest
import torch

from vlmreward_envs.playroom import (
    Family,
    PlayroomConfig,
    PlayroomState,
    all_goals,
    describe,
    goal_reached,
    parse_goal,
    reset_rooms,
    step_rooms,
)
from vlmreward_envs.playroom.captions import Description
from vlmreward_envs.playroom.dynamics import goal_tensor
from vlmreward_envs.playroom.language import (
    HOLDING_NOTHING,
    NEXT_TO_NOTHING,
    OBJECT_NAMES,
    alone_sentence,
)

CONFIG = PlayroomConfig()
RELATIONS = {"in the", "next to", "holding", "left of", "right of", "above", "below"}


@pytest.fixture(scope="module")
def walked() -> PlayroomState:
    """Rooms after a random walk, in which everything happens."""
    state = reset_rooms(CONFIG, torch.arange(200), torch.zeros(200, dtype=torch.int64))
    generator = torch.Generator().manual_seed(0)
    for _ in range(12):
        state = step_rooms(CONFIG, state, torch.randint(0, 7, (200,), generator=generator))
    return state


def truth(state: PlayroomState, room: int, sentence: str) -> bool | None:
    """Ground truth recomputed by hand from one room's numbers, independent of the captioner."""
    names = [OBJECT_NAMES[kind] for kind in state.object_kind[room].tolist()]
    cells = dict(zip(names, state.object_cell[room].tolist(), strict=True))
    held_index = int(state.held[room])
    held = names[held_index] if held_index >= 0 else None
    standing = {name: cell for name, cell in cells.items() if name != held}
    person = state.position[room].tolist()

    def distance(a: list[int], b: list[int]) -> int:
        return abs(a[0] - b[0]) + abs(a[1] - b[1])

    near = {name for name, cell in standing.items() if distance(cell, person) == 1}
    if sentence == NEXT_TO_NOTHING:
        return not near
    if sentence == HOLDING_NOTHING:
        return held is None
    if sentence.startswith("the person is next to the "):
        return sentence.removeprefix("the person is next to the ") in near
    if sentence.startswith("the person is holding the "):
        return sentence.removeprefix("the person is holding the ") == held
    if sentence.endswith(" of the room"):
        row, column = sentence.removeprefix("the person is in the ").split()[:2]
        thirds = {0: 0, 1: 0, 2: 0, 3: 1, 4: 1, 5: 2, 6: 2}
        columns, rows = ("left", "centre", "right"), ("top", "middle", "bottom")
        return (column, row) == (columns[thirds[person[0]]], rows[thirds[person[1]]])
    subject, _, rest = sentence.removeprefix("the ").partition(" is ")
    if rest == "next to nothing":
        apart = [
            subject not in standing or distance(standing[subject], cell) != 1
            for cell in standing.values()
        ]
        return (subject in standing or subject == held) and all(apart)
    if rest.startswith("next to the "):
        other = rest.removeprefix("next to the ")
        both = subject in standing and other in standing
        return both and distance(standing[subject], standing[other]) == 1
    if subject not in standing:
        return False
    dx, dy = (a - b for a, b in zip(standing[subject], person, strict=True))
    sides = {"left of": -dx, "right of": dx, "above": -dy, "below": dy}
    side = sides[rest.removesuffix(" the person")]
    return side > 0 and side == max(abs(dx), abs(dy)) and abs(dx) != abs(dy)


def test_true_sentences_are_true_and_near_misses_false(walked: PlayroomState) -> None:
    relations: set[str] = set()
    for room, description in enumerate(describe(CONFIG, walked)):
        assert len(description.true) == len(set(description.true))
        for sentence in description.true:
            assert truth(walked, room, sentence), (room, sentence)
            relations |= {word for word in RELATIONS if f" {word} " in sentence}
        for wrong in description.near_misses:
            for sentence in wrong:
                assert not truth(walked, room, sentence), (room, sentence)
    assert relations == RELATIONS


def test_true_sentences_are_complete(walked: PlayroomState) -> None:
    goals = [goal for family in Family for goal in all_goals(family)]
    sentences = {goal.sentence for goal in goals}
    for room, description in enumerate(describe(CONFIG, walked[:40])):
        expected = {goal.sentence for goal in goals if truth(walked, room, goal.sentence)}
        assert expected == set(description.true) & sentences


def test_what_stands_apart_is_said_to_be_next_to_nothing(walked: PlayroomState) -> None:
    for room, description in enumerate(describe(CONFIG, walked[:40])):
        sentences = {alone_sentence(name) for name in OBJECT_NAMES}
        expected = {sentence for sentence in sentences if truth(walked, room, sentence)}
        assert expected == set(description.true) & sentences


def test_near_misses_differ_in_colour_shape_and_relation(walked: PlayroomState) -> None:
    room = int((walked.held >= 0).nonzero()[0])
    description: Description = describe(CONFIG, walked)[room]
    lifted = next(s for s in description.true if s.startswith("the person is holding"))
    wrong = description.near_misses[description.true.index(lifted)]
    colour, shape = lifted.split()[-2:]
    assert any(s.endswith(shape) and colour not in s and "holding" in s for s in wrong)
    assert any(colour in s and not s.endswith(shape) and "holding" in s for s in wrong)
    assert f"the person is next to the {colour} {shape}" in wrong


def test_unnamed_kinds_are_never_named(walked: PlayroomState) -> None:
    unnamed = [OBJECT_NAMES.index("red key"), OBJECT_NAMES.index("white cone")]
    text = "\n".join(
        sentence
        for description in describe(CONFIG, walked, unnamed)
        for group in (description.true, *description.near_misses)
        for sentence in group
    )
    assert "red key" not in text
    assert "white cone" not in text
    assert "red cone" in text
    everything = "\n".join(s for d in describe(CONFIG, walked) for s in d.true)
    assert "red key" in everything


def test_ground_truth_of_every_family_agrees_with_hand_computation(walked: PlayroomState) -> None:
    rng = np.random.default_rng(0)
    seen = dict.fromkeys(Family, 0)
    for family in Family:
        goals = all_goals(family)
        for index in rng.permutation(len(goals))[:25]:
            row = goal_tensor([goals[index]], torch.device("cpu")).expand(len(walked), -1)
            reached = goal_reached(walked, row)
            for room in range(len(walked)):
                assert bool(reached[room]) is truth(walked, room, goals[index].sentence)
            seen[family] += int(reached.sum())
    assert all(count > 0 for count in seen.values())


def test_sentences_round_trip() -> None:
    counts = {family: len(all_goals(family)) for family in Family}
    assert counts == {Family.FIND: 36, Family.LIFT: 36, Family.PUT: 36 * 35}
    for family in Family:
        for goal in all_goals(family)[::7]:
            assert parse_goal(f"  {goal.sentence.upper()} ") == goal


def test_unknown_sentence_suggests_the_nearest() -> None:
    with pytest.raises(ValueError, match="the person is holding the red ball"):
        parse_goal("the person holds the red ball")
