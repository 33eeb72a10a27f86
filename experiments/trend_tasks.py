"""Both domains as tasks for goal-conditioned agents, paid by a reward model or by the ground truth.

Agents observe the simulator's state and what their goal has in common with each thing in it; what
is paid comes from frames and words alone, unless the ground truth pays. So agents differ by their
reward only, and goals never trained on are as well described as others.

Axis letters: ``N`` tasks, ``F`` numbers of an observation, ``K`` objects of a room.
"""

from collections.abc import Callable
from typing import Any

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from algdistill.tasks import StepResult
from vlmreward import RewardModel
from vlmreward_envs.goal_tasks import AnyGoalTasks, GoalStep
from vlmreward_envs.launcher import APPS, Gesture, LauncherConfig, LauncherPhones
from vlmreward_envs.launcher.dynamics import NONE
from vlmreward_envs.playroom import Action, PlayroomConfig, PlayroomRooms, PlayroomState
from vlmreward_envs.playroom.language import SHAPES

Observe = Callable[[Any], Float[Tensor, "N F"]]

ROOMS = PlayroomConfig(num_objects=3)
PHONES = LauncherConfig(num_apps=12)
ROOM_STEPS, PHONE_STEPS = 30, 12
_GLYPHS = torch.tensor([int(app.glyph) for app in APPS])
_COLOURS = torch.tensor([sorted({a.colour for a in APPS}).index(app.colour) for app in APPS])


class ScoredTasks:
    """Simulators with goals as `BatchedTasks`.

    Args:
        tasks: The simulators.
        observe: What the agent observes of them.
        num_actions: Discrete actions.
        reward_model: Pays for frames, its goals being those of the tasks, in their order; the
            ground truth pays where there is none.
        ends_when_paid: End an episode with the first step that is paid (Baumli et al. 2023).

    Attributes:
        frames: What the reward model was shown last, uint8 ``[N, H, W, 3]``.
    """

    observation_dtype = torch.float32

    def __init__(
        self,
        tasks: AnyGoalTasks,
        observe: Observe,
        num_actions: int,
        reward_model: RewardModel | None = None,
        *,
        ends_when_paid: bool = True,
    ) -> None:
        self._tasks = tasks
        self._observe = observe
        self._reward_model = reward_model
        self._ends_when_paid = ends_when_paid
        self._seeds = tasks.seed
        self.num_tasks = tasks.num_envs
        self.num_actions = num_actions
        self.episode_length = tasks.max_episode_steps
        self.device = tasks.device
        self.task_ids = torch.arange(self.num_tasks, device=self.device)
        self.observation_shape = tuple(observe(tasks).shape[1:])

    @property
    def goal_index(self) -> Int64[Tensor, " N"]:
        """Which goal each task is about."""
        return self._tasks.goal_index

    def reset(self) -> Float[Tensor, "N F"]:
        """Begin the first episode of every task."""
        self._tasks.reset(self._seeds)
        self._begin(torch.ones(self.num_tasks, dtype=torch.bool, device=self.device))
        return self._observe(self._tasks)

    def step(self, actions: Int64[Tensor, " N"]) -> StepResult:
        """Take one action in every task; those that end begin anew within the call."""
        result = self._tasks.step(actions)
        reward = self._pay(result)
        terminated = result.terminated
        if self._ends_when_paid:
            terminated = terminated | (reward > 0)
        obs = next_obs = self._observe(self._tasks)
        ended = terminated | result.truncated
        if bool(ended.any()):
            self._tasks.reset(mask=ended)
            self._begin(ended)
            obs = self._observe(self._tasks)
        return StepResult(obs, next_obs, reward, result.env_reward, terminated, result.truncated)

    def _pay(self, result: GoalStep) -> Float[Tensor, " N"]:
        """Return what a step earns."""
        if self._reward_model is None:
            return result.env_reward
        self.frames = self._tasks.render()
        return self._reward_model(self.frames, self._tasks.goal_index).to(self.device)

    def _begin(self, started: Bool[Tensor, " N"]) -> None:
        """Episodes have begun in some tasks."""


