"""Sentences against their truth, recomputed by hand from what an episode was like step by step."""

from dataclasses import dataclass
from functools import cache
from itertools import pairwise
from typing import Any

import pytest
import torch

from vlmreward_envs import playroom
from vlmreward_envs.playroom import Family, PlayroomGoal
from vlmreward_envs.playroom.language import OBJECT_NAMES
from vlmreward_envs.playroom_sound import (
    TOLD_CAPTIONS,
    GoalKind,
    Heard,
    PlayroomSoundConfig,
    PlayroomSoundGoal,
    PlayroomSoundState,
    all_goals,
    alternatives,
    describe,
    goal_reached,
    goal_tensor,
    parse_goal,
    reset_sound_rooms,
    step_sound_rooms,
    told_captions,
)
from vlmreward_envs.playroom_sound.captions import _contrast

NUM_ROOMS, NUM_STEPS = 16, 150
# Short pauses, so that counts and orders of every kind occur; two objects share a voice.
CONFIG = PlayroomSoundConfig(num_voiced_objects=4, mean_pause=14)


@dataclass(frozen=True)
class Moment:
    """What one room was like in one step."""

    sounding: tuple[tuple[int, bool], ...]
    position: tuple[int, ...]
    held: int
    action: int


@cache
def episodes() -> tuple[list[PlayroomSoundState], list[list[Moment]]]:
    """Every step of some episodes as states, and the history of every room as moments."""
    zeros = torch.zeros(NUM_ROOMS, dtype=torch.int64)
    state = reset_sound_rooms(CONFIG, torch.arange(NUM_ROOMS), zeros)
    generator = torch.Generator().manual_seed(0)
    states = []
    histories: list[list[Moment]] = [[] for _ in range(NUM_ROOMS)]
    # Hands rarely let go, so that something is held for long.
    odds = torch.tensor([1.0, 2.0, 2.0, 2.0, 2.0, 2.0, 0.4]).expand(NUM_ROOMS, -1)
    action = torch.zeros(NUM_ROOMS, dtype=torch.int64)
    for _ in range(NUM_STEPS):
        states.append(state)
        for room, history in enumerate(histories):
            voices = zip(
                state.voice[room].tolist(), (state.sounding_for[room] > 0).tolist(), strict=True
            )
            position = tuple(state.position[room].tolist())
            moment = Moment(tuple(voices), position, int(state.held[room]), int(action[room]))
            history.append(moment)
        action = torch.multinomial(odds, 1, generator=generator)[:, 0]
        state = step_sound_rooms(CONFIG, state, action)
    return states, histories


class Story:
    """The history of a room up to a step, and what it makes true, sentence by sentence."""

    def __init__(self, history: list[Moment], seen: set[str]) -> None:
        self.seen = seen
        now = {voice for voice, sounds in history[-1].sounding if sounds}
        walked = len(history) > 1 and history[-2].position != history[-1].position
        holds = [moment.held >= 0 for moment in history]
        puts_now = len(holds) > 1 and holds[-2] and not holds[-1]
        puts = any(before and not after for before, after in pairwise(holds))
        picks_up = len(holds) > 1 and holds[-1] and not holds[-2]
        bumps = history[-1].action in (1, 2, 3, 4) and not walked
        ring, hum, beep = (onsets(history, voice) for voice in range(3))
        self.past = {"a bell rang": ring, "something hummed": hum, "something beeped": beep}
        self.counts = {"a bell has rung": len(ring), "something has beeped": len(beep)}
        self.plain = {
            "a bell is ringing": 0 in now,
            "something is humming": 1 in now,
            "something is beeping": 2 in now,
            "there are footsteps": walked,
            "there is a bump": bumps,
            "something is being picked up": picks_up,
            "something is being put down": puts_now,
            "no bell is ringing": 0 not in now,
            "nothing is humming": 1 not in now,
            "nothing is beeping": 2 not in now,
            "there are no footsteps": not walked,
            "there is no bump": not bumps,
            "nothing is being picked up": not picks_up,
            "nothing is being put down": not puts_now,
            "nothing is ringing, humming or beeping": not now,
            "no bell has rung": not ring,
            "nothing has hummed": not hum,
            "nothing has beeped": not beep,
            "something has hummed for ten steps": lasted(history, 1, 10),
            "nothing has hummed for ten steps": not lasted(history, 1, 10),
            "the person has held nothing for ten steps": not (
                len(holds) >= 10 and all(holds[-10:])
            ),
            "the person has held something for ten steps": len(holds) >= 10 and all(holds[-10:]),
            "something was picked up and put down again": puts,
            "nothing was put down": not puts,
        }

    def tells(self, sentence: str) -> bool:
        """Whether the sentence is true."""
        if " while " in sentence:
            return all(self.tells(clause) for clause in sentence.split(" while "))
        if " before " in sentence:
            first, second = (self.past[clause] for clause in sentence.split(" before "))
            return bool(first) and bool(second) and first[0] < second[0]
        for clause, count in self.counts.items():
            if sentence.startswith(clause):
                number = sentence.removeprefix(clause).strip()
                exact = {"once": 1, "twice": 2, "three times": 3}
                return count > 3 if number == "more than three times" else count == exact[number]
        return self.plain.get(sentence, sentence in self.seen)


