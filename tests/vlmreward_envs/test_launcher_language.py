from dataclasses import replace

import pytest
import torch

from vlmreward_envs.launcher import (
    ALL_GOALS,
    APP_NAMES,
    APPS,
    COMMON_GOALS,
    LauncherConfig,
    LauncherPhones,
    LauncherState,
    describe,
    look_alikes,
    parse_goal,
)
from vlmreward_envs.launcher.language import (
    FOLDER_OPEN,
    NO_APP_OPEN,
    NO_POPUP,
    REGIONS,
    icon_sentence,
    open_sentence,
    page_sentence,
    popup_sentence,
    region_sentence,
)

CONFIG = LauncherConfig(popup_rate=0.03)


@pytest.fixture(scope="module")
def walked() -> LauncherState:
    phones = LauncherPhones(128, ALL_GOALS, config=CONFIG)
    phones.reset(torch.arange(128))
    generator = torch.Generator().manual_seed(0)
    for _ in range(6):
        phones.step(torch.randint(0, 12, (128,), generator=generator))
    return phones.state


def is_true(state: LauncherState, sentence: str) -> bool:
    """Whether a sentence holds on the one phone of a state, looked up without `describe`."""
    shown, app, popup = state.shown[0].tolist(), int(state.app), int(state.popup)
    for index, name in enumerate(APP_NAMES):
        if sentence == open_sentence(name):
            return app == index
        if sentence == icon_sentence(name):
            return index in shown
        if sentence == popup_sentence(name):
            return popup == index
        if sentence.startswith(f"the {name} icon is at the "):
            place = REGIONS.index(sentence.split(" at the ")[1])
            return shown[place] == index
    folder = int(state.open_folder) >= 0
    return {
        NO_APP_OPEN: app == -1,
        NO_POPUP: popup == -1,
        FOLDER_OPEN: folder,
        "no folder is open": not folder,
        page_sentence(0): app == -1 and int(state.page) == 0,
        page_sentence(1): app == -1 and int(state.page) == 1,
    }[sentence]


def test_goals_are_their_sentences() -> None:
    assert len(COMMON_GOALS) == 10
    assert [parse_goal(goal) for goal in ALL_GOALS] == list(range(60))
    assert parse_goal("  The MAIL app  is open") == APP_NAMES.index("Mail")
    with pytest.raises(ValueError, match="the Trains app is open"):
        parse_goal("the Train app is open")


def test_descriptions_are_true_and_near_misses_are_false(walked: LauncherState) -> None:
    seen = {"app": 0, "popup": 0, "folder": 0}
    for index, description in enumerate(describe(CONFIG, walked)):
        phone = walked[index : index + 1]
        seen["app"] += int(phone.app >= 0)
        seen["popup"] += int(phone.popup >= 0)
        seen["folder"] += int(phone.open_folder >= 0)
        assert len(set(description.true)) == len(description.true)
        for sentence, wrong in zip(description.true, description.near_misses, strict=True):
            assert is_true(phone, sentence), sentence
            assert wrong or CONFIG.num_pages == 1 or sentence == NO_POPUP or phone.app < 0
            for miss in wrong:
                assert not is_true(phone, miss), (sentence, miss)
    assert min(seen.values()) > 3


def test_what_is_not_listed_is_false(walked: LauncherState) -> None:
    grammar = [
        *ALL_GOALS,
        *map(icon_sentence, APP_NAMES),
        *map(popup_sentence, APP_NAMES),
        *(region_sentence(name, place) for name in APP_NAMES for place in range(9)),
        NO_APP_OPEN, NO_POPUP, FOLDER_OPEN, "no folder is open", page_sentence(0), page_sentence(1),
    ]  # fmt: skip
    for index, description in enumerate(describe(CONFIG, walked[:8])):
        phone = walked[index : index + 1]
        assert {s for s in grammar if is_true(phone, s)} == set(description.true)


def test_a_popup_about_the_open_app_is_no_near_miss_of_it() -> None:
    phones = LauncherPhones(1, "the Mail app is open", config=CONFIG)
    app = torch.tensor([5])
    (description,) = describe(CONFIG, replace(phones.state, app=app, popup=app))
    assert {ALL_GOALS[5], popup_sentence("Mail")} <= set(description.true)
    assert popup_sentence("Mail") not in sum(description.near_misses, ())
    assert ALL_GOALS[5] not in sum(description.near_misses, ())


def test_unnamed_apps_are_never_said_to_be_open_but_their_icons_are(walked: LauncherState) -> None:
    unnamed = {0, 7, 30}
    said = set()
    for description in describe(CONFIG, walked, unnamed):
        said |= {*description.true, *sum(description.near_misses, ())}
    assert not said & {ALL_GOALS[app] for app in unnamed}
    assert {icon_sentence(APP_NAMES[app]) for app in unnamed} <= said


def test_look_alikes_share_glyph_or_colour() -> None:
    for app in (0, 17, 59):
        mine = APPS[app]
        expected = [
            k
            for k, other in enumerate(APPS)
            if k != app and (other.glyph is mine.glyph or other.colour == mine.colour)
        ]
        assert list(look_alikes(app)) == expected
        assert sum(APPS[k].glyph is mine.glyph for k in expected) == 4
