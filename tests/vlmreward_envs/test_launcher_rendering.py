from dataclasses import replace

import pytest
import torch

from vlmreward_envs.launcher import ALL_GOALS, APPS, LauncherConfig, LauncherPhones
from vlmreward_envs.launcher.glyphs import Glyph, glyph_mask, text_mask, tile_mask
from vlmreward_envs.launcher.layout import PLACE_HEIGHT, PLACE_WIDTH, POPUP, STATUS_HEIGHT
from vlmreward_envs.launcher.themes import THEMES

NUM_THEMES = len(THEMES)


def phones_with(**values: torch.Tensor) -> LauncherPhones:
    """As many phones as there are values, all alike but for these."""
    number = len(next(iter(values.values())))
    phones = LauncherPhones(number, ALL_GOALS[0], config=LauncherConfig(popup_rate=0.0))
    phones.reset(torch.zeros(number, dtype=torch.int64))
    phones.state = replace(phones.state, **values)
    return phones


def all_differ(frames: torch.Tensor) -> bool:
    return len(frames.flatten(1).unique(dim=0)) == len(frames)


@pytest.mark.parametrize("theme", range(NUM_THEMES))
def test_no_two_apps_look_the_same_open_or_as_icons(theme: int) -> None:
    apps = torch.arange(len(APPS))
    themes = torch.full_like(apps, theme)
    assert all_differ(phones_with(app=apps, theme=themes).render())
    places = torch.full((len(APPS), 18), -1)
    places[:, 4] = apps
    frames = phones_with(places=places, theme=themes).render()
    assert all_differ(frames)
    label = STATUS_HEIGHT + PLACE_HEIGHT + 20
    if THEMES[theme].icons != "mono":
        assert all_differ(frames[:, :label])  # by the icon alone
    assert all_differ(frames[:, label:])  # by the label alone


def test_everything_that_can_change_shows() -> None:
    start = LauncherPhones(1, ALL_GOALS[0]).state
    open_folder = torch.tensor([0, 1, -1])
    assert all_differ(phones_with(open_folder=open_folder).render())
    assert all_differ(phones_with(page=torch.tensor([0, 1])).render())
    assert all_differ(phones_with(minute=torch.tensor([0, 59, 60, 1439])).render())
    assert all_differ(phones_with(light=torch.tensor([0, 128, 255])).render())
    assert all_differ(phones_with(theme=torch.arange(NUM_THEMES)).render())
    assert all_differ(phones_with(popup=torch.arange(-1, 60)).render())
    scrolled = phones_with(scroll=torch.tensor([0, 128]), app=torch.tensor([3, 3]))
    assert all_differ(scrolled.render())
    inside = torch.stack([start.folders[0], 59 - start.folders[0]])
    first = torch.zeros(2, dtype=torch.int64)
    assert all_differ(phones_with(folders=inside, open_folder=first).render())


def test_an_icon_is_drawn_where_it_is_tapped() -> None:
    empty = torch.full((10, 18), -1)
    for place in range(9):
        empty[place, place] = 0
    frames = phones_with(places=empty).render().int()
    for place in range(9):
        row, column = divmod(place, 3)
        changed = (frames[place] != frames[9]).any(dim=2)
        top, left = STATUS_HEIGHT + row * PLACE_HEIGHT, column * PLACE_WIDTH
        inside = changed[top : top + PLACE_HEIGHT, left : left + PLACE_WIDTH]
        assert int(inside.sum()) > 200
        assert int(changed.sum()) == int(inside.sum())


def test_a_popup_covers_its_part_of_the_screen_and_dims_the_rest() -> None:
    plain, covered = phones_with(popup=torch.tensor([-1, 12])).render().int()
    left, top, right, bottom = POPUP
    outside = torch.ones(96, 96, dtype=torch.bool)
    outside[top:bottom, left:right] = False
    assert bool((covered[outside] <= plain[outside]).all())
    assert float(covered[top:bottom, left:right].float().mean()) > 180


def test_an_open_app_is_told_by_its_title_bar_alone() -> None:
    apps = torch.arange(len(APPS))
    for theme in range(NUM_THEMES):
        frames = phones_with(app=apps, theme=torch.full_like(apps, theme)).render()
        assert all_differ(frames[:, STATUS_HEIGHT : STATUS_HEIGHT + 16])
    # Lists are counted on from the app: so these come out alike under every other title.
    offsets = (torch.tensor([7, 20, 41]) - apps[:, None]) % len(APPS)
    kept = (offsets > 0).all(dim=1)
    frames = phones_with(app=apps[kept], list_offsets=offsets[kept]).render()
    below = frames[:, STATUS_HEIGHT + 16 :]
    assert len(below) == 57
    assert len(below.flatten(1).unique(dim=0)) == 1


def test_an_app_lists_others_as_in_their_own_title_bars() -> None:
    offsets = torch.tensor([[1, 2, 3], [1, 2, 4]])
    first, second = phones_with(app=torch.tensor([5, 5]), list_offsets=offsets).render().int()
    rows, columns = (first != second).any(dim=2).nonzero().unbind(dim=1)
    assert len(rows) > 0
    assert int(rows.max() - rows.min()) < 16
    assert int(rows.min()) > 60
    titles = phones_with(app=torch.tensor([8, 9])).render()[:, STATUS_HEIGHT : STATUS_HEIGHT + 16]
    differ = (titles[0] != titles[1]).any(dim=2).nonzero()[:, 1]
    assert set(columns.tolist()) == set(differ.tolist())


def test_glyphs_and_tiles_differ_and_fill_their_square() -> None:
    masks = torch.stack([glyph_mask(glyph, 12) for glyph in Glyph])
    assert all_differ(masks)
    assert (masks.flatten(1).mean(dim=1) > 0.1).all()
    assert float(tile_mask(10, 0.0).min()) == 1.0
    assert abs(float(tile_mask(40, 1.0).mean()) - torch.pi / 4) < 0.01


def test_text_is_written_in_capitals_centred_and_must_fit() -> None:
    letters = "ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789:?"
    assert all_differ(torch.stack([text_mask(letter) for letter in letters]))
    assert torch.equal(text_mask("mail"), text_mask("MAIL"))
    centred = text_mask("I", 9)
    assert centred.shape == (5, 9)
    assert centred.sum(dim=0).nonzero()[:, 0].tolist() == [3, 4, 5]
    assert text_mask("A", scale=2).shape == (10, 8)
    with pytest.raises(ValueError, match="no \\['Ä'\\]"):
        text_mask("Ärger")
    with pytest.raises(ValueError, match="expected at most 6"):
        text_mask("AB", 6)
