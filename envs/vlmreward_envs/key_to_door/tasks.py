"""Dark Key-to-Door (Laskin et al. 2022) as batched tensors.

Axis letters: ``N`` tasks, ``P`` places, ``H W`` pixels.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int64, UInt8
from torch import Tensor

from vlmreward_envs import counter_rng
from vlmreward_envs.episodes import EpisodicTasks
from vlmreward_envs.grid import (
    Move,
    cell_position,
    is_in_cell,
    move,
    move_straight_towards,
    move_towards,
)
from vlmreward_envs.key_to_door.rendering import draw_rooms

_START_STREAM = 0


@dataclass(frozen=True)
class KeyToDoorConfig:
    """What all rooms of a batch have in common.

    Attributes:
        size: Cells along each side.
        episode_length: Steps of an episode.

    Raises:
        ValueError: If ``size`` is below 2 or ``episode_length`` below 1.
    """

    size: int = 9
    episode_length: int = 50

    def __post_init__(self) -> None:
        if self.size < 2:
            raise ValueError(f"got size={self.size}, expected at least 2")
        if self.episode_length < 1:
            raise ValueError(f"got episode_length={self.episode_length}, expected at least 1")

    @property
    def num_tasks(self) -> int:
        """Number of pairs of a key's cell and a door's cell."""
        return self.size**4


DARK_KEY_TO_DOOR = KeyToDoorConfig()


def no_adaptation_return(config: KeyToDoorConfig = DARK_KEY_TO_DOOR) -> float:
    r"""Return the most that is earned, on average over all tasks, by whoever forgets each episode.

    With ``S`` cells and ``T`` steps, step ``t`` finds the key with probability at most
    :math:`1 / S`, and the at most :math:`T - t` cells arrived at after it hold the door with
    probability :math:`(T - t) / S`. Whether or not the agent heeds its rewards within the episode,

    .. math:: \sum_{t=1}^{T} \frac{1}{S}\left(1 + \frac{T - t}{S}\right)
        = \frac{T}{S} + \frac{T (T - 1)}{2 S^2}

    is never exceeded; never arriving twice in a cell earns it.

    Raises:
        ValueError: If an episode is longer than there are cells, where cells must repeat.

    Example:
        >>> round(no_adaptation_return(), 3)
        0.804
    """
    steps, cells = config.episode_length, config.size**2
    if steps > cells:
        raise ValueError(
            f"got {steps} steps among {cells} cells, expected no more steps than cells"
        )
    return steps / cells + steps * (steps - 1) / (2 * cells**2)


class DarkKeyToDoorTasks(EpisodicTasks):
    """Rooms with a hidden key and a hidden door; agents see their own (x, y) only.

    Each episode starts in a cell drawn uniformly. The first step that ends at the key pays 1; after
    it, the first step that ends at the door pays 1. So they pay in two different steps, even where
    key and door share a cell.

    Args:
        task_ids: ``key_cell * size**2 + door_cell`` of each room, cells numbered ``y * size + x``.
        seeds: The stream of start cells of each room.
        config: Size and length of all rooms.

    Attributes:
        position: Where each agent is, (x, y).
        has_key: Whether it has fetched the key in this episode.
        is_open: Whether it has been at the door with the key.

    Raises:
        ValueError: If there is no task, an id is out of range, or there is not one seed for each.

    Example:
        >>> task_ids = torch.tensor([0 * 81 + 80])  # the key top left, the door bottom right
        >>> tasks = DarkKeyToDoorTasks(task_ids, seeds=torch.tensor([7]))
        >>> tasks.reset(), tasks.begin_episode(1)
        (tensor([[3, 0]]), tensor([[4, 2]]))
    """

    num_actions = len(Move)
    num_goals = 2

    def __init__(
        self,
        task_ids: Int64[Tensor, " N"],
        seeds: Int64[Tensor, " M"],
        config: KeyToDoorConfig = DARK_KEY_TO_DOOR,
    ) -> None:
        super().__init__(task_ids, config.num_tasks)
        self.config = config
        self.observation_sizes = (config.size, config.size)
        self.episode_length = config.episode_length
        cells = config.size**2
        self.key = cell_position(task_ids // cells, config.size)
        self.door = cell_position(task_ids % cells, config.size)
        self._start_seeds = counter_rng.fold(self._one_each(seeds), _START_STREAM)
        self.position = self.key
        self.has_key = self.is_open = self._never
        self.reset()

    def observe(self) -> Int64[Tensor, "N 2"]:
        """Return where each agent is, (x, y)."""
        return self.position

    def optimal_returns(self) -> Float[Tensor, " N"]:
        """Return the highest expected return of an episode, over all starts.

        From a start ``d`` steps from the key, which is ``e`` steps from the door, it takes
        ``max(d, 1)`` steps to be paid once and ``max(e, 1)`` more to be paid twice.
        """
        size, steps = self.config.size, self.config.episode_length
        starts = cell_position(torch.arange(size**2, device=self.device), size)
        to_key = (starts[:, None] - self.key).abs().sum(dim=2).clamp(min=1)
        to_door = (self.key - self.door).abs().sum(dim=1).clamp(min=1)
        paid = (to_key <= steps).float() + (to_key + to_door <= steps)
        return paid.mean(dim=0)

    def optimal_actions(self) -> Int64[Tensor, " N"]:
        """Return the way to the key, and with the key to the door."""
        target = torch.where(self.has_key[:, None], self.door, self.key)
        return move_towards(self.position, target)

    @property
    def num_places(self) -> int:
        """Cells of a room, in which key and door may be."""
        return self.config.size**2

    def places_seen(self) -> Bool[Tensor, "N P"]:
        """Return which cell each agent is in."""
        return is_in_cell(self.position, self.config.size)

    def actions_towards(self, places: Int64[Tensor, " N"]) -> Int64[Tensor, " N"]:
        """Return the way to numbered cells, as straight as can be."""
        return move_straight_towards(self.position, cell_position(places, self.config.size))

    def render(self) -> UInt8[Tensor, "N H W 3"]:
        """Draw every room with its key and door."""
        return draw_rooms(
            self.config.size,
            self.position,
            key=self.key,
            door=self.door,
            has_key=self.has_key,
            is_open=self.is_open,
        )

    def _begin(self) -> None:
        episode_seeds = counter_rng.fold(self._start_seeds, self.episode)
        start = counter_rng.integers(episode_seeds, 1, 0, self.config.size**2)[:, 0]
        self.position = cell_position(start, self.config.size)
        self.has_key = self.is_open = self._never

    def _act(self, actions: Int64[Tensor, " N"]) -> Float[Tensor, " N"]:
        self.position = move(self.position, actions, self.config.size)
        at_key = (self.position == self.key).all(dim=1)
        at_door = (self.position == self.door).all(dim=1)
        takes = at_key & ~self.has_key
        opens = at_door & self.has_key & ~self.is_open
        self.has_key = self.has_key | takes
        self.is_open = self.is_open | opens
        return (takes | opens).float()
