"""What the experiments share about the Launcher: its frames with captions, and its goals."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from vlmreward import Goal
from vlmreward.pretraining import CaptionedFrames
from vlmreward_envs.description import Description
from vlmreward_envs.launcher import (
    APP_NAMES,
    LauncherConfig,
    LauncherRenderer,
    LauncherState,
    describe,
    look_alikes,
    reset_phones,
)
from vlmreward_envs.launcher.dynamics import NONE
from vlmreward_envs.launcher.language import NO_APP_OPEN

# Every fifth app, two of the common ten among them: they are in training frames as all others, open
# or not, but no sentence says in the Launcher's own words that one of them is open.
HELD_OUT_APPS = tuple(range(4, len(APP_NAMES), 5))
NAMED_APPS = tuple(app for app in range(len(APP_NAMES)) if app not in HELD_OUT_APPS)

STATE, OPEN, OPEN_THE, SCREENSHOT, SCREENSHOT_ON_ANDROID = (
    "the {} app is open",
    "Open {}",
    "Open the {} app",
    "Screenshot of {}",
    "Screenshot of {} on Android",
)
VERB_FORMS = (OPEN, OPEN_THE)
STATE_FORMS = (SCREENSHOT, SCREENSHOT_ON_ANDROID)
FORMS = {
    "state": STATE, "A": OPEN, "B": OPEN_THE, "C": SCREENSHOT, "D": SCREENSHOT_ON_ANDROID,
}  # fmt: skip
"""The Launcher's own sentence, and the four forms of Baumli et al. 2023."""
_NOTHING = {STATE: (NO_APP_OPEN,)}


def draw_phones(config: LauncherConfig, num_phones: int, rng: np.random.Generator) -> LauncherState:
    """Draw phones in which something happens.

    Half of them have an app open, a tenth a folder; the others show one of their home pages. Over a
    quarter lies a pop-up, half of them about an app with the icon's glyph or colour of what is open
    (or about any app, where none is).

    Args:
        config: What the phones have in common.
        num_phones: How many.
        rng: Random generator.
    """
    seeds = torch.from_numpy(rng.integers(2**62, size=num_phones))
    app = torch.from_numpy(rng.integers(len(APP_NAMES), size=num_phones))
    state = reset_phones(config, seeds, torch.zeros_like(seeds), app)
    kind = torch.from_numpy(rng.random(num_phones))
    page = torch.from_numpy(rng.integers(config.num_pages, size=num_phones))
    folder = torch.from_numpy(rng.integers(max(1, config.num_folders), size=num_phones))
    in_folder = (kind >= 0.5) & (kind < 0.6) & (config.num_folders > 0)
    app = torch.where(kind < 0.5, app, NONE)
    return replace(
        state,
        app=app,
        page=page,
        open_folder=torch.where(in_folder, folder, NONE),
        popup=_popups(app, rng),
    )


def _popups(app: Tensor, rng: np.random.Generator) -> Tensor:
    about = torch.from_numpy(rng.integers(len(APP_NAMES), size=len(app)))
    confusing = torch.tensor(
        [
            rng.choice(look_alikes(one)) if one != NONE and rng.random() < 0.5 else other
            for one, other in zip(app.tolist(), about.tolist(), strict=True)
        ]
    )
    return torch.where(torch.from_numpy(rng.random(len(app)) < 0.25), confusing, NONE)


class LauncherCaptions:
    """Draws captioned Launcher frames for pretraining; no sentence is a held-out app's goal.

    Beside `describe` they are said in the four forms of Baumli et al. 2023. "Screenshot of" is said
    of the open app, held out or not: so the goal of a held-out app is a new sentence about an app
    that is known. "Open" is said of the open app and of every icon on the screen, as people
    say it of both what has been done and what is to be done: what a verb says of a frame is
    ambiguous.
    """

    def __init__(self, config: LauncherConfig | None = None) -> None:
        self._config = config or LauncherConfig()
        self._renderer = LauncherRenderer(self._config.num_pages)

    def __call__(self, num_frames: int, rng: np.random.Generator) -> CaptionedFrames:
        """Draw a batch; see :class:`vlmreward.pretraining.CaptionSource`."""
        state = draw_phones(self._config, num_frames, rng)
        described = describe(self._config, state, HELD_OUT_APPS)
        said = [
            _say_more(*facts)
            for facts in zip(described, state.app.tolist(), state.shown.tolist(), strict=True)
        ]
        return CaptionedFrames(
            self._renderer(state),
            [one.true for one in said],
            [one.near_misses for one in said],
        )


def _say_more(description: Description, app: int, shown: list[int]) -> Description:
    """Add the forms that describe the open app, and that tell to open it or an icon."""
    icons = [what for what in shown if 0 <= what < len(APP_NAMES)]
    more: list[tuple[str, tuple[str, ...]]] = []
    if app != NONE:
        rivals = [APP_NAMES[k] for k in look_alikes(app)]
        more += [
            (form.format(APP_NAMES[app]), tuple(form.format(name) for name in rivals))
            for form in STATE_FORMS
        ]
    to_open = icons if app == NONE else [app]
    for target in to_open:
        rivals = [APP_NAMES[k] for k in look_alikes(target) if k not in to_open]
        more += [
            (form.format(APP_NAMES[target]), tuple(form.format(name) for name in rivals))
            for form in VERB_FORMS
        ]
    sentences, wrong = zip(*more, strict=True) if more else ((), ())
    return Description(description.true + sentences, description.near_misses + wrong)


def launcher_goals(form: str = STATE, apps: Sequence[int] | None = None) -> tuple[Goal, ...]:
    """Return a goal for each app, in a form of words, with its fixed negatives.

    They are the same form for every other app, as in Baumli et al. 2023, and for the Launcher's own
    sentence also the one that says that no app is open.

    Args:
        form: One of ``FORMS``' values.
        apps: Which apps have a goal; all by default.
    """
    sentences = [form.format(name) for name in APP_NAMES]
    chosen = range(len(sentences)) if apps is None else apps
    vocabulary = [*sentences, *_NOTHING.get(form, ())]
    return tuple(
        Goal(
            sentences[app], negative_prompts=[text for text in vocabulary if text != sentences[app]]
        )
        for app in chosen
    )
