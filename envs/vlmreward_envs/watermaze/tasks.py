"""Watermaze (Laskin et al. 2022) as batched tensors.

Axis letters: ``N`` tasks, ``P`` places, ``H W`` pixels.
"""

import torch
from jaxtyping import Bool, Float, Int64, UInt8
from torch import Tensor

from vlmreward_envs import counter_rng
from vlmreward_envs.episodes import EpisodicTasks
from vlmreward_envs.watermaze.arena import (
    EPISODE_LENGTH,
    NUM_HEADINGS,
    PLATFORM_RADIUS,
    Action,
    head_for,
    is_on_platform,
    move,
    platform_positions,
    search_places,
    squared_length,
)
from vlmreward_envs.watermaze.first_person import draw_views
from vlmreward_envs.watermaze.rendering import draw_pools
from vlmreward_envs.watermaze.walls import FRAME_HEIGHT, FRAME_WIDTH

_START_STREAM = 1  # 0 draws the platforms, perhaps from the same integers


class WatermazeTasks(EpisodicTasks):
    """Round pools with a hidden platform each; agents see the walls, and nothing else tells them.

    Every episode starts in the middle, facing one of sixteen ways drawn uniformly. The first step
    that ends on the platform pays 1.

    Args:
        task_ids: Any integers: they say where the platforms are, see
            :func:`~vlmreward_envs.watermaze.platform_positions`.
        seeds: The stream of every pool's first headings.

    Attributes:
        position: Where each agent is, (x, y) in metres from the middle, y upwards.
        heading: Which way it faces, in sixteenths of a turn anticlockwise from x.
        platform: Where the middle of each platform is.
        paid: Whether the platform has been reached in this episode.

    Raises:
        ValueError: If there is no task, or not one seed for each.

    Example:
        >>> task_ids = torch.arange(100)
        >>> tasks = WatermazeTasks(task_ids, seeds=task_ids)
        >>> tasks.reset().shape
        torch.Size([100, 72, 96, 3])
        >>> for _ in range(25):
        ...     step = tasks.step(tasks.optimal_actions())
        >>> tasks.paid.all()
        tensor(True)
    """

    num_actions = len(Action)
    num_goals = 1
    observation_shape = (FRAME_HEIGHT, FRAME_WIDTH, 3)
    observation_dtype = torch.uint8
    episode_length = EPISODE_LENGTH

    def __init__(self, task_ids: Int64[Tensor, " N"], seeds: Int64[Tensor, " M"]) -> None:
        super().__init__(task_ids, None)
        self.platform = platform_positions(task_ids)
        self._start_seeds = counter_rng.fold(self._one_each(seeds), _START_STREAM)
        self._begin()

    def observe(self) -> UInt8[Tensor, "N H W 3"]:
        """Draw what each agent sees, as uint8 RGB 0–255."""
        return draw_views(self.position, self.heading)

    def optimal_returns(self) -> Float[Tensor, " N"]:
        """Return 1: every platform can be reached from every start."""
        return torch.ones(self.num_tasks, device=self.device)

    def optimal_actions(self) -> Int64[Tensor, " N"]:
        """Return the way to the platform, as one who faces where they go walks it.

        It reaches every platform in time, which is what an episode pays for. Walking sideways or
        backwards is sometimes faster. Who is on the platform stays there and looks around.
        """
        has_arrived = is_on_platform(self.position, self.platform)
        way = head_for(self.position, self.heading, self.platform)
        return torch.where(has_arrived, Action.ROTATE_LEFT, way)

    @property
    def num_places(self) -> int:
        """Places all over the pool to look for the platform at."""
        return len(search_places(self.device))

    def places_seen(self) -> Bool[Tensor, "N P"]:
        """Return which places each agent is at: a platform around them would pay."""
        away = self.position[:, None] - search_places(self.device)
        return squared_length(away) <= PLATFORM_RADIUS**2

    def actions_towards(self, places: Int64[Tensor, " N"]) -> Int64[Tensor, " N"]:
        """Return the way to numbered places, as one who faces where they go walks it."""
        return head_for(self.position, self.heading, search_places(self.device)[places])

    def render(self) -> UInt8[Tensor, "N H W 3"]:
        """Draw every pool from above with its platform, which turns grey when it pays no more."""
        return draw_pools(self.position, self.heading, self.platform, self.paid)

    def _begin(self) -> None:
        episode_seeds = counter_rng.fold(self._start_seeds, self.episode)
        self.heading = counter_rng.integers(episode_seeds, 1, 0, NUM_HEADINGS)[:, 0]
        self.position = torch.zeros_like(self.platform)
        self.paid = self._never

    def _act(self, actions: Int64[Tensor, " N"]) -> Float[Tensor, " N"]:
        self.position, self.heading = move(self.position, self.heading, actions)
        is_on = is_on_platform(self.position, self.platform)
        pays = is_on & ~self.paid
        self.paid = self.paid | is_on
        return pays.float()
