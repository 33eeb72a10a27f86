"""What the pictures of heads are drawn from: one episode of the Playroom, and labelled frames.

Shapes: T steps of the episode, N labelled frames.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache, cached_property

import numpy as np
import torch
from jaxtyping import Bool, Float, UInt8

from playroom_domain import draw_states, family_goals
from vlmreward import (
    CosineHead,
    Goal,
    Head,
    ImageTextEncoder,
    RewardModel,
    RewardTiming,
    load_encoder,
)
from vlmreward.encoders import CachedEncoder
from vlmreward.heads import Similarities
from vlmreward.reward_stream import RewardStream
from vlmreward_envs.playroom import (
    Action,
    PlayroomConfig,
    PlayroomRenderer,
    PlayroomRooms,
    goal_reached,
    parse_goal,
)
from vlmreward_envs.playroom.dynamics import goal_tensor

HOLDING = "the person is holding the red ball"
BESIDE = "the person is next to the red ball"
NUM_STEPS = 26
STEPS_IN_HAND = 9


@dataclass(frozen=True)
class Labelled:
    """Frames of many rooms, and where a goal is true."""

    frames: UInt8[np.ndarray, "N H W 3"]
    labels: Bool[np.ndarray, " N"]


@dataclass(frozen=True)
class Bench:
    """An encoder, an episode in which a ball is lifted and put down, and labelled frames.

    Attributes:
        encoder: Best one that remembers, since every picture looks at the same frames.
        num_frames: N, for each goal.
    """

    encoder: ImageTextEncoder
    num_frames: int

    @cached_property
    def episode(self) -> Labelled:
        """The frames of the episode, the reset's first, and where `HOLDING` is true."""
        return walk()

    def along(
        self, goal: Goal, head: Head, timing: RewardTiming | None = None
    ) -> Float[np.ndarray, " T"]:
        """Return what every step of the episode pays."""
        return pay(RewardModel(self.encoder, goal, head, timing), self.episode.frames)

    def labelled(self, sentence: str, seed: int = 0) -> Labelled:
        """Draw rooms that hold the objects of a goal; see `playroom_domain.draw_states`."""
        goal, config = parse_goal(sentence), PlayroomConfig()
        kinds = torch.tensor([goal.kinds]).repeat(self.num_frames, 1)
        state = draw_states(config, self.num_frames, np.random.default_rng(seed), kinds)
        rows = goal_tensor([goal], torch.device("cpu")).repeat(self.num_frames, 1)
        return Labelled(PlayroomRenderer(config)(state).numpy(), goal_reached(state, rows).numpy())

    def similarities(self, goal: Goal, frames: UInt8[np.ndarray, "N H W 3"]) -> Similarities:
        """Return the cosines that any head starts from."""
        return RewardModel(self.encoder, goal, CosineHead()).similarities(frames)


def playroom_encoder() -> CachedEncoder:
    """Load the encoder that ships, with a memory of frames."""
    return CachedEncoder(load_encoder("playroom", device="cpu"))


@cache
def goal_of(sentence: str) -> Goal:
    """Return a goal to find or lift something, with all that a head may need.

    Its negatives are all other sentences of its family and, last, the one that says "nothing";
    that one is its baseline too.
    """
    parsed = parse_goal(sentence)
    goal = family_goals(parsed.family, np.random.default_rng(0))[parsed.kind]
    nothing = goal.negative_prompts[-1]
    return Goal(sentence, goal.negative_prompts, baseline_prompts=nothing)


def walk() -> Labelled:
    """Walk to the red ball, lift it, carry it, put it down, and stay."""
    rooms = PlayroomRooms(1, HOLDING, config=PlayroomConfig(num_objects=4))
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
    return Labelled(np.stack(frames), np.array(reached))


def towards(away: list[int]) -> Action:
    """Return the step that leads to an object, or that picks it up where it is beside."""
    x, y = away
    if abs(x) + abs(y) == 1:
        return Action.PICK_UP
    if abs(x) >= abs(y):
        return Action.RIGHT if x > 0 else Action.LEFT
    return Action.DOWN if y > 0 else Action.UP


def pay(reward_model: RewardModel, frames: UInt8[np.ndarray, "N H W 3"]) -> Float[np.ndarray, " T"]:
    """Return the reward of every step of an episode that a time limit ends."""
    stream = RewardStream(reward_model, num_envs=1)
    stream.start([0], {"pixels": frames[:1]})
    last = len(frames) - 1
    paid = [
        stream.step({"pixels": frames[step : step + 1]}, truncated=[step == last]).reward[0]
        for step in range(1, len(frames))
    ]
    return np.array(paid)
