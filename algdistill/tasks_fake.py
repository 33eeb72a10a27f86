"""Small, deterministic sets of tasks, for tests, documentation and tuning.

They stand in for real environments. `GridTasks` is an agent on a square grid that sees its own
``(x, y)`` and is paid on some cells. With a single paid cell it is a Dark Room (Laskin et al.
2022); with solid objects and pay on the cells beside one of them it is a hidden-object search.
`PixelRoomTasks` are Dark Rooms seen as tiny frames, `PointTasks` take continuous actions.

Axis letters: ``N`` tasks, ``C`` cells of the grid (numbered ``y * size + x``), ``A`` actions,
``H W`` pixels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property

import torch
from jaxtyping import Bool, Float, Int, UInt8
from torch import Tensor

from algdistill.tasks import StepResult

MOVES = ((0, 0), (-1, 0), (1, 0), (0, -1), (0, 1))
"""(dx, dy) of the five actions: stay, left, right, up, down."""


class GridTasks:
    """Grid tasks given by tables; a fake for tests, documentation and tuning.

    Every episode starts at the centre and lasts ``episode_length`` steps. Walking into a wall or a
    solid cell leaves the agent where it is. A step pays what its *arrival* cell is worth.

    Args:
        cell_rewards: What the learner is paid for arriving at each cell.
        solid: Cells that cannot be entered; none by default.
        env_cell_rewards: Ground truth beside ``cell_rewards``; the same by default.
        task_ids: ``0 … N-1`` by default.
        episode_length: Steps in an episode.

    Raises:
        ValueError: If the tables do not fit each other, the grid is no odd square, the start cell
            is solid, or ``episode_length < 1``.
    """

    num_actions = len(MOVES)

    def __init__(
        self,
        cell_rewards: Float[Tensor, "N C"],
        solid: Bool[Tensor, "N C"] | None = None,
        env_cell_rewards: Float[Tensor, "N C"] | None = None,
        task_ids: Int[Tensor, " N"] | None = None,
        episode_length: int = 20,
    ) -> None:
        self.num_tasks, num_cells = cell_rewards.shape
        self.device = cell_rewards.device
        self.size = round(num_cells**0.5)
        if self.size**2 != num_cells or self.size % 2 == 0:
            raise ValueError(f"got {num_cells} cells, expected an odd number squared: 9, 25, 49 …")
        if episode_length < 1:
            raise ValueError(f"got episode_length={episode_length}, expected at least 1")
        self.solid = torch.zeros_like(cell_rewards, dtype=torch.bool) if solid is None else solid
        self.start_cell = num_cells // 2
        if self.solid.shape != cell_rewards.shape or self.solid[:, self.start_cell].any():
            raise ValueError("expected `solid` shaped like `cell_rewards`, with a free centre")
        self.cell_rewards = cell_rewards
        self.env_cell_rewards = cell_rewards if env_cell_rewards is None else env_cell_rewards
        indices = torch.arange(self.num_tasks, device=self.device)
        self.task_ids = indices if task_ids is None else task_ids
        self.observation_sizes = (self.size, self.size)
        self.episode_length = episode_length
        self._rows = indices
        cells = torch.arange(num_cells, device=self.device)
        self._coordinates = torch.stack([cells % self.size, cells // self.size], dim=-1)
        self._cell = torch.full_like(indices, self.start_cell)
        self._steps = 0

    @cached_property
    def next_cells(self) -> Int[Tensor, "N C A"]:
        """Where each action leads from each cell."""
        here = torch.arange(self.size**2, device=self.device)
        targets = []
        for dx, dy in MOVES:
            x = (self._coordinates[:, 0] + dx).clamp(0, self.size - 1)
            y = (self._coordinates[:, 1] + dy).clamp(0, self.size - 1)
            target = (y * self.size + x).expand(self.num_tasks, -1)
            targets.append(torch.where(self.solid.gather(1, target), here, target))
        return torch.stack(targets, dim=-1)

    def reset(self) -> Int[Tensor, "N 2"]:
        """Put every agent back to the centre."""
        self._cell = torch.full_like(self._cell, self.start_cell)
        self._steps = 0
        return self._coordinates[self._cell]

    def step(self, actions: Int[Tensor, " N"]) -> StepResult:
        """Move every agent; a full episode resets within the call."""
        arrival = self.next_cells[self._rows, self._cell, actions]
        self._steps += 1
        ended = self._steps == self.episode_length
        next_obs = self._coordinates[arrival]
        self._cell = arrival
        obs = self.reset() if ended else next_obs
        never = torch.zeros(self.num_tasks, dtype=torch.bool, device=self.device)
        return StepResult(
            obs=obs,
            next_obs=next_obs,
            reward=self.cell_rewards[self._rows, arrival],
            env_reward=self.env_cell_rewards[self._rows, arrival],
            terminated=never,
            truncated=~never if ended else never,
        )

    def optimal_returns(self) -> Float[Tensor, " N"]:
        """Best ground-truth return of one episode, by dynamic programming over its steps."""
        rows = self._rows[:, None, None]
        value = torch.zeros_like(self.env_cell_rewards)
        for _ in range(self.episode_length):
            worth = self.env_cell_rewards + value
            value = worth[rows, self.next_cells].amax(dim=-1)
        return value[:, self.start_cell]


def dark_room_tasks(size: int = 9, episode_length: int = 20) -> GridTasks:
    """One task for each goal cell of a Dark Room (Laskin et al. 2022)."""
    return GridTasks(torch.eye(size**2), episode_length=episode_length)


def hidden_object_tasks(
    num_tasks: int,
    generator: torch.Generator,
    *,
    target_cells: Sequence[int],
    size: int = 7,
    num_objects: int = 4,
    episode_length: int = 20,
    false_reward_rate: float = 0.0,
    first_task_id: int = 0,
) -> GridTasks:
    """Rooms with solid objects, paid on the free cells beside one of them.

    The target's cell is drawn from ``target_cells``; the other objects lie anywhere but on the
    start. Each unpaid cell pays by mistake with probability ``false_reward_rate``: the learner
    sees it, the ground truth does not. Rooms whose target cannot be reached are drawn again.

    Raises:
        ValueError: If a target cell is the start or outside the grid.
    """
    start = size**2 // 2
    if any(cell == start or not 0 <= cell < size**2 for cell in target_cells):
        raise ValueError(
            f"got target_cells={list(target_cells)}, expected cells 0 to {size**2 - 1} without "
            f"the start, {start}"
        )
    side = torch.arange(size**2)
    distance = (side[:, None] % size - side % size).abs() + (
        side[:, None] // size - side // size
    ).abs()
    solid, paid = torch.empty(2, 0, size**2, dtype=torch.bool)
    while len(paid) < num_tasks:
        candidates = torch.as_tensor(target_cells)
        target = candidates[torch.randint(len(candidates), (num_tasks,), generator=generator)]
        order = torch.rand(num_tasks, size**2, generator=generator)
        order[:, start] = 2.0
        order[torch.arange(num_tasks), target] = -1.0
        blocked = torch.zeros_like(order, dtype=torch.bool)
        blocked.scatter_(1, order.argsort(dim=1)[:, :num_objects], value=True)
        beside = (distance[target] == 1) & ~blocked
        reachable = GridTasks(beside.float(), blocked, None, None, size**2).optimal_returns() > 0
        solid = torch.cat([solid, blocked[reachable]])
        paid = torch.cat([paid, beside[reachable]])
    solid, paid = solid[:num_tasks], paid[:num_tasks]
    mistakes = torch.rand(paid.shape, generator=generator) < false_reward_rate
    return GridTasks(
        (paid | mistakes).float(),
        solid,
        paid.float(),
        torch.arange(first_task_id, first_task_id + num_tasks),
        episode_length,
    )


class PixelRoomTasks:
    """Dark Rooms with a goal cell each, which show where the agent is as a white square.

    Args:
        goal_cells: Where each task pays.
        size: Cells of a side, an odd number.
        episode_length: Steps in an episode.
    """

    num_actions = len(MOVES)
    observation_dtype = torch.uint8
    pixels_per_cell = 4

    def __init__(
        self, goal_cells: Int[Tensor, " N"], size: int = 3, episode_length: int = 8
    ) -> None:
        paid = torch.nn.functional.one_hot(goal_cells, size**2).float()
        self._rooms = GridTasks(paid, episode_length=episode_length)
        self._goal = torch.stack([goal_cells % size, goal_cells // size], dim=-1)
        self._position = torch.full_like(self._goal, size // 2)
        self.num_tasks = len(goal_cells)
        self.episode_length = episode_length
        self.task_ids = goal_cells
        self.device = goal_cells.device
        side = size * self.pixels_per_cell
        self.observation_shape = (side, side, 3)

    def reset(self) -> UInt8[Tensor, "N H W 3"]:
        """Put every agent back to the centre."""
        self._position = self._rooms.reset()
        return self._drawn(self._position)

    def step(self, actions: Int[Tensor, " N"]) -> StepResult:
        """Move every agent; a full episode resets within the call."""
        result = self._rooms.step(actions)
        self._position = result.obs
        return replace(result, obs=self._drawn(result.obs), next_obs=self._drawn(result.next_obs))

    def optimal_actions(self) -> Int[Tensor, " N"]:
        """Towards the goal, first left or right, then up or down."""
        right, down = (self._goal - self._position).sign().unbind(-1)
        across = torch.where(right < 0, 1, 2)
        along = torch.where(down < 0, 3, torch.where(down > 0, 4, 0))
        return torch.where(right != 0, across, along)

    def _drawn(self, position: Int[Tensor, "N 2"]) -> UInt8[Tensor, "N H W 3"]:
        cells = torch.arange(self.observation_shape[0], device=self.device) // self.pixels_per_cell
        here = (cells[:, None] == position[:, 1, None, None]) & (
            cells == position[:, 0, None, None]
        )
        return (255 * here).to(torch.uint8)[..., None].repeat(1, 1, 1, 3)


class PointTasks:
    """A point on a square from -1 to 1, paid 1 on each step that ends near its hidden goal.

    An action is a velocity; the largest takes the point half a side of a quadrant. The point's
    position is shown as an embedding, ``(x, y, 1, -x, -y, -1)``: of these numbers, normalised to
    mean 0 and variance 1, the position can still be read.

    Args:
        goals: Where each task pays, from -1 to 1.
        episode_length: Steps in an episode, each of which starts in the middle.
        radius: How near is near.
    """

    action_dim = 2
    observation_shape = (6,)
    observation_dtype = torch.float32
    speed = 0.5

    def __init__(
        self, goals: Float[Tensor, "N 2"], episode_length: int = 8, radius: float = 0.3
    ) -> None:
        self._goals = goals
        self._radius = radius
        self._position = torch.zeros_like(goals)
        self._num_steps = 0
        self.num_tasks = len(goals)
        self.episode_length = episode_length
        self.task_ids = torch.arange(self.num_tasks, device=goals.device)
        self.device = goals.device

    def reset(self) -> Float[Tensor, "N 6"]:
        """Put every point back to the middle."""
        self._position = torch.zeros_like(self._goals)
        self._num_steps = 0
        return self._shown()

    def step(self, actions: Float[Tensor, "N 2"]) -> StepResult:
        """Move every point; a full episode resets within the call."""
        self._position = (self._position + self.speed * actions).clamp(-1.0, 1.0)
        self._num_steps += 1
        ended = self._num_steps == self.episode_length
        near = (self._position - self._goals).norm(dim=-1) <= self._radius
        next_obs = self._shown()
        never = torch.zeros_like(near)
        return StepResult(
            obs=self.reset() if ended else next_obs,
            next_obs=next_obs,
            reward=near.float(),
            env_reward=near.float(),
            terminated=never,
            truncated=~never if ended else never,
        )

    def optimal_actions(self) -> Float[Tensor, "N 2"]:
        """Straight to the goal, as fast as possible."""
        return ((self._goals - self._position) / self.speed).clamp(-1.0, 1.0)

    def _shown(self) -> Float[Tensor, "N 6"]:
        half = torch.cat([self._position, torch.ones_like(self._position[:, :1])], dim=-1)
        return torch.cat([half, -half], dim=-1)
