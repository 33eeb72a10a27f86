"""Draw what every head, and every timing, pays along one episode of the Playroom.

    python experiments/reward_heads.py

A person walks to the red ball, lifts it, carries it, and puts it down. Writes
``docs/images/heads.png``, the picture of `docs/heads.md`.
"""

from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from plots import BLUE, GREEN, GREY, drawing, png
from run_folder import write_atomically
from vlmreward import (
    ContrastHead,
    CosineHead,
    Goal,
    GoalBaselineHead,
    Head,
    OpenCLIPEncoder,
    RewardModel,
    RewardTiming,
    SigmoidHead,
    SoftmaxHead,
    ThresholdHead,
    load_encoder,
)
from vlmreward.reward_stream import RewardStream
from vlmreward_envs.playroom import Action, Family, PlayroomConfig, PlayroomRooms, all_goals
from vlmreward_envs.playroom.language import HOLDING_NOTHING

GOAL = "the person is holding the red ball"
PICTURE = Path(__file__).resolve().parents[1] / "docs" / "images" / "heads.png"
NUM_STEPS = 26
STEPS_IN_HAND = 9


def main() -> None:
    """Draw the picture."""
    torch.set_num_threads(2)
    encoder = load_encoder("playroom", device="cpu")
    frames, reached = walk()
    sentences = [goal.sentence for goal in all_goals(Family.LIFT)]
    others = [sentence for sentence in sentences if sentence != GOAL]
    goal = Goal(GOAL, [*others, HOLDING_NOTHING], baseline_prompts=[HOLDING_NOTHING])
    drawn = {
        title: pay(encoder, goal, frames, head, timing)
        for title, head, timing in choices(encoder, goal, frames)
    }
    write_atomically(PICTURE, draw(frames, reached, drawn))
    print(PICTURE)


def choices(
    encoder: OpenCLIPEncoder, goal: Goal, frames: NDArray[np.uint8]
) -> list[tuple[str, Head, RewardTiming]]:
    """Return the heads and timings to draw, by their titles."""
    every = RewardTiming()
    softmax = SoftmaxHead(1 / encoder.logit_scale)
    # This CLIP was trained with a softmax and has no bias of its own: half way, for the picture.
    cosines = RewardModel(encoder, goal, CosineHead()).score(frames).score
    middle = float(cosines.max() + cosines.min()) / 2
    sigmoid = SigmoidHead(encoder.logit_scale, -encoder.logit_scale * middle)
    return [
        ("CosineHead", CosineHead(), every),
        ("SoftmaxHead", softmax, every),
        ("ThresholdHead(SoftmaxHead)", ThresholdHead(softmax, 0.3), every),
        ("GoalBaselineHead(0.5)", GoalBaselineHead(0.5), every),
        ("ContrastHead", ContrastHead(), every),
        ("SigmoidHead", sigmoid, every),
        ("CosineHead, window=4", CosineHead(), RewardTiming(window=4)),
        ("CosineHead, discount=0.95", CosineHead(), RewardTiming(discount=0.95)),
        ("SoftmaxHead, score_every=4", softmax, RewardTiming(score_every=4)),
    ]


def walk() -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
    """Return the frames of the episode, the reset's first, and where the goal is true."""
    rooms = PlayroomRooms(1, GOAL, config=PlayroomConfig(num_objects=4))
    rooms.reset(torch.tensor([5]))
    frames, reached = [rooms.render()[0].numpy()], [bool(rooms.success[0])]
    kind = int(rooms.goal[0, 1])
    in_hand = 0
    for _ in range(NUM_STEPS):
        ball = int((rooms.state.object_kind[0] == kind).nonzero()[0])
        away = (rooms.state.object_cell[0, ball] - rooms.state.position[0]).tolist()
        action = towards(away)
        if bool(rooms.success[0]):
            in_hand += 1
            carried = Action.LEFT if in_hand % 2 else Action.RIGHT
            action = Action.PUT_DOWN if in_hand > STEPS_IN_HAND else carried
        elif in_hand:
            action = Action.STAY
        rooms.step(torch.tensor([int(action)]))
        frames.append(rooms.render()[0].numpy())
        reached.append(bool(rooms.success[0]))
    return np.stack(frames), np.array(reached)


def towards(away: list[int]) -> Action:
    """Return the step that leads to an object, or that picks it up where it is beside."""
    x, y = away
    if abs(x) + abs(y) == 1:
        return Action.PICK_UP
    if abs(x) >= abs(y):
        return Action.RIGHT if x > 0 else Action.LEFT
    return Action.DOWN if y > 0 else Action.UP


def pay(
    encoder: OpenCLIPEncoder,
    goal: Goal,
    frames: NDArray[np.uint8],
    head: Head,
    timing: RewardTiming,
) -> NDArray[np.float32]:
    """Return the reward of every step."""
    stream = RewardStream(RewardModel(encoder, goal, head, timing), num_envs=1)
    stream.start([0], {"pixels": frames[:1]})
    last = len(frames) - 1
    paid = [
        stream.step({"pixels": frames[step : step + 1]}, truncated=[step == last]).reward[0]
        for step in range(1, len(frames))
    ]
    return np.array(paid)


def draw(
    frames: NDArray[np.uint8], reached: NDArray[np.bool_], drawn: dict[str, NDArray[np.float32]]
) -> bytes:
    """Return the picture: a film strip over one small plot per head."""
    steps = np.arange(1, len(frames))
    shown = np.linspace(0, len(frames) - 1, 9).round().astype(int)
    with drawing((9.6, 7.4)) as figure:
        rows = -(-len(drawn) // 3)
        grid = figure.add_gridspec(1 + rows, 1, height_ratios=[0.8] + [1.0] * rows, hspace=0.65)
        strip = grid[0].subgridspec(1, len(shown), wspace=0.1)
        for column, step in enumerate(shown):
            axes = figure.add_subplot(strip[column])
            axes.imshow(frames[step], interpolation="nearest")
            axes.set(xticks=[], yticks=[])
            axes.set_title(str(step), fontsize=9, fontweight="normal", loc="center", pad=3)
            for spine in axes.spines.values():
                spine.set(visible=True, color=GREEN if reached[step] else GREY, linewidth=2)
        for number, (title, paid) in enumerate(drawn.items()):
            cells = grid[1 + number // 3].subgridspec(1, 3, wspace=0.32)
            axes = figure.add_subplot(cells[number % 3])
            axes.fill_between(
                steps, 0, 1, where=reached[1:], step="mid", color=GREEN, alpha=0.15,
                transform=axes.get_xaxis_transform(),
            )  # fmt: skip
            axes.plot(steps, paid, color=BLUE, drawstyle="steps-mid")
            axes.set_title(title, fontsize=9)
            if number >= len(drawn) - 3:
                axes.set_xlabel("step")
        return png(figure)


if __name__ == "__main__":
    main()
