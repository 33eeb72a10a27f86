from collections.abc import Iterator
from dataclasses import fields, replace
from typing import Any

import numpy as np
import pytest
import torch

from vlmreward_envs.playroom import (
    Action,
    PlayroomConfig,
    PlayroomRenderer,
    PlayroomRooms,
    PlayroomState,
    reset_rooms,
)
from vlmreward_envs.playroom_sound import (
    Event,
    PlayroomSoundConfig,
    PlayroomSoundRooms,
    PlayroomSoundState,
    PlayroomSynthesiser,
    Voice,
    give_voices,
    heard_now,
    reset_sound_rooms,
    step_sound_rooms,
)
from vlmreward_envs.playroom_sound.dynamics import SOUND_STEPS, voice_distance

CONFIG = PlayroomSoundConfig()
SEEN = ["the person is holding the red ball", "the person is next to the blue key"]


def some_actions(num_steps: int, num_rooms: int) -> torch.Tensor:
    return torch.randint(0, 7, (num_steps, num_rooms), generator=torch.Generator().manual_seed(0))


def fresh(num_rooms: int, config: PlayroomSoundConfig = CONFIG) -> PlayroomSoundState:
    return reset_sound_rooms(
        config, torch.arange(num_rooms), torch.zeros(num_rooms, dtype=torch.int64)
    )


def a_room(position: tuple[int, int], cells: list[tuple[int, int]]) -> PlayroomSoundState:
    """One room by hand, with three objects in slot order, empty hands."""
    config = PlayroomSoundConfig(PlayroomConfig(num_objects=len(cells)))
    state = fresh(1, config)
    return replace(state, position=torch.tensor([position]), object_cell=torch.tensor([cells]))


def run(state: PlayroomSoundState, *actions: Action) -> Iterator[PlayroomSoundState]:
    config = PlayroomSoundConfig(PlayroomConfig(num_objects=state.object_kind.shape[1]))
    for action in actions:
        state = step_sound_rooms(config, state, torch.tensor([int(action)]))
        yield state


def test_what_is_seen_is_the_playroom_byte_for_byte() -> None:
    seen = PlayroomRooms(8, SEEN, frame_size=32)
    heard = PlayroomSoundRooms(8, SEEN, frame_size=32)
    for rooms in (seen, heard):
        rooms.reset(torch.arange(8))
    for episode in range(2):
        for action in some_actions(15, 8):
            assert torch.equal(seen.render(), heard.render())
            assert torch.equal(seen.success, heard.success)
            assert torch.equal(seen.known()["position"], heard.known()["position"])
            seen.step(action)
            heard.step(action)
        if episode == 0:
            seen.reset()
            heard.reset()


def test_other_voices_look_the_same_and_sound_otherwise() -> None:
    """A frame is a function of the room alone; who sounds when, of the sound seed alone."""
    room = reset_rooms(CONFIG.playroom, torch.arange(32), torch.zeros(32, dtype=torch.int64))
    one = give_voices(CONFIG, room, torch.arange(32))
    other = give_voices(CONFIG, room, torch.arange(32) + 1000)
    draw, listen = PlayroomRenderer(CONFIG.playroom, 32), PlayroomSynthesiser(CONFIG)
    num_differences = 0
    for action in some_actions(40, 32):
        one, other = (step_sound_rooms(CONFIG, state, action) for state in (one, other))
        assert torch.equal(draw(one), draw(other))
        assert not torch.equal(listen(one), listen(other))
        num_differences += int((heard_now(one)[:, :3] != heard_now(other)[:, :3]).sum())
        assert torch.equal(heard_now(one)[:, 3:], heard_now(other)[:, 3:])
    assert num_differences > 500


