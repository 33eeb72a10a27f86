"""The words of the Launcher: sentences about what a screen shows, and the goals among them.

A goal *is* its sentence, that an app is open: environments take it as a string.
"""

import difflib

from vlmreward_envs.launcher.apps import APP_NAMES, COMMON_NAMES

NO_APP_OPEN = "no app is open"
FOLDER_OPEN = "a folder is open"
NO_FOLDER_OPEN = "no folder is open"
NO_POPUP = "there is no pop-up"
REGIONS = tuple(
    f"{row} {column}"
    for row in ("top", "middle", "bottom")
    for column in ("left", "centre", "right")
)
"""Names of the places of a page."""


def open_sentence(name: str) -> str:
    """Return the sentence that holds while the app is in the foreground."""
    return f"the {name} app is open"


def icon_sentence(name: str) -> str:
    """Return the sentence that holds while the app's icon can be tapped."""
    return f"the {name} icon is on the screen"


def region_sentence(name: str, place: int) -> str:
    """Return the sentence that says where the app's icon is."""
    return f"the {name} icon is at the {REGIONS[place]}"


def popup_sentence(name: str) -> str:
    """Return the sentence that holds while a pop-up advertises the app."""
    return f"a pop-up advertises {name}"


def page_sentence(page: int) -> str:
    """Return the sentence that says which home page is in front, ``page`` counted from 0."""
    return f"home page {page + 1} is in front"


COMMON_GOALS = tuple(open_sentence(name) for name in COMMON_NAMES)
"""Opening one of ten common apps, as Baumli et al. 2023 trained on."""
ALL_GOALS = tuple(open_sentence(name) for name in APP_NAMES)
"""These and fifty more."""


def parse_goal(sentence: str) -> int:
    """Return the number of the app that a goal is about.

    Raises:
        ValueError: The sentence is not one of the goals; the nearest ones are named.

    Example:
        >>> parse_goal("the Mail app is open")
        5
    """
    words = " ".join(sentence.lower().split())
    known = {goal.lower(): index for index, goal in enumerate(ALL_GOALS)}
    if words not in known:
        near = [ALL_GOALS[known[goal]] for goal in difflib.get_close_matches(words, known)]
        raise ValueError(f"got the goal {sentence!r}; expected one like {near or ALL_GOALS[0]!r}")
    return known[words]
