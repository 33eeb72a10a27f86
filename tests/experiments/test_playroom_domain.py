import numpy as np
import pytest
import torch

import playroom_domain
from playroom_domain import HELD_OUT_KINDS, HELD_OUT_NAMES, PlayroomCaptions, family_goals
from vlmreward_envs.playroom import Family, PlayroomConfig, PlayroomState
from vlmreward_envs.playroom.dynamics import next_to_each_other, next_to_person
from vlmreward_envs.playroom.language import HOLDING_NOTHING, NEXT_TO_NOTHING, alone_sentence


def test_held_out_kinds_have_each_colour_and_each_shape_once() -> None:
    assert sorted(kind // 6 for kind in HELD_OUT_KINDS) == list(range(6))
    assert sorted(kind % 6 for kind in HELD_OUT_KINDS) == list(range(6))


def test_training_text_and_frames_never_contain_held_out_kinds(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    states: list[PlayroomState] = []
    draw = playroom_domain.draw_states

    def watched(*args: object) -> PlayroomState:
        states.append(draw(*args))
        return states[-1]

    monkeypatch.setattr(playroom_domain, "draw_states", watched)
    source = PlayroomCaptions()
    for seed in range(6):
        batch = source(64, np.random.default_rng(seed))
        misses = [text for frame in batch.near_misses for group in frame for text in group]
        text = "\n".join([*(text for frame in batch.captions for text in frame), *misses])
        assert not [name for name in HELD_OUT_NAMES if name in text]
        assert not set(states[-1].object_kind.flatten().tolist()) & set(HELD_OUT_KINDS)
        colours = {name.split()[0] for name in HELD_OUT_NAMES}
        assert all(colour in text for colour in colours)


def test_same_generator_state_same_batch() -> None:
    first, second = (PlayroomCaptions()(16, np.random.default_rng(3)) for _ in range(2))
    assert torch.equal(first.frames, second.frames)
    assert first.captions == second.captions


def test_drawn_states_are_possible_and_eventful() -> None:
    config = PlayroomConfig()
    state = playroom_domain.draw_states(config, 2000, np.random.default_rng(0))
    taken = torch.cat((state.object_cell, state.position[:, None]), dim=1)
    place = taken[..., 1] * 7 + taken[..., 0]
    for room in range(2000):
        standing = [p for i, p in enumerate(place[room].tolist()) if i != int(state.held[room])]
        assert len(set(standing)) == len(standing)
        assert 0 <= min(standing) <= max(standing) < 49
    near = next_to_person(state)
    assert near[:, 0].float().mean() > 1.5 * near[:, 2].float().mean()
    assert (state.held >= 0).float().mean() > 0.15
    assert next_to_each_other(state)[:, 0, 1].float().mean() > 0.2


def test_goals_have_fixed_negatives_without_themselves() -> None:
    for family, null in ((Family.FIND, NEXT_TO_NOTHING), (Family.LIFT, HOLDING_NOTHING)):
        goals = family_goals(family, np.random.default_rng(0))
        assert len(goals) == 36
        for goal in goals:
            assert len(goal.negative_prompts) == 36
            assert null in goal.negative_prompts
    puts = family_goals(Family.PUT, np.random.default_rng(0))
    assert puts == family_goals(Family.PUT, np.random.default_rng(0))
    for goal in puts:
        first, second = goal.prompts[0].removeprefix("the ").split(" is next to the ")
        assert len(goal.negative_prompts) == 2 + 34 + 30
        assert {alone_sentence(first), alone_sentence(second)} < set(goal.negative_prompts)
        assert sum(text.startswith(f"the {first} is") for text in goal.negative_prompts) >= 34
        assert f"the {second} is next to the {first}" not in goal.negative_prompts