def test_other_rooms_have_the_same_voices_at_the_same_time() -> None:
    zeros = torch.zeros(16, dtype=torch.int64)
    one, other = (
        give_voices(CONFIG, reset_rooms(CONFIG.playroom, torch.arange(16) + shift, zeros), zeros)
        for shift in (0, 500)
    )
    assert not torch.equal(one.object_kind, other.object_kind)
    for action in some_actions(30, 16):
        one, other = (step_sound_rooms(CONFIG, state, action) for state in (one, other))
        assert torch.equal(heard_now(one)[:, :3], heard_now(other)[:, :3])
        assert torch.equal(one.voiced_object, other.voiced_object)


def test_a_bell_is_any_object_whatever_it_looks_like() -> None:
    """Counts of a fair draw; the goal's object, always in the first slot, is no likelier."""
    num_rooms = 6000
    kinds = torch.full((num_rooms, 1), 7)
    zeros = torch.zeros(num_rooms, dtype=torch.int64)
    state = reset_sound_rooms(CONFIG, torch.arange(num_rooms), zeros, kinds)
    for voice in Voice:
        emitter = (state.voice == voice).int().argmax(dim=1)
        slot = state.voiced_object.gather(1, emitter[:, None])
        spread = (num_rooms * 0.2 * 0.8) ** 0.5
        counts = torch.bincount(slot[:, 0], minlength=5)
        assert ((counts - num_rooms / 5).abs() < 4 * spread).all(), counts
        column = state.object_cell.gather(1, slot[..., None].expand(-1, -1, 2))[:, 0, 0]
        assert ((torch.bincount(column) - num_rooms / 7).abs() < 4 * spread).all()


def test_every_voice_is_there_and_no_object_has_two() -> None:
    for num_voiced in (3, 4, 5):
        state = fresh(300, PlayroomSoundConfig(num_voiced_objects=num_voiced))
        for room in range(300):
            assert len(set(state.voiced_object[room].tolist())) == num_voiced
            count = np.bincount(state.voice[room].numpy(), minlength=3)
            assert count.min() >= 1
            assert count.max() - count.min() <= 1


@pytest.mark.parametrize("mean_pause", [2, 20])
def test_sounds_and_pauses_last_as_long_as_they_should(mean_pause: int) -> None:
    config = PlayroomSoundConfig(mean_pause=mean_pause)
    state = fresh(100, config)
    stay = torch.zeros(100, dtype=torch.int64)
    history = []
    for _ in range(200):
        history.append(state.sounding_for.numpy() > 0)
        state = step_sound_rooms(config, state, stay)
    sounding = np.stack(history)
    assert not sounding[0].any()
    sounds: dict[int, set[int]] = {voice: set() for voice in Voice}
    pauses: list[int] = []
    for room in range(100):
        for emitter in range(3):
            changes = np.flatnonzero(np.diff(sounding[:, room, emitter])) + 1
            lengths = np.diff(changes)
            sounds[int(state.voice[room, emitter])] |= set(lengths[::2].tolist())
            pauses += [int(changes[0]), *lengths[1::2].tolist()]
    for voice, (fewest, most) in zip(Voice, SOUND_STEPS, strict=True):
        assert sounds[voice] == set(range(fewest, most + 1))
    assert (min(pauses), max(pauses)) == (2, 2 * mean_pause - 2)
    assert np.mean(pauses) == pytest.approx(mean_pause, rel=0.05)


def test_events_by_hand() -> None:
    """The person at (1, 1), an object to the right and one above, a wall below at the bottom."""
    state = a_room((1, 1), [(2, 1), (1, 0), (6, 6)])
    expected = {
        Action.STAY: Event.NOTHING,
        Action.LEFT: Event.FOOTSTEP,
        Action.DOWN: Event.FOOTSTEP,
        Action.RIGHT: Event.BUMP,
        Action.UP: Event.BUMP,
        Action.PICK_UP: Event.PICK_UP,
        Action.PUT_DOWN: Event.NOTHING,
    }
    for action, event in expected.items():
        (after,) = run(state, action)
        assert after.event.tolist() == [event], action
    walk = (Action.LEFT, Action.LEFT, Action.PICK_UP, Action.RIGHT)
    events = [int(after.event) for after in run(state, *walk)]
    assert events == [Event.FOOTSTEP, Event.BUMP, Event.NOTHING, Event.FOOTSTEP]
    deeds = (Action.PICK_UP, Action.PICK_UP, Action.RIGHT, Action.PUT_DOWN, Action.PICK_UP)
    states = list(run(state, *deeds))
    assert [int(after.event) for after in states] == [
        Event.PICK_UP,
        Event.NOTHING,
        Event.FOOTSTEP,
        Event.PUT_DOWN,
        Event.PICK_UP,
    ]
    assert [int(after.held_for) for after in states] == [1, 2, 3, 0, 1]
    assert [bool(after.put_back) for after in states] == [False, False, False, True, True]


