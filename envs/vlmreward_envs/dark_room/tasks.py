"""Dark Room and Dark Room Hard (Laskin et al. 2022) as batched tensors.

Axis letters: ``N`` tasks, ``P`` places, ``H W`` pixels.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int64, UInt8
from torch import Tensor

from vlmreward_envs.dark_room.rendering import draw_rooms
from vlmreward_envs.episodes import EpisodicTasks
from vlmreward_envs.grid import (
    Move,
    cell_position,
    is_in_cell,
    move,
    move_straight_towards,
    move_towards,
)


@dataclass(frozen=True)
class DarkRoomConfig:
    """What all rooms of a batch have in common.

    Attributes:
        size: Cells along each side; odd, so that there is a centre to start in.
        episode_length: Steps of an episode.
        pays_once: Pay the first arrival at the goal in each episode, not every step there.

    Raises:
        ValueError: If ``size`` is even or below 3, or ``episode_length`` is below 1.
    """

    size: int = 9
    episode_length: int = 20
    pays_once: bool = False

    def __post_init__(self) -> None:
        if self.size < 3 or self.size % 2 == 0:
            raise ValueError(f"got size={self.size}, expected an odd number of at least 3")
        if self.episode_length < 1:
            raise ValueError(f"got episode_length={self.episode_length}, expected at least 1")

    @property
    def num_tasks(self) -> int:
        """Number of goals there are: one for each cell."""
        return self.size**2


DARK_ROOM = DarkRoomConfig()
DARK_ROOM_HARD = DarkRoomConfig(size=17, pays_once=True)


def no_adaptation_return(config: DarkRoomConfig = DARK_ROOM) -> float:
    r"""Return what can be earned, on average over all goals, without heeding rewards.

    Of ``S`` cells one is the goal. Whatever an agent that ignores rewards does, the ``T`` steps of
    its episode arrive somewhere, so summed over all goals they earn exactly ``T``: the mean is
    :math:`T / S`. Where each goal pays once, only the first arrival at a cell counts:
    :math:`\min(T, S) / S` is the most, earned by never arriving twice. There the reward comes too
    late to be of use in its own episode, so this bounds whoever forgets between episodes.

    Example:
        >>> [round(no_adaptation_return(config), 3) for config in (DARK_ROOM, DARK_ROOM_HARD)]
        [0.247, 0.069]
    """
    steps = config.episode_length
    return (min(steps, config.num_tasks) if config.pays_once else steps) / config.num_tasks


class DarkRoomTasks(EpisodicTasks):
    """Rooms with a hidden goal each; agents start at the centre and see their own (x, y) only.

    A step pays 1 if it ends at the goal; with ``pays_once`` only the first such step of an episode
    does. Nothing is random.

    Args:
        task_ids: The goal of each room as a cell number, ``y * size + x``.
        config: Size, length and reward of all rooms.

    Attributes:
        position: Where each agent is, (x, y).
        paid: Whether the goal has been reached in this episode.

    Raises:
        ValueError: If there is no task, or an id is no cell of the room.

    Example:
        >>> tasks = DarkRoomTasks(torch.arange(81))
        >>> tasks.reset()[0]
        tensor([4, 4])
        >>> step = tasks.step(torch.full((81,), Move.LEFT))
        >>> step.next_obs[0], int(step.reward.argmax())
        (tensor([3, 4]), 39)
        >>> round(tasks.optimal_returns().mean().item(), 3)
        16.543
    """

    num_actions = len(Move)
    num_goals = 1

    def __init__(self, task_ids: Int64[Tensor, " N"], config: DarkRoomConfig = DARK_ROOM) -> None:
        super().__init__(task_ids, config.num_tasks)
        self.config = config
        self.observation_sizes = (config.size, config.size)
        self.episode_length = config.episode_length
        self.goal = cell_position(task_ids, config.size)
        self._centre = torch.full_like(self.goal, config.size // 2)
        self.position = self._centre
        self.paid = self._never

    def observe(self) -> Int64[Tensor, "N 2"]:
        """Return where each agent is, (x, y)."""
        return self.position

    def optimal_returns(self) -> Float[Tensor, " N"]:
        """Return the most an episode can pay: for a goal ``d`` steps away ``min(T, T + 1 - d)``.

        ``T`` is the length of an episode. With ``pays_once`` it is 1 where ``d <= T``.
        """
        steps = self.config.episode_length
        distance = (self.goal - self._centre).abs().sum(dim=1)
        most = 1 if self.config.pays_once else steps
        return (steps + 1 - distance).clamp(0, most).float()

    def optimal_actions(self) -> Int64[Tensor, " N"]:
        """Return the way to the goal, and at the goal to stay."""
        return move_towards(self.position, self.goal)

    @property
    def num_places(self) -> int:
        """Cells of a room, in which the goal may be."""
        return self.config.num_tasks

    def places_seen(self) -> Bool[Tensor, "N P"]:
        """Return which cell each agent is in: a goal there would pay."""
        return is_in_cell(self.position, self.config.size)

    def actions_towards(self, places: Int64[Tensor, " N"]) -> Int64[Tensor, " N"]:
        """Return the way to numbered cells, as straight as can be."""
        return move_straight_towards(self.position, cell_position(places, self.config.size))

    def render(self) -> UInt8[Tensor, "N H W 3"]:
        """Draw every room with its goal: a star, which turns grey when it pays no more."""
        is_spent = self.paid & self.config.pays_once
        return draw_rooms(self.config.size, self.position, self.goal, is_spent)

    def _begin(self) -> None:
        self.position = self._centre
        self.paid = self._never

    def _act(self, actions: Int64[Tensor, " N"]) -> Float[Tensor, " N"]:
        self.position = move(self.position, actions, self.config.size)
        at_goal = (self.position == self.goal).all(dim=1)
        pays = at_goal & ~self.paid if self.config.pays_once else at_goal
        self.paid = self.paid | at_goal
        return pays.float()
