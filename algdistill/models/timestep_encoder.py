"""One time step of experience becomes one token.

A token is the sum of learned embeddings of what an agent knows when it is about to act: each
component of the observation, the previous action (or that there is none yet), the previous reward,
and whether the observation is the first of an episode. The encoder has no memory.

Axis letters: ``B`` batch of windows, ``T`` time steps, ``D`` width.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn

from algdistill.tasks import TaskSpace
from algdistill.timesteps import TimestepBatch


class TimestepEncoder(nn.Module):
    """Embeds symbolic time steps, one token each.

    Args:
        space: Observation and action spaces of the tasks.
        embed_dim: Width ``D`` of a token.
        generator: Draws the initial embeddings.
    """

    def __init__(self, space: TaskSpace, embed_dim: int, generator: torch.Generator) -> None:
        super().__init__()
        # One table for all discrete parts: observation values, actions, "none", episode start.
        sizes = [*space.observation_sizes, space.num_actions + 1, 2]
        self.table = nn.Parameter(0.02 * torch.randn(sum(sizes), embed_dim, generator=generator))
        self.reward = nn.Parameter(0.02 * torch.randn(embed_dim, generator=generator))
        offsets = torch.tensor([0, *sizes[:-1]]).cumsum(0)
        self.register_buffer("offsets", offsets, persistent=False)
        self.offsets: Tensor

    def forward(self, steps: TimestepBatch) -> Float[Tensor, "B T D"]:
        """Embed each time step by itself."""
        discrete = torch.cat(
            [steps.obs, steps.prev_action[..., None], steps.episode_start[..., None].long()], dim=-1
        )
        embedded = nn.functional.embedding(discrete + self.offsets, self.table).sum(dim=-2)
        return embedded + steps.prev_reward[..., None] * self.reward