def test_distances_by_hand_and_one_step_before() -> None:
    state = replace(
        a_room((1, 1), [(2, 1), (1, 0), (6, 5)]), voiced_object=torch.tensor([[2, 0, 1]])
    )
    picked, moved = run(state, Action.PICK_UP, Action.RIGHT)
    assert voice_distance(state).tolist() == [[9, 1, 1]]
    assert voice_distance(picked).tolist() == [[9, 0, 1]]  # in hand
    assert voice_distance(moved).tolist() == [[8, 0, 2]]
    assert moved.heard_from.tolist() == [[9, 0, 1]]


def test_a_room_is_the_same_alone_and_among_others() -> None:
    many, one = PlayroomSoundRooms(16), PlayroomSoundRooms(1)
    many.reset(torch.arange(16))
    one.reset(torch.tensor([11]))
    assert torch.equal(one.goal_index[0], many.goal_index[11])
    for action in some_actions(40, 16):
        many.step(action)
        one.step(action[11:12])
        assert torch.equal(one.listen()[0], many.listen()[11])
        assert torch.equal(one.success[0], many.success[11])
    for field in fields(PlayroomSoundState):
        mine, theirs = getattr(one.state, field.name), getattr(many.state, field.name)
        assert torch.equal(mine[0], theirs[11]), field.name
    chosen = torch.tensor([11, 3])
    assert torch.equal(many.listen(chosen), many.listen()[chosen])


def test_every_episode_has_voices_of_its_own_even_in_a_fixed_room() -> None:
    config = PlayroomSoundConfig(PlayroomConfig(fixed_room=True))
    rooms = PlayroomSoundRooms(20, config=config)
    rooms.reset(torch.arange(20))
    first = rooms.state
    rooms.reset()
    assert torch.equal(first.object_kind, rooms.state.object_kind)
    assert not torch.equal(first.voiced_object, rooms.state.voiced_object)
    assert not torch.equal(first.steps_left, rooms.state.steps_left)


def test_masked_reset_forgets_where_it_resets_and_nowhere_else() -> None:
    rooms = PlayroomSoundRooms(6)
    rooms.reset(torch.arange(6))
    for action in some_actions(60, 6):
        rooms.step(action)
    before = rooms.state
    assert (before.num_onsets > 0).any(dim=1).all()
    rooms.reset(mask=torch.tensor([True, False] * 3))
    after = rooms.state
    for field in fields(PlayroomSoundState):
        assert torch.equal(getattr(after, field.name)[1::2], getattr(before, field.name)[1::2])
    assert after.clock.tolist() == [0, 60] * 3
    for name in ("num_onsets", "sounding_for", "held_for", "put_back", "event"):
        assert not getattr(after, name)[::2].any(), name
    assert (after.first_onset[::2] == -1).all()


def test_the_state_of_a_playroom_is_part_of_it() -> None:
    assert isinstance(fresh(1), PlayroomState)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"num_voiced_objects": 2}, r"must be in 3\.\.5.*got 2"),
        ({"num_voiced_objects": 6}, r"must be in 3\.\.5.*got 6"),
        ({"playroom": PlayroomConfig(num_objects=2)}, r"must be in 3\.\.2"),
        ({"mean_pause": 1}, "mean_pause must be at least 2, got 1"),
    ],
)
def test_bad_settings_are_named(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        PlayroomSoundConfig(**settings)
