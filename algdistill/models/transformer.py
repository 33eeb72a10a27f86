r"""The causal transformer of Algorithm Distillation (Laskin et al. 2022).

Blocks over tokens :math:`x_t` of `TimestepEncoder` with learned positions :math:`p_t`, here with
one token a step and the norm before each part:

.. math::
    h^0_t &= x_t + p_t \\
    u^l &= h^{l-1} + \mathrm{Attention}(\mathrm{LayerNorm}(h^{l-1})) \\
    h^l &= u^l + \mathrm{MLP}(\mathrm{LayerNorm}(u^l)) \\
    \pi(a \mid \text{history up to } t) &= \mathrm{softmax}(W\,\mathrm{LayerNorm}(h^L_t))

With the norm after, :math:`u^l = \mathrm{LayerNorm}(h^{l-1} + \mathrm{Attention}(h^{l-1}))`, the
MLP likewise, and nothing is left to normalise before :math:`W`. With three tokens a step the
action is read from the last of them, the observation's. With rotary positions :math:`h^0_t = x_t`.

Paper → code: embedding size → ``embed_dim``, token masking → the ``masked`` argument.

Axis letters: ``B`` batch, ``T`` time steps, ``K`` tokens, ``D`` width, ``A`` numbers put out for an
action: logits of discrete actions; for continuous ones see `algdistill.models.action_head`.
"""

from __future__ import annotations

import math

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from algdistill.models.action_head import num_outputs
from algdistill.models.block import Block, KeyValueCache, RotaryPositions, dropped
from algdistill.models.config import ADTransformerConfig
from algdistill.models.timestep_encoder import TimestepEncoder
from algdistill.timesteps import TimestepBatch


class ADTransformer(nn.Module):
    """Predicts the source's action at every time step from the steps up to it.

    Args:
        config: Shape of the model.
        generator: Draws the initial weights.
    """

    def __init__(self, config: ADTransformerConfig, generator: torch.Generator) -> None:
        super().__init__()
        self.config = config
        self.encoder = TimestepEncoder(config, generator)
        self.positions: nn.Parameter | None = None
        self.rotary: RotaryPositions | None = None
        if config.positions == "learned":
            self.positions = nn.Parameter(torch.empty(config.num_tokens, config.embed_dim))
        else:
            self.rotary = RotaryPositions(config.num_tokens, config.head_dim)
        self.mask_token = nn.Parameter(torch.empty(config.embed_dim))
        self.blocks = nn.ModuleList(Block(config, layer) for layer in range(config.num_layers))
        self.final_norm = nn.LayerNorm(config.embed_dim) if config.norm == "pre" else nn.Identity()
        self.action_head = nn.Linear(config.embed_dim, num_outputs(config.space.actions))
        self._initialise(generator)

    def _initialise(self, generator: torch.Generator) -> None:
        """Small normal weights; the layers that write to the residual stream start smaller."""
        for name, parameter in self.named_parameters():
            if "norm" in name or name.startswith("encoder."):
                continue
            if name.endswith("bias"):
                nn.init.zeros_(parameter)
                continue
            residual = name.endswith(("attention_out.weight", "mlp_out.weight"))
            std = 0.02 / math.sqrt(2 * self.config.num_layers) if residual else 0.02
            nn.init.normal_(parameter, std=std, generator=generator)

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.mask_token.device

    def forward(
        self,
        steps: TimestepBatch,
        masked: Bool[Tensor, "B T"] | None = None,
        cache: KeyValueCache | None = None,
        generator: torch.Generator | None = None,
    ) -> Float[Tensor, "B T A"]:
        """Logits of the action at every time step: `encode`, then `predict`.

        Args:
            steps: What is known at each step.
            masked: Steps whose tokens are hidden behind the mask token.
            cache: See `predict`.
            generator: See `predict`.

        Raises:
            ValueError: If there are more steps than the context holds.
        """
        tokens = self.encode(steps)
        if masked is not None:
            if self.config.tokens_per_step > 1:
                masked = masked.repeat_interleave(self.config.tokens_per_step, dim=1)
            tokens = torch.where(masked[..., None], self.mask_token, tokens)
        return self.predict(tokens, cache, generator)

    def encode(self, steps: TimestepBatch) -> Float[Tensor, "B K D"]:
        """Turn each time step into its tokens, which say nothing of its neighbours."""
        tokens: Float[Tensor, "B K D"] = self.encoder(steps)
        return tokens

    def predict(
        self,
        tokens: Float[Tensor, "B K D"],
        cache: KeyValueCache | None = None,
        generator: torch.Generator | None = None,
    ) -> Float[Tensor, "B T A"]:
        """Logits of the action at every time step, from the tokens of the steps up to it.

        Args:
            tokens: What `encode` made of the steps.
            cache: The steps before, to which these are added.
            generator: Draws what is dropped out, in training; without it nothing is.

        Raises:
            ValueError: If there are more steps than the context holds.
        """
        past = 0 if cache is None else cache.num_tokens
        end = past + tokens.shape[1]
        if end > self.config.num_tokens:
            raise ValueError(
                f"got {end // self.config.tokens_per_step} time steps, expected at most "
                f"context_length={self.config.context_length}: drop the oldest ones"
            )
        hidden = tokens if self.positions is None else tokens + self.positions[past:end]
        hidden = dropped(hidden, self.config.dropout, generator)
        for block in self.blocks:
            hidden = block(hidden, cache, self.rotary, generator)
        if cache is not None:
            cache.num_tokens = end
        if self.config.tokens_per_step > 1:
            hidden = hidden[:, self.config.tokens_per_step - 1 :: self.config.tokens_per_step]
        logits: Float[Tensor, "B T A"] = self.action_head(self.final_norm(hidden))
        return logits