def onsets(history: list[Moment], voice: int) -> list[int]:
    """The steps in which an object of the voice began to sound."""
    return [
        step
        for step, (earlier, later) in enumerate(pairwise(history))
        for before, now in zip(earlier.sounding, later.sounding, strict=True)
        if now == (voice, True) and not before[1]
    ]


def lasted(history: list[Moment], voice: int, num_steps: int) -> bool:
    """Whether one object of the voice sounded in each of the last steps."""
    last = history[-num_steps:]
    return len(last) == num_steps and any(
        all(moment.sounding[index] == (voice, True) for moment in last)
        for index in range(len(last[0].sounding))
    )


def seen_by(state: PlayroomSoundState) -> list[set[str]]:
    return [set(room.true) for room in playroom.describe(CONFIG.playroom, state)]


def test_told_and_heard_goals_follow_the_history() -> None:
    states, histories = episodes()
    goals = [*all_goals(GoalKind.HEARD), *all_goals(GoalKind.TOLD)]
    rows = goal_tensor(goals, torch.device("cpu"))
    num_true = dict.fromkeys([goal.sentence for goal in goals], 0)
    steps = range(0, NUM_STEPS, 6)
    for step in steps:
        stories = [Story(history[: step + 1], set()) for history in histories]
        for row, goal in zip(rows, goals, strict=True):
            reached = goal_reached(states[step], row.expand(NUM_ROOMS, -1)).tolist()
            assert reached == [story.tells(goal.sentence) for story in stories], goal.sentence
            num_true[goal.sentence] += sum(reached)
    most = NUM_ROOMS * len(steps)
    assert all(0.01 * most < count < 0.99 * most for count in num_true.values()), num_true


def test_seen_goals_are_those_of_the_playroom_and_joint_goals_need_both() -> None:
    states, _ = episodes()
    state = states[90]

    def reached(goal: PlayroomSoundGoal) -> torch.Tensor:
        row = goal_tensor([goal], torch.device("cpu"))
        return goal_reached(state, row.expand(NUM_ROOMS, -1))

    num_joint = 0
    for goal in all_goals(GoalKind.SEEN):
        assert goal.seen is not None
        seen = playroom.dynamics.goal_tensor([goal.seen], torch.device("cpu"))
        expected = playroom.goal_reached(state, seen.expand(NUM_ROOMS, -1))
        assert torch.equal(reached(goal), expected)
        for heard in (Heard.RINGING, Heard.HUMMING, Heard.BEEPING):
            both = reached(PlayroomSoundGoal(seen=goal.seen, heard=heard))
            assert torch.equal(both, expected & reached(PlayroomSoundGoal(heard=heard)))
            num_joint += int(both.sum())
    assert num_joint > 5


@pytest.mark.parametrize("step", [0, 60, 149])
def test_captions_say_what_is_true_and_their_near_misses_what_is_not(step: int) -> None:
    states, histories = episodes()
    seen = seen_by(states[step])
    for room, captions in enumerate(describe(CONFIG, states[step])):
        story = Story(histories[room][: step + 1], seen[room])
        assert list(captions) == list(GoalKind)
        for kind, description in captions.items():
            assert len(description.true) == len(set(description.true)) > 0
            assert len(description.true) == len(description.near_misses)
            for sentence in description.true:
                assert story.tells(sentence), (kind, sentence)
            for misses in description.near_misses:
                assert len(misses) > 0 or kind is GoalKind.SEEN
                for sentence in misses:
                    assert not story.tells(sentence), (kind, sentence)


def test_everything_that_is_told_follows_the_history() -> None:
    states, histories = episodes()
    assert len(set(TOLD_CAPTIONS)) == len(TOLD_CAPTIONS) == 23
    for step in (0, 40, 149):
        stories = [Story(history[: step + 1], set()) for history in histories]
        expected = [[story.tells(sentence) for sentence in TOLD_CAPTIONS] for story in stories]
        assert told_captions(states[step]).tolist() == expected


