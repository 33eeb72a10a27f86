"""The pictures on the environments' pages are what the environments draw.

Run this file as a script to draw them anew.
"""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from vlmreward_envs.adversarial_bandit import AdversarialBanditTasks, draw_arm_probabilities
from vlmreward_envs.dark_room import DARK_ROOM_HARD, DarkRoomTasks
from vlmreward_envs.grid import Move
from vlmreward_envs.key_to_door import DarkKeyToDoorTasks
from vlmreward_envs.launcher import ALL_GOALS, LauncherConfig, LauncherPhones
from vlmreward_envs.watermaze import WatermazeTasks

IMAGES = Path(__file__).resolve().parents[2] / "docs" / "images"
GAP = 12


def frame_after(tasks, *actions):
    for action in actions:
        tasks.advance(torch.tensor([int(action)]))
    return tasks.render()[0].numpy()


def side_by_side(*frames):
    gap = np.full((len(frames[0]), GAP, 3), 255, np.uint8)
    parts = [part for frame in frames for part in (frame, gap)]
    return np.concatenate(parts[:-1], axis=1)


def dark_room():
    plain = DarkRoomTasks(torch.tensor([6 * 9 + 6]))
    hard = DarkRoomTasks(torch.tensor([5 * 17 + 10]), DARK_ROOM_HARD)
    way = [*[Move.RIGHT] * 2, *[Move.UP] * 3]
    return side_by_side(
        frame_after(plain), frame_after(hard), frame_after(hard, *way, Move.RIGHT, Move.RIGHT)
    )


def key_to_door():
    task_id = (2 * 9 + 3) * 81 + 6 * 9 + 7
    tasks = DarkKeyToDoorTasks(torch.tensor([task_id]), torch.tensor([7]))
    return side_by_side(
        frame_after(tasks),
        frame_after(tasks, Move.DOWN, Move.DOWN, Move.RIGHT),
        frame_after(tasks, *[Move.DOWN] * 4, *[Move.RIGHT] * 4),
    )


def adversarial_bandit():
    frames = []
    for task_id, split, arm in ((3, "train", 7), (5, "train", 0), (3, "test", 9)):
        one = torch.tensor([task_id])
        tasks = AdversarialBanditTasks(one, one, draw_arm_probabilities(one, split))
        frames.append(frame_after(tasks, arm))
    return side_by_side(*frames)


def watermaze():
    """The map beside what the agent sees, three times as large: at the start, and on the way."""
    tasks = WatermazeTasks(torch.tensor([8]), torch.tensor([8]))
    frames = []
    for num_steps in (0, 10):
        for _ in range(num_steps):
            tasks.advance(tasks.optimal_actions())
        seen = np.kron(tasks.observe()[0].numpy(), np.ones((3, 3, 1), np.uint8))
        edge = ((224 - len(seen)) // 2,) * 2
        seen = np.pad(seen, (edge, (0, 0), (0, 0)), constant_values=255)
        frames += [tasks.render()[0].numpy(), seen]
    return side_by_side(*frames)


def launcher():
    """A home page, an open folder, an app, a pop-up over it: four phones, three times as large."""
    phones = LauncherPhones(4, ALL_GOALS, config=LauncherConfig(popup_rate=0.0))
    phones.reset(torch.tensor([1, 0, 3, 4]))
    nothing = torch.full((4,), -1)
    phones.state = replace(
        phones.state,
        theme=torch.tensor([2, 0, 1, 4]),
        light=torch.full((4,), 230),
        open_folder=nothing.scatter(0, torch.tensor([1]), 0),
        app=torch.tensor([-1, -1, 5, 20]),
        popup=torch.tensor([-1, -1, -1, 8]),
    )
    large = np.kron(phones.render().numpy(), np.ones((1, 3, 3, 1), np.uint8))
    return side_by_side(*large)


PICTURES = {
    "adversarial_bandit": adversarial_bandit,
    "dark_room": dark_room,
    "key_to_door": key_to_door,
    "launcher": launcher,
    "watermaze": watermaze,
}


@pytest.mark.parametrize("name", PICTURES)
def test_picture_is_what_is_drawn(name):
    with Image.open(IMAGES / f"{name}.png") as image:
        shown = np.asarray(image.convert("RGB"))
    # Sprites are blended in floating point: allow another machine a grey level.
    assert np.abs(shown.astype(int) - PICTURES[name]()).max() <= 1


@pytest.mark.parametrize("name", ["dark_room", "key_to_door", "watermaze"])
def test_pictures_of_many_tasks_are_those_of_each(name):
    if name == "dark_room":
        together = DarkRoomTasks(torch.arange(289), DARK_ROOM_HARD)
        alone = DarkRoomTasks(torch.tensor([77]), DARK_ROOM_HARD)
    elif name == "watermaze":
        together = WatermazeTasks(torch.arange(100), torch.arange(100))
        alone = WatermazeTasks(torch.tensor([77]), torch.tensor([77]))
    else:
        together = DarkKeyToDoorTasks(torch.arange(100), torch.arange(100))
        alone = DarkKeyToDoorTasks(torch.tensor([77]), torch.tensor([77]))
    frames = together.render()
    assert frames.shape[1:] == (224, 224, 3)
    assert torch.equal(frames[77], alone.render()[0])
    assert len({frame.numpy().tobytes() for frame in frames}) > 90


if __name__ == "__main__":
    for name, picture in PICTURES.items():
        Image.fromarray(picture()).save(IMAGES / f"{name}.png", optimize=True)
