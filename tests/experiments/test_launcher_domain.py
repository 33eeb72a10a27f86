import numpy as np
import pytest
import torch

import launcher_domain
from launcher_domain import (
    FORMS,
    HELD_OUT_APPS,
    NAMED_APPS,
    LauncherCaptions,
    draw_phones,
    launcher_goals,
)
from vlmreward_envs.launcher import APP_NAMES, COMMON_NAMES, LauncherConfig, LauncherState
from vlmreward_envs.launcher.language import NO_APP_OPEN, icon_sentence, open_sentence


def test_two_common_apps_and_ten_others_are_held_out() -> None:
    names = [APP_NAMES[app] for app in HELD_OUT_APPS]
    assert len(set(names) & set(COMMON_NAMES)) == 2
    assert len(names) == 12
    assert sorted((*HELD_OUT_APPS, *NAMED_APPS)) == list(range(60))


def test_held_out_apps_are_open_too_and_never_said_so_in_the_words_of_their_goals() -> None:
    source = LauncherCaptions()
    said: set[str] = set()
    for seed in range(12):
        batch = source(64, np.random.default_rng(seed))
        said |= {text for frame in batch.captions for text in frame}
        said |= {text for frame in batch.near_misses for group in frame for text in group}
    for app in HELD_OUT_APPS:
        name = APP_NAMES[app]
        assert icon_sentence(name) in said
        assert FORMS["C"].format(name) in said
        assert FORMS["state"].format(name) not in said
    assert {FORMS["state"].format(APP_NAMES[app]) for app in NAMED_APPS} <= said


def test_screenshots_are_of_the_open_app_and_verbs_of_icons_too(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    states: list[LauncherState] = []
    draw = launcher_domain.draw_phones
    monkeypatch.setattr(
        launcher_domain, "draw_phones", lambda *args: states.append(draw(*args)) or states[-1]
    )
    batch = LauncherCaptions()(64, np.random.default_rng(0))
    (state,) = states
    for phone in range(64):
        app = int(state.app[phone])
        icons = [what for what in state.shown[phone].tolist() if 0 <= what < 60]
        can_be_opened = icons if app == -1 else [app]
        true = set(batch.captions[phone])
        for index, name in enumerate(APP_NAMES):
            assert (FORMS["C"].format(name) in true) == (index == app)
            assert (FORMS["D"].format(name) in true) == (index == app)
            assert (FORMS["A"].format(name) in true) == (index in can_be_opened)
            assert (FORMS["B"].format(name) in true) == (index in can_be_opened)
        wrong = {text for group in batch.near_misses[phone] for text in group}
        assert not wrong & true


def test_same_generator_state_same_batch() -> None:
    first, second = (LauncherCaptions()(16, np.random.default_rng(3)) for _ in range(2))
    assert torch.equal(first.frames, second.frames)
    assert first.captions == second.captions


def test_drawn_phones_are_eventful() -> None:
    state = draw_phones(LauncherConfig(), 2000, np.random.default_rng(0))
    assert 0.45 < float((state.app >= 0).float().mean()) < 0.55
    assert 0.07 < float((state.open_folder >= 0).float().mean()) < 0.13
    assert 0.2 < float((state.popup >= 0).float().mean()) < 0.3
    assert set(state.page.tolist()) == {0, 1}
    assert not ((state.app >= 0) & (state.open_folder >= 0)).any()


def test_goals_have_all_others_of_their_form_as_negatives() -> None:
    for form in FORMS.values():
        goals = launcher_goals(form)
        assert len(goals) == 60
        for goal in goals:
            assert goal.prompts[0] not in goal.negative_prompts
            assert {form.format(name) for name in APP_NAMES} - set(goal.prompts) <= set(
                goal.negative_prompts
            )
    assert [goal.prompts[0] for goal in launcher_goals()] == list(map(open_sentence, APP_NAMES))
    assert NO_APP_OPEN in launcher_goals()[0].negative_prompts
    assert [goal.prompts[0] for goal in launcher_goals(apps=[3])] == ["the Contacts app is open"]
