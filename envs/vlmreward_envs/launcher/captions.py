"""Describes Launcher states in words: true sentences, and false ones that are nearly true.

This is the training and evaluation text of CLIPs for the Launcher. Every true sentence of the
grammar is listed, so that "not listed" means "false". Near misses name another app with the same
glyph or colour, another place, or take an icon or a pop-up for the app itself.
"""

import functools
from collections.abc import Collection
from dataclasses import dataclass

from vlmreward_envs.description import Description
from vlmreward_envs.launcher.apps import APP_NAMES, APPS
from vlmreward_envs.launcher.dynamics import NONE, LauncherConfig, LauncherState
from vlmreward_envs.launcher.language import (
    FOLDER_OPEN,
    NO_APP_OPEN,
    NO_FOLDER_OPEN,
    NO_POPUP,
    icon_sentence,
    open_sentence,
    page_sentence,
    popup_sentence,
    region_sentence,
)
from vlmreward_envs.launcher.layout import PLACES_PER_PAGE


@dataclass(frozen=True)
class _Facts:
    """One screen: the app in front, where icons are, what pops up (-1: nothing), and so on."""

    app: int
    icons: dict[int, int]
    popup: int
    page: int
    folder: int
    listed: tuple[int, ...]


def describe(
    config: LauncherConfig, state: LauncherState, unnamed_apps: Collection[int] = ()
) -> list[Description]:
    """Describe every screen of a batch, one description each.

    What a pop-up hides is still described: it is over the screen, not instead of it.

    Args:
        config: What the phones have in common.
        state: The phones.
        unnamed_apps: Apps of which no sentence says, true or false, that they are open: what is
            held out of a training text. Sentences about their icons and pop-ups remain.
    """
    unnamed = frozenset(unnamed_apps)
    return [_describe_screen(facts, config.num_pages, unnamed) for facts in _facts(state)]


def _facts(state: LauncherState) -> list[_Facts]:
    columns = (state.app, state.popup, state.page, state.open_folder)
    return [
        _Facts(
            app=app,
            icons={what: place for place, what in enumerate(shown) if 0 <= what < len(APPS)},
            popup=popup,
            page=page,
            folder=folder,
            listed=tuple(listed),
        )
        for shown, listed, app, popup, page, folder in zip(
            state.shown.tolist(),
            state.listed.tolist(),
            *(column.tolist() for column in columns),
            strict=True,
        )
    ]


@functools.cache
def look_alikes(app: int) -> tuple[int, ...]:
    """Return the apps whose icons have the same glyph or the same colour."""
    mine = APPS[app]
    return tuple(
        index
        for index, other in enumerate(APPS)
        if index != app and (other.glyph == mine.glyph or other.colour == mine.colour)
    )


def _describe_screen(facts: _Facts, num_pages: int, unnamed: frozenset[int]) -> Description:
    true: list[str] = []
    near_misses: list[tuple[str, ...]] = []

    def say(sentence: str, wrong: list[str]) -> None:
        true.append(sentence)
        near_misses.append(tuple(wrong))

    def opened(apps: Collection[int]) -> list[str]:
        """Say of apps that are not open that they are."""
        return [open_sentence(APP_NAMES[k]) for k in apps if k not in unnamed and k != facts.app]

    rivals = [facts.popup] if facts.popup != NONE else []
    if facts.app == NONE:
        say(NO_APP_OPEN, opened([*facts.icons, *rivals]))
        say(page_sentence(facts.page), [
            page_sentence(page) for page in range(num_pages) if page != facts.page
        ])  # fmt: skip
    elif facts.app not in unnamed:
        name = APP_NAMES[facts.app]
        wrong = opened(dict.fromkeys([*rivals, *facts.listed, *look_alikes(facts.app)]))
        if facts.popup != facts.app:
            wrong.append(popup_sentence(name))
        say(open_sentence(name), [*wrong, NO_APP_OPEN, icon_sentence(name)])
    for app, place in facts.icons.items():
        name = APP_NAMES[app]
        others = [APP_NAMES[k] for k in look_alikes(app) if k not in facts.icons]
        say(icon_sentence(name), [*opened([app]), *map(icon_sentence, others)])
        elsewhere = [p for p in range(PLACES_PER_PAGE) if p != place]
        say(region_sentence(name, place), [region_sentence(name, p) for p in elsewhere])
    if facts.folder != NONE:
        say(FOLDER_OPEN, [NO_FOLDER_OPEN])
    else:
        say(NO_FOLDER_OPEN, [FOLDER_OPEN])
    if facts.popup != NONE:
        name = APP_NAMES[facts.popup]
        others = [APP_NAMES[k] for k in look_alikes(facts.popup)]
        say(popup_sentence(name), [NO_POPUP, *opened([facts.popup]), *map(popup_sentence, others)])
    else:
        seen = [facts.app] if facts.app != NONE else list(facts.icons)
        say(NO_POPUP, [popup_sentence(APP_NAMES[k]) for k in seen])
    return Description(tuple(true), tuple(near_misses))