def test_alternatives_are_true_where_the_goal_is_not() -> None:
    _, histories = episodes()
    goals = [*all_goals(GoalKind.HEARD), *all_goals(GoalKind.TOLD)]
    num_neither = 0
    for goal in goals:
        others = alternatives(goal)
        assert goal.sentence not in others
        for history in histories:
            story = Story(history[:100], set())
            true = [other for other in others if story.tells(other)]
            if story.tells(goal.sentence):
                assert not true, (goal.sentence, true)
            elif " before " in goal.sentence and not true:
                num_neither += 1  # both began in one step
            else:
                assert len(true) >= 1, goal.sentence
    assert num_neither < 20
    with pytest.raises(ValueError, match="heard or told, got 'the person is"):
        alternatives(all_goals(GoalKind.SEEN)[0])


def test_captions_leave_no_true_goal_out() -> None:
    states, _ = episodes()
    for state in (states[30][:8], states[100][:8]):
        captions = describe(CONFIG, state)
        for kind in GoalKind:
            goals = all_goals(kind)
            rows = goal_tensor(goals, torch.device("cpu"))
            sentences = [goal.sentence for goal in goals]
            for room in range(len(state)):
                reached = goal_reached(state[room : room + 1][torch.zeros(len(rows)).long()], rows)
                expected = {s for s, true in zip(sentences, reached.tolist(), strict=True) if true}
                assert expected == set(captions[room][kind].true) & set(sentences)


def test_near_misses_differ_in_voice_in_order_in_count_and_in_sight() -> None:
    states, _ = episodes()
    pairs: dict[str, set[str]] = {}
    for captions in describe(CONFIG, states[100]) + describe(CONFIG, states[60]):
        for description in captions.values():
            for sentence, misses in zip(description.true, description.near_misses, strict=True):
                pairs.setdefault(sentence, set()).update(misses)
    assert {"something is beeping", "no bell is ringing"} <= pairs["a bell is ringing"]
    assert "something beeped before a bell rang" in pairs["a bell rang before something beeped"]
    counts = pairs["a bell has rung twice"]
    assert {"a bell has rung three times", "something has beeped twice"} <= counts
    joint = next(s for s in pairs if "holding the " in s and s.endswith("a bell is ringing"))
    sight, name = joint.split(" while ")[0], joint.split(" while ")[0].rsplit(" the ")[1]
    assert f"{sight} while something is beeping" in pairs[joint]
    assert f"the person is next to the {name} while a bell is ringing" in pairs[joint]
    others = {s for s in pairs[joint] if "holding" in s and name not in s}
    assert len(others) >= 5


def test_contrast_takes_near_misses_from_the_same_group_only() -> None:
    description = _contrast((("a", "b", "c"), ("d", "e")), {"a", "c", "e"})
    assert description.true == ("a", "c", "e")
    assert description.near_misses == (("b",), ("b",), ("d",))


def test_unnamed_kinds_are_never_named() -> None:
    states, _ = episodes()
    unnamed = [OBJECT_NAMES.index("red key"), OBJECT_NAMES.index("white cone")]

    def text(*kinds: int) -> str:
        return "\n".join(
            sentence
            for step in (60, 100)
            for captions in describe(CONFIG, states[step], kinds)
            for description in captions.values()
            for group in (description.true, *description.near_misses)
            for sentence in group
        )

    everything, without = text(), text(*unnamed)
    for name in ("red key while", "white cone while", "red key", "white cone"):
        assert name in everything
        assert name not in without
    assert "red cone while" in without


def test_sentences_round_trip_and_are_distinct() -> None:
    counts = {kind: len(all_goals(kind)) for kind in GoalKind}
    assert counts == {
        GoalKind.SEEN: 72,
        GoalKind.HEARD: 7,
        GoalKind.SEEN_AND_HEARD: 216,
        GoalKind.TOLD: 13,
    }
    sentences = set()
    for kind in GoalKind:
        for goal in all_goals(kind):
            assert goal.kind is kind
            assert parse_goal(f"  {goal.sentence.upper()} ") == goal
            sentences.add(goal.sentence)
    assert len(sentences) == 308


def test_unknown_sentences_suggest_the_nearest() -> None:
    with pytest.raises(ValueError, match="a bell is ringing"):
        parse_goal("the bell is ringing")
    with pytest.raises(ValueError, match="the person is holding the red ball while"):
        parse_goal("the person holds the red ball while a bell rings")


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        ({}, "without parts"),
        ({"told": 13}, r"0\.\.12, got 13"),
        ({"told": 0, "heard": Heard.HUMMING}, "no other part"),
        ({"seen": PlayroomGoal(Family.PUT, 0, 1)}, "FIND or LIFT"),
        ({"seen": PlayroomGoal(Family.FIND, 0), "heard": Heard.FOOTSTEPS}, "there are footsteps"),
    ],
)
def test_parts_that_make_no_sentence_are_refused(parts: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        PlayroomSoundGoal(**parts)
