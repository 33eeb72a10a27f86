from dataclasses import fields, replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from vlmreward_envs.launcher import (
    ALL_GOALS,
    APP_NAMES,
    APPS,
    COMMON_NAMES,
    ActionType,
    Gesture,
    LauncherConfig,
    LauncherPhones,
    LauncherState,
    TouchedPhones,
    optimal_gestures,
    reset_phones,
    step_phones,
)
from vlmreward_envs.launcher.gestures import positions
from vlmreward_envs.launcher.layout import POPUP_BUTTON, centre_of, place_at

QUIET = LauncherConfig(popup_rate=0.0)
MAIL, MAPS, CLOCK, RADIO, CHESS = (
    APP_NAMES.index(name) for name in ("Mail", "Maps", "Clock", "Radio", "Chess")
)
FOLDER = len(APPS)  # the first one


def a_phone(*pages: dict[int, int], folder: tuple[int, int, int] = (CLOCK, RADIO, CHESS)):
    """One phone by hand: what lies at which place of each page."""
    state = reset_phones(QUIET, torch.tensor([0]), torch.tensor([0]))
    places = torch.full((1, 18), -1)
    for page, contents in enumerate(pages):
        for place, content in contents.items():
            places[0, 9 * page + place] = content
    folders = state.folders.clone()
    folders[0, 0] = torch.tensor(folder)
    return replace(state, places=places, folders=folders)


def touch(state: LauncherState, *steps: tuple[ActionType, tuple[float, float]]) -> LauncherState:
    for kind, position in steps:
        state = step_phones(QUIET, state, torch.tensor([int(kind)]), torch.tensor([position]))
    return state


def gesture(state: LauncherState, *gestures: Gesture) -> LauncherState:
    for one in gestures:
        down, moved, _ = positions(torch.tensor([int(one)]))
        state = touch(
            state,
            (ActionType.TOUCH, tuple(down[0].tolist())),
            (ActionType.TOUCH, tuple(moved[0].tolist())),
            (ActionType.LIFT, (0.0, 0.0)),
        )
    return state


def test_sixty_apps_ten_of_them_common_no_two_alike() -> None:
    assert len(APPS) == 60
    assert APP_NAMES[:10] == COMMON_NAMES
    assert len(set(APP_NAMES)) == 60
    assert len({(app.glyph, app.colour) for app in APPS}) == 60


def test_a_tap_opens_an_app_when_the_finger_is_lifted() -> None:
    down = touch(a_phone({4: MAIL}), (ActionType.TOUCH, centre_of(4)))
    assert down.app.tolist() == [-1]
    assert touch(down, (ActionType.REPEAT, (0.0, 0.0))).app.tolist() == [-1]
    assert touch(down, (ActionType.LIFT, (0.0, 0.0))).app.tolist() == [MAIL]


def test_lifting_a_finger_that_is_not_down_does_nothing() -> None:
    phone = a_phone({4: MAIL})
    lifted = touch(phone, (ActionType.LIFT, centre_of(4)))
    assert lifted.app.tolist() == [-1]
    assert not lifted.is_touched.any()


def test_a_tap_on_an_empty_place_or_below_the_places_does_nothing() -> None:
    phone = a_phone({4: MAIL})
    assert gesture(phone, Gesture.TAP_TOP_LEFT).app.tolist() == [-1]
    for position in ((0.5, 0.02), (0.5, 0.97)):
        tapped = touch(phone, (ActionType.TOUCH, position), (ActionType.LIFT, position))
        assert tapped.app.tolist() == [-1]


def test_pages_turn_and_stop_at_both_ends() -> None:
    phone = a_phone({0: MAIL}, {0: MAPS})
    assert gesture(phone, Gesture.SWIPE_RIGHT).page.tolist() == [0]
    second = gesture(phone, Gesture.SWIPE_LEFT)
    assert second.page.tolist() == [1]
    assert gesture(second, Gesture.SWIPE_LEFT).page.tolist() == [1]
    assert gesture(second, Gesture.TAP_TOP_LEFT).app.tolist() == [MAPS]
    assert gesture(second, Gesture.SWIPE_RIGHT, Gesture.TAP_TOP_LEFT).app.tolist() == [MAIL]


def test_inside_an_app_only_a_swipe_upwards_does_something() -> None:
    inside = gesture(a_phone({0: MAIL}, {0: MAPS}), Gesture.SWIPE_LEFT, Gesture.TAP_TOP_LEFT)
    for other in Gesture:
        state = gesture(inside, other)
        assert state.app.tolist() == [-1 if other is Gesture.SWIPE_UP else MAPS]
        assert state.page.tolist() == [1]