def playroom_tasks(
    num_tasks: int,
    goals: list[str],
    seed: int,
    reward_model: RewardModel | None = None,
    **options: Any,
) -> ScoredTasks:
    """Return rooms with goals to lift something."""
    rooms = PlayroomRooms(num_tasks, goals, config=ROOMS, max_episode_steps=ROOM_STEPS)
    rooms.reset(seed + torch.arange(num_tasks))
    return ScoredTasks(rooms, observe_room, len(Action), reward_model, **options)


def launcher_tasks(
    num_tasks: int,
    goals: list[str],
    seed: int,
    reward_model: RewardModel | None = None,
    **options: Any,
) -> ScoredTasks:
    """Return phones with goals to open an app."""
    phones = LauncherPhones(num_tasks, goals, config=PHONES, max_episode_steps=PHONE_STEPS)
    phones.reset(seed + torch.arange(num_tasks))
    return ScoredTasks(phones, observe_phone, len(Gesture), reward_model, **options)


def observe_room(rooms: PlayroomRooms) -> Float[Tensor, "N F"]:
    """Say where each object is from the person, and whether it has the goal's colour and shape."""
    return observe_objects(rooms.state, rooms.goal[:, 1:2], rooms.config.grid_size)


def observe_objects(
    state: PlayroomState, goal: Int64[Tensor, "N 1"], size: int
) -> Float[Tensor, "N F"]:
    """Describe the objects of rooms; see `observe_room`.

    Objects come in the order of their cells, so that their number tells nothing.

    Args:
        state: The rooms.
        goal: The object kind that the goal of each names; -1 for none.
        size: Cells of a side.
    """
    num_objects = state.object_kind.shape[1]
    offset = state.object_cell - state.position[:, None]
    cell = state.object_cell[..., 1] * size + state.object_cell[..., 0]
    order = cell.argsort(dim=1, stable=True)
    is_held = torch.arange(num_objects) == state.held[:, None]
    distance = offset.abs().sum(dim=2)
    columns = torch.stack(
        [
            *(offset / (size - 1)).unbind(dim=2),
            *offset.sign().unbind(dim=2),
            (distance == 1) & ~is_held,
            state.object_kind // len(SHAPES) == goal // len(SHAPES),
            (state.object_kind % len(SHAPES) == goal % len(SHAPES)) & (goal >= 0),
            state.object_kind == goal,
            is_held,
        ],
        dim=2,
    )
    sorted_columns = columns.gather(1, order[..., None].expand_as(columns))
    position = 2 * state.position / (size - 1) - 1
    return torch.cat((sorted_columns.flatten(1), position), dim=1).float()


def observe_phone(phones: LauncherPhones) -> Float[Tensor, "N F"]:
    """Say what lies at each place, and whether icons and the open app have the goal's look."""
    state, goal = phones.state, phones.goal
    shown = state.shown
    places = [_has_look(shown, goal[:, None]).flatten(1), (shown >= len(APPS)).float()]
    flags = torch.stack(
        [state.is_home, state.open_folder != NONE, state.popup != NONE, *_pages(state.page)], dim=1
    )
    return torch.cat([*places, _has_look(state.app, goal), flags.float()], dim=1)


def _pages(page: Int64[Tensor, " N"]) -> list[Bool[Tensor, " N"]]:
    return [page == number for number in range(PHONES.num_pages)]


def _has_look(apps: Tensor, goal: Tensor) -> Tensor:
    """Tell of apps (of -1 and folders, nothing) if they have the goal's colour, glyph, and both."""
    is_app = (apps >= 0) & (apps < len(APPS))
    known = torch.where(is_app, apps, 0)
    colour = is_app & (_COLOURS[known] == _COLOURS[goal])
    glyph = is_app & (_GLYPHS[known] == _GLYPHS[goal])
    return torch.stack([is_app, colour, glyph, colour & glyph], dim=-1).float()
