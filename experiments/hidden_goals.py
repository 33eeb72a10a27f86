"""Hidden-goal Playrooms as tasks for `algdistill`: each room has a goal that nobody is told.

Episodes last 20 steps, begin in the middle of the room and never end early; every step after which
the reward model finds the goal's sentence true pays 1. A learner sees its position and the reward.

Axis letters: ``N`` tasks (one room each), ``P`` cells of a room, ``O`` = 2 (x, y).
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Int64
from numpy.typing import NDArray
from rich.progress import track
from torch import Tensor

from algdistill.tasks import StepResult
from vlmreward import RewardModel
from vlmreward_envs.playroom import (
    Family,
    PlayroomConfig,
    PlayroomRenderer,
    PlayroomState,
    goal_reached,
    reset_rooms,
    step_rooms,
)

EPISODE_LENGTH = 20
NUM_MOVES = 5  # stay, left, right, up, down: FIND goals need no hands
ROOM_CONFIG = PlayroomConfig(num_objects=5, start_at_centre=True, fixed_room=True)
_ROOMS_PER_PASS = 64
_OWN_FIELDS = ("goal", "rewards", "env_rewards", "optimum")


@dataclass(frozen=True)
class HiddenGoalRooms:
    """A set of rooms, the hidden goal of each, and what each cell pays.

    Attributes:
        state: The rooms at the start of an episode.
        goal: Rows (FIND, kind, -1): what is hidden.
        rewards: What the reward model pays in each cell (row-major), 0 or 1.
        env_rewards: The ground truth of the same.
        optimum: Highest ground-truth return of an episode, by breadth-first search.
    """

    state: PlayroomState
    goal: Int64[Tensor, "N 3"]
    rewards: Float[Tensor, "N P"]
    env_rewards: Float[Tensor, "N P"]
    optimum: Float[Tensor, " N"]

    def to_arrays(self) -> dict[str, NDArray[Any]]:
        """Return everything as named arrays."""
        tensors = {f.name: getattr(self.state, f.name) for f in fields(PlayroomState)}
        own = {name: getattr(self, name) for name in _OWN_FIELDS}
        return {name: tensor.numpy() for name, tensor in (tensors | own).items()}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, NDArray[Any]]) -> "HiddenGoalRooms":
        """Return the rooms of which `to_arrays` made arrays."""
        state = {f.name: torch.from_numpy(arrays[f.name]) for f in fields(PlayroomState)}
        own = {name: torch.from_numpy(arrays[name]) for name in _OWN_FIELDS}
        return cls(state=PlayroomState(**state), **own)


def draw_rooms(
    num_rooms: int,
    target_cells: Collection[int],
    kinds: Collection[int],
    reward_model: RewardModel,
    rng: np.random.Generator,
) -> HiddenGoalRooms:
    """Draw rooms whose hidden object is of one of ``kinds`` and stands in one of some cells.

    Each frame that an episode can show is drawn and scored once.

    Args:
        num_rooms: N.
        target_cells: Cells (row-major) where the hidden object may stand.
        kinds: Object kinds that may be hidden.
        reward_model: Its goal ``k`` is the FIND sentence of object kind ``k``.
        rng: Random generator.
    """
    wanted = torch.tensor(sorted(target_cells))
    chosen_states, chosen_goals, chosen_truth, chosen_optimum = [], [], [], []
    num_found = 0
    while num_found < num_rooms:
        seed = torch.from_numpy(rng.integers(2**62, size=num_rooms))
        kind = torch.from_numpy(rng.choice(sorted(kinds), size=num_rooms))
        state = reset_rooms(ROOM_CONFIG, seed, torch.zeros_like(seed), kind[:, None])
        goal = torch.stack((torch.full_like(kind, Family.FIND), kind, torch.full_like(kind, -1)), 1)
        truth = _at_every_cell(state, goal)
        optimum = optimal_returns(state, truth)
        target = state.object_cell[:, 0, 1] * ROOM_CONFIG.grid_size + state.object_cell[:, 0, 0]
        kept = torch.isin(target, wanted) & (optimum > 0)
        chosen_states.append(state[kept])
        chosen_goals.append(goal[kept])
        chosen_truth.append(truth[kept].float())
        chosen_optimum.append(optimum[kept])
        num_found += int(kept.sum())
    state = _concatenate(chosen_states)[:num_rooms]
    goal = torch.cat(chosen_goals)[:num_rooms]
    return HiddenGoalRooms(
        state=state,
        goal=goal,
        rewards=_score_every_cell(state, goal, reward_model),
        env_rewards=torch.cat(chosen_truth)[:num_rooms],
        optimum=torch.cat(chosen_optimum)[:num_rooms],
    )


class HiddenGoalTasks:
    """The rooms as `algdistill.tasks.BatchedTasks`: all of them stepped together."""

    num_actions = NUM_MOVES
    observation_sizes = (ROOM_CONFIG.grid_size, ROOM_CONFIG.grid_size)
    episode_length = EPISODE_LENGTH
    device = torch.device("cpu")

    def __init__(self, rooms: HiddenGoalRooms, first_task_id: int = 0) -> None:
        self.rooms = rooms
        self.num_tasks = len(rooms.state)
        self.task_ids = first_task_id + torch.arange(self.num_tasks)
        self._rows = torch.arange(self.num_tasks)
        self.state = rooms.state
        self._num_steps = 0

    def reset(self) -> Int64[Tensor, "N O"]:
        """Begin an episode in every room."""
        self.state = self.rooms.state
        self._num_steps = 0
        return self.state.position

    def step(self, actions: Int64[Tensor, " N"]) -> StepResult:
        """Move every person; all episodes end together, after 20 steps."""
        self.state = step_rooms(ROOM_CONFIG, self.state, actions)
        self._num_steps += 1
        arrived = self.state.position
        cell = arrived[:, 1] * ROOM_CONFIG.grid_size + arrived[:, 0]
        is_over = self._num_steps == EPISODE_LENGTH
        return StepResult(
            obs=self.reset() if is_over else arrived,
            next_obs=arrived,
            reward=self.rooms.rewards[self._rows, cell],
            env_reward=self.rooms.env_rewards[self._rows, cell],
            terminated=torch.zeros(self.num_tasks, dtype=torch.bool),
            truncated=torch.full((self.num_tasks,), is_over),
        )


class WatchedTasks(HiddenGoalTasks):
    """The same, keeping where everybody was after each step."""

    def __init__(self, rooms: HiddenGoalRooms) -> None:
        super().__init__(rooms)
        self.positions: list[Int64[Tensor, "N 2"]] = []

    def step(self, actions: Int64[Tensor, " N"]) -> StepResult:
        """Move every person and remember where they arrived."""
        result = super().step(actions)
        self.positions.append(result.next_obs)
        return result


def optimal_returns(state: PlayroomState, is_goal: Bool[Tensor, "N P"]) -> Float[Tensor, " N"]:
    """Return the most steps of an episode that can be spent in goal cells, from the start.

    A person who needs ``d`` steps to the nearest goal cell is paid ``min(20, 21 - d)``; 0 where
    no goal cell can be reached in time.
    """
    grid = ROOM_CONFIG.grid_size
    rows = torch.arange(len(state))
    best = torch.zeros(len(state))
    reached = torch.zeros_like(is_goal)
    reached[rows, state.position[:, 1] * grid + state.position[:, 0]] = True
    solid = torch.zeros_like(is_goal)
    cells = state.object_cell[..., 1] * grid + state.object_cell[..., 0]
    solid.scatter_(1, cells, True)
    for distance in range(EPISODE_LENGTH + 1):
        found = (reached & is_goal).any(dim=1)
        paid = float(min(EPISODE_LENGTH, EPISODE_LENGTH + 1 - distance))
        best = torch.where(found & (best == 0), paid, best)
        board = reached.view(-1, grid, grid)
        spread = board.clone()
        spread[:, 1:] |= board[:, :-1]
        spread[:, :-1] |= board[:, 1:]
        spread[:, :, 1:] |= board[:, :, :-1]
        spread[:, :, :-1] |= board[:, :, 1:]
        reached = spread.flatten(1) & ~solid
    return best


def _stand_everywhere(state: PlayroomState) -> PlayroomState:
    """Repeat every room once per cell, with the person in that cell."""
    grid = ROOM_CONFIG.grid_size
    cell = torch.arange(grid * grid)
    repeated = state[torch.arange(len(state)).repeat_interleave(grid * grid)]
    position = torch.stack((cell % grid, cell // grid), dim=1).repeat(len(state), 1)
    return replace(repeated, position=position)


def _at_every_cell(state: PlayroomState, goal: Int64[Tensor, "N 3"]) -> Bool[Tensor, "N P"]:
    cells = ROOM_CONFIG.grid_size**2
    everywhere = goal_reached(_stand_everywhere(state), goal.repeat_interleave(cells, dim=0))
    return everywhere.view(-1, cells)


def _score_every_cell(
    state: PlayroomState, goal: Int64[Tensor, "N 3"], reward_model: RewardModel
) -> Float[Tensor, "N P"]:
    """Score each frame an episode can show, once. Cells with an object in them are never used."""
    renderer = PlayroomRenderer(ROOM_CONFIG)
    cells = ROOM_CONFIG.grid_size**2
    rewards = []
    starts = range(0, len(state), _ROOMS_PER_PASS)
    for start in track(starts, description="scoring every frame of the rooms"):
        rooms = slice(start, start + _ROOMS_PER_PASS)
        frames = renderer(_stand_everywhere(state[rooms]))
        goal_index = goal[rooms, 1].repeat_interleave(cells)
        rewards.append(reward_model(frames, goal_index).cpu().view(-1, cells))
    return torch.cat(rewards)


def _concatenate(states: list[PlayroomState]) -> PlayroomState:
    names = [f.name for f in fields(PlayroomState)]
    return PlayroomState(
        **{name: torch.cat([getattr(state, name) for state in states]) for name in names}
    )