def test_a_folder_opens_over_the_page_and_its_apps_lie_in_the_middle_row() -> None:
    opened = gesture(a_phone({0: FOLDER, 1: MAIL}), Gesture.TAP_TOP_LEFT)
    assert opened.open_folder.tolist() == [0]
    assert opened.shown.tolist() == [[-1, -1, -1, CLOCK, RADIO, CHESS, -1, -1, -1]]
    inside = gesture(opened, Gesture.TAP_MIDDLE_CENTRE)
    assert (inside.app.tolist(), inside.open_folder.tolist()) == ([RADIO], [-1])
    for closes in (Gesture.TAP_TOP_CENTRE, Gesture.SWIPE_UP):
        closed = gesture(opened, closes)
        assert (closed.open_folder.tolist(), closed.app.tolist()) == ([-1], [-1])
    assert gesture(opened, Gesture.SWIPE_LEFT).page.tolist() == [0]


def test_a_popup_lets_through_nothing_but_its_button() -> None:
    phone = replace(a_phone({0: MAIL, 7: MAPS}, {}), popup=torch.tensor([CHESS]))
    for other in Gesture:
        state = gesture(phone, other)
        assert state.app.tolist() == [-1]
        assert state.page.tolist() == [0]
        assert state.popup.tolist() == [-1 if other is Gesture.TAP_BOTTOM_CENTRE else CHESS]
    inside = replace(phone, app=torch.tensor([MAIL]))
    assert gesture(inside, Gesture.SWIPE_UP).app.tolist() == [MAIL]
    left, top, right, bottom = POPUP_BUTTON
    x, y = centre_of(7)
    assert left < x < right
    assert top < y < bottom


def test_popups_appear_at_their_rate_about_any_app() -> None:
    config = LauncherConfig(popup_rate=0.2)
    state = reset_phones(config, torch.arange(2000), torch.zeros(2000, dtype=torch.int64))
    lifts = torch.full((2000,), int(ActionType.LIFT))
    state = step_phones(config, state, lifts, torch.zeros(2000, 2))
    share = float((state.popup >= 0).float().mean())
    assert abs(share - 0.2) < 4 * (0.2 * 0.8 / 2000) ** 0.5
    assert len(state.popup.unique()) == 61
    assert int(state.popup.max()) == 59


def test_gestures_are_three_touches() -> None:
    goals = list(ALL_GOALS[:3])
    config = LauncherConfig(popup_rate=0.1)
    phones = LauncherPhones(8, goals, config=config)
    touched = TouchedPhones(8, goals, config=config)
    for batch in (phones, touched):
        batch.reset(torch.arange(8))
    generator = torch.Generator().manual_seed(0)
    for _ in range(20):
        actions = torch.randint(0, len(Gesture), (8,), generator=generator)
        phones.step(actions)
        for kind, position in zip((0, 0, 1), positions(actions), strict=True):
            touched.step(torch.cat((torch.full((8, 1), float(kind)), position), dim=1))
        for field in fields(LauncherState):
            mine, theirs = getattr(phones.state, field.name), getattr(touched.state, field.name)
            assert torch.equal(mine, theirs), field.name


def test_places_tile_the_screen() -> None:
    for place in range(9):
        assert place_at(torch.tensor([centre_of(place)])).tolist() == [place]
    corners = torch.tensor([[0.0, 0.0], [1.0, 1.0], [1.0, 0.1]])
    assert place_at(corners).tolist() == [-1, -1, 2]


@given(
    seed=st.integers(0, 2**62 - 1),
    config=st.sampled_from(
        [
            LauncherConfig(),
            LauncherConfig(1, 5, 0),
            LauncherConfig(3, 20, 4),
            LauncherConfig(1, 12, 3),
        ]
    ),
)
def test_every_app_of_a_phone_can_be_reached(seed: int, config: LauncherConfig) -> None:
    required = torch.tensor([seed % 60, 0])
    seeds = torch.tensor([seed, seed + 1])
    state = reset_phones(config, seeds, torch.zeros_like(seeds), required)
    for phone in range(2):
        contents = [c for c in state.places[phone].tolist() if c >= 0]
        outside = [c for c in contents if c < 60]
        inside = state.folders[phone].flatten().tolist()
        assert sorted(c - 60 for c in contents if c >= 60) == list(range(config.num_folders))
        assert len(set(outside + inside)) == config.num_apps
        assert int(required[phone]) in outside + inside


