"""One time step of experience becomes one token, or three.

Tokens are made of learned embeddings of what an agent knows when it is about to act: the
observation (each component of a symbolic one), the previous action (a discrete one may be that
there is none yet), the previous reward, and whether the observation is the first of an episode. One
token is the sum of all; three are the previous action, the previous reward, and the observation
with whether it is a first one. The encoder has no memory.

Axis letters: ``B`` batch of windows, ``T`` time steps, ``K`` tokens, ``P`` discrete parts,
``D`` width.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn

from algdistill.models.config import ADTransformerConfig
from algdistill.models.observation_encoder import EmbeddingEncoder, FrameEncoder
from algdistill.spaces import Continuous, Discrete, Pixels, Symbolic
from algdistill.timesteps import TimestepBatch


class TimestepEncoder(nn.Module):
    """Embeds time steps.

    Args:
        config: Shape of the model.
        generator: Draws the initial embeddings.
    """

    def __init__(self, config: ADTransformerConfig, generator: torch.Generator) -> None:
        super().__init__()
        self.tokens_per_step = config.tokens_per_step
        width = config.embed_dim
        seen, done = config.space.observations, config.space.actions
        # One table for all discrete parts: observation values, actions, "none", episode start.
        symbols = seen.sizes if isinstance(seen, Symbolic) else ()
        choices = (done.num_actions + 1,) if isinstance(done, Discrete) else ()
        sizes = [*symbols, *choices, 2]
        self.num_symbols = len(symbols)
        self.table = nn.Parameter(0.02 * torch.randn(sum(sizes), width, generator=generator))
        self.reward = nn.Parameter(0.02 * torch.randn(width, generator=generator))
        offsets = torch.tensor([0, *sizes[:-1]]).cumsum(0)
        self.register_buffer("offsets", offsets, persistent=False)
        self.offsets: Tensor
        self.observation: FrameEncoder | EmbeddingEncoder | None = None
        if isinstance(seen, Pixels):
            self.observation = FrameEncoder(seen, config.frames, width, generator)
        elif not isinstance(seen, Symbolic):
            self.observation = EmbeddingEncoder(seen, width, generator)
        self.action: nn.Linear | None = None
        if isinstance(done, Continuous):
            self.action = nn.Linear(done.dim, width)
            nn.init.normal_(self.action.weight, std=0.02, generator=generator)
            nn.init.zeros_(self.action.bias)
        if self.tokens_per_step > 1:
            # What kind of token it is: without learned positions, nothing else says so.
            kinds = 0.02 * torch.randn(self.tokens_per_step, width, generator=generator)
            self.kinds = nn.Parameter(kinds)

    def forward(self, steps: TimestepBatch) -> Float[Tensor, "B K D"]:
        """Embed each time step by itself."""
        parts = self._embedded(steps)
        reward = steps.prev_reward[..., None] * self.reward
        action = None if self.action is None else self.action(steps.prev_action)
        seen = None if self.observation is None else self.observation(steps.obs)
        if self.tokens_per_step == 1:
            token = parts.sum(dim=-2) + reward
            token = token if action is None else token + action
            return token if seen is None else token + seen
        if action is None:
            action = parts[..., self.num_symbols, :]
        if seen is None:
            seen = parts[..., : self.num_symbols, :].sum(dim=-2)
        observation = seen + parts[..., -1, :]
        tokens: Float[Tensor, "B K D"] = (
            torch.stack([action, reward, observation], dim=2) + self.kinds
        ).flatten(1, 2)
        return tokens

    def _embedded(self, steps: TimestepBatch) -> Float[Tensor, "B T P D"]:
        """All that is discrete, row by row of the table: symbols, previous action, first or not."""
        discrete = [steps.episode_start[..., None].long()]
        if self.action is None:
            discrete.insert(0, steps.prev_action[..., None])
        if self.observation is None:
            discrete.insert(0, steps.obs)
        rows = torch.cat(discrete, dim=-1) + self.offsets
        return nn.functional.embedding(rows, self.table)
