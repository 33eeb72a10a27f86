import numpy as np
import pytest
import torch

import trend_domains
from playroom_domain import HELD_OUT_NAMES
from trend_domains import EPISODE_LENGTH, Domain, MixedCaptions, domains, verb_sentence
from vlmreward_envs.launcher import LauncherState
from vlmreward_envs.playroom import PlayroomState, goal_reached, parse_goal
from vlmreward_envs.playroom.dynamics import goal_tensor

PLAYROOM, LAUNCHER = domains()


def watch(monkeypatch: pytest.MonkeyPatch, renderer: str) -> list[PlayroomState | LauncherState]:
    """Keep every state that is drawn."""
    states: list[PlayroomState | LauncherState] = []
    draw = getattr(trend_domains, renderer).__call__

    def watched(self: object, state: PlayroomState | LauncherState) -> torch.Tensor:
        states.append(state)
        return draw(self, state)

    monkeypatch.setattr(getattr(trend_domains, renderer), "__call__", watched)
    return states


def test_playroom_labels_are_the_ground_truth_of_each_goal(monkeypatch: pytest.MonkeyPatch) -> None:
    states = watch(monkeypatch, "PlayroomRenderer")
    labels = PLAYROOM.draw(16, np.random.default_rng(0)).labels.reshape(16, EPISODE_LENGTH, -1)
    for time, state in enumerate(states):
        for index, goal in enumerate(PLAYROOM.goals):
            row = goal_tensor([parse_goal(goal.prompts[0])], torch.device("cpu")).expand(16, -1)
            assert np.array_equal(labels[:, time, index], goal_reached(state, row).numpy())


def test_launcher_labels_are_the_foreground_app(monkeypatch: pytest.MonkeyPatch) -> None:
    states = watch(monkeypatch, "LauncherRenderer")
    labels = LAUNCHER.draw(16, np.random.default_rng(0)).labels.reshape(16, EPISODE_LENGTH, -1)
    for time, state in enumerate(states):
        assert np.array_equal(labels[:, time].sum(axis=1), (state.app >= 0).numpy())
        for phone in range(16):
            if state.app[phone] >= 0:
                assert labels[phone, time, state.app[phone]]


@pytest.mark.parametrize("domain", [PLAYROOM, LAUNCHER], ids=lambda domain: domain.name)
def test_trajectories_repeat_themselves_and_show_every_kind_of_goal(domain: Domain) -> None:
    first, second = (domain.draw(64, np.random.default_rng(1)) for _ in range(2))
    assert np.array_equal(first.frames, second.frames)
    assert first.frames.shape == (64 * EPISODE_LENGTH, 96, 96, 3)
    assert first.labels.shape == (64 * EPISODE_LENGTH, len(domain.goals))
    assert len(domain.is_held_out) == len(domain.goals)
    assert domain.is_held_out.sum() == 12
    assert first.labels[:, domain.is_held_out].any()


def test_each_batch_is_of_both_domains_in_equal_shares() -> None:
    source = MixedCaptions(PLAYROOM.captions, LAUNCHER.captions)
    batch = source(8, np.random.default_rng(0))
    rng = np.random.default_rng(0)
    expected = [*PLAYROOM.captions(4, rng).captions, *LAUNCHER.captions(4, rng).captions]
    assert batch.captions == expected
    assert batch.frames.shape == (8, 96, 96, 3)
    assert [len(captions) for captions in batch.captions] == [len(m) for m in batch.near_misses]
    assert len(source(5, rng).frames) == 5


def test_verbs_are_said_of_what_is_held_and_of_what_can_be_lifted() -> None:
    batch = PLAYROOM.captions(256, np.random.default_rng(0))
    kinds = {"held": 0, "beside": 0, "full hands": 0}
    for true, misses in zip(batch.captions, batch.near_misses, strict=True):
        held = {s for s in true if s.startswith("the person is holding the ")}
        beside = {s for s in true if s.startswith("the person is next to the ")}
        expected = {verb_sentence(s) for s in (held or beside)}
        assert {s for s in true if s.startswith("pick up")} == expected
        wrong = {s for group in misses for s in group}
        assert not wrong & set(true)
        assert not any(name in s for s in (*wrong, *true) for name in HELD_OUT_NAMES)
        kinds["held"] += bool(held)
        kinds["beside"] += bool(beside and not held)
        kinds["full hands"] += bool(beside and held)
    assert min(kinds.values()) > 3
    assert verb_sentence("the person is holding nothing") is None
    assert verb_sentence("the person is next to the red ball") == "pick up the red ball"