@pytest.mark.parametrize("config", [QUIET, LauncherConfig(3, 29, 4, popup_rate=0.0)])
def test_the_oracle_turns_pages_opens_the_folder_and_taps(config: LauncherConfig) -> None:
    phones = LauncherPhones(120, ALL_GOALS, config=config)
    phones.reset(torch.arange(120))
    inside = (phones.state.folders == phones.goal[:, None, None]).any(dim=2)
    wanted = torch.where(inside.any(dim=1), FOLDER + inside.int().argmax(dim=1), phones.goal)
    page = (phones.state.places == wanted[:, None]).int().argmax(dim=1) // 9
    steps = torch.zeros(120, dtype=torch.int64)
    for _ in range(8):
        steps += ~phones.success
        phones.step(optimal_gestures(phones.state, phones.goal))
    assert phones.success.all()
    assert torch.equal(steps, page + inside.any(dim=1).long() + 1)


def test_the_oracle_gets_past_popups() -> None:
    phones = LauncherPhones(120, ALL_GOALS, config=LauncherConfig(popup_rate=0.1))
    phones.reset(torch.arange(120))
    for _ in range(30):
        phones.step(optimal_gestures(phones.state, phones.goal))
    assert phones.success.all()


def test_the_oracle_leaves_other_apps_and_folders() -> None:
    phone = a_phone({0: FOLDER, 4: MAIL, 5: MAPS})
    mail = torch.tensor([MAIL])
    for lost in (
        replace(phone, app=torch.tensor([MAPS])),
        replace(phone, open_folder=torch.tensor([0])),
    ):
        assert optimal_gestures(lost, mail).tolist() == [int(Gesture.SWIPE_UP)]
    radio = torch.tensor([RADIO])
    opened = replace(phone, open_folder=torch.tensor([0]))
    assert optimal_gestures(opened, radio).tolist() == [int(Gesture.TAP_MIDDLE_CENTRE)]
    assert optimal_gestures(phone, radio).tolist() == [int(Gesture.TAP_TOP_LEFT)]


def test_a_phone_is_the_same_alone_and_among_others() -> None:
    many, one = LauncherPhones(16, ALL_GOALS), LauncherPhones(1, ALL_GOALS)
    many.reset(torch.arange(16))
    one.reset(torch.tensor([11]))
    actions = torch.randint(0, 12, (30, 16), generator=torch.Generator().manual_seed(0))
    for action in actions:
        many.step(action)
        one.step(action[11:12])
    for field in fields(LauncherState):
        mine, theirs = getattr(one.state, field.name), getattr(many.state, field.name)
        assert torch.equal(mine[0], theirs[11]), field.name
    assert torch.equal(one.render()[0], many.render()[11])


def test_a_fixed_phone_is_kept_and_its_popups_are_not() -> None:
    config = LauncherConfig(fixed_phone=True, popup_rate=0.5)
    phones = LauncherPhones(32, "the Mail app is open", config=config)
    phones.reset(torch.arange(32))
    first, popups = phones.state, []
    for _ in range(2):
        phones.step(torch.zeros(32, dtype=torch.int64))
        popups.append(phones.state.popup)
        phones.reset()
    assert torch.equal(first.places, phones.state.places)
    assert torch.equal(first.theme, phones.state.theme)
    assert not torch.equal(*popups)


def test_the_goal_is_the_foreground_app() -> None:
    phones = LauncherPhones(3, ["the Mail app is open"], terminate_on_success=True)
    apps = torch.tensor([MAIL, MAPS, -1])
    phones.state = replace(phones.state, app=apps)
    assert phones.success.tolist() == [True, False, False]
    phones.state = replace(phones.state, popup=torch.tensor([MAPS, MAIL, MAIL]))
    assert phones.success.tolist() == [True, False, False]
    step = phones.step(torch.zeros(3, dtype=torch.int64))
    assert step.env_reward.tolist() == [1.0, 0.0, 0.0]
    assert step.terminated.tolist() == [True, False, False]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: LauncherConfig(num_pages=0), "num_pages=0"),
        (lambda: LauncherConfig(popup_rate=1.5), "popup_rate"),
        (lambda: LauncherConfig(num_apps=5), r"num_apps must be in 6\.\.22"),
        (lambda: LauncherConfig(1, 10, 0), r"num_apps must be in 1\.\.9"),
        (lambda: LauncherPhones(0), "got a batch of 0"),
        (lambda: LauncherPhones(1, []), "no goals"),
        (lambda: LauncherPhones(1, "the Male app is open"), "the Mail app is open"),
    ],
)
def test_bad_settings_are_named(make: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()  # type: ignore[operator]
