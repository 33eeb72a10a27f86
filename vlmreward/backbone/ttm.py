r"""The Token Turing Machine (Ryoo et al. 2022): a memory of tokens, read and written every step.

With memory :math:`M`, the step's tokens :math:`I` and summarisers :math:`S`:

.. math::
    Z &= S_r([M \mid I]) \\
    O &= \mathrm{Process}(Z) \\
    M' &= S_m([M \mid I \mid O])

``Process`` is a transformer over :math:`Z` with learned positions and a norm at the end. The memory
starts at zero, and each of its tokens stays a weighted mean of memory, input and output: it cannot
grow beyond them, however long the episode. The cost of a step does not depend on the steps before.

Paper → code: :math:`m` → ``num_memory_tokens``, :math:`r` → ``num_process_tokens``.

Axis letters: ``B`` batch, ``T`` time steps, ``K`` tokens of a step, ``M`` memory tokens, ``R``
processed tokens, ``D`` width.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from vlmreward.backbone.layers import Block, learned
from vlmreward.backbone.summariser import TokenSummariser


@dataclass(frozen=True)
class TTMConfig:
    """Shape of the machine; the defaults are the paper's for ViT-B tokens.

    Attributes:
        embed_dim: Width of a token.
        num_memory_tokens: Tokens that are carried from step to step.
        num_process_tokens: Tokens that are read, processed and put out at each step.
        num_layers: Transformer blocks of the processing.
        num_heads: Attention heads; they divide ``embed_dim``.
        mlp_dim: Width of the hidden layer of each block's MLP.
        summariser_dim: Width of the hidden layer of the reading and the writing MLP.

    Raises:
        ValueError: If a size is below 1.
    """

    embed_dim: int = 768
    num_memory_tokens: int = 64
    num_process_tokens: int = 8
    num_layers: int = 4
    num_heads: int = 12
    mlp_dim: int = 512
    summariser_dim: int = 64

    def __post_init__(self) -> None:
        for name, size in vars(self).items():
            if size < 1:
                raise ValueError(f"got {name}={size}, expected at least 1")


class TokenTuringMachine(nn.Module):
    """Reads, processes and writes a memory of tokens at every step.

    Args:
        config: Shape of the machine.
        generator: Draws the initial weights.
    """

    def __init__(self, config: TTMConfig, generator: torch.Generator) -> None:
        super().__init__()
        self.config = config
        width = config.embed_dim
        self.read = TokenSummariser(
            width, config.num_process_tokens, generator, config.summariser_dim
        )
        self.positions = learned(config.num_process_tokens, width, generator=generator)
        self.blocks = nn.ModuleList(
            Block(width, config.num_heads, config.mlp_dim, generator)
            for _ in range(config.num_layers)
        )
        self.final_norm = nn.LayerNorm(width)
        self.write = TokenSummariser(
            width, config.num_memory_tokens, generator, config.summariser_dim
        )

    def initial_memory(self, batch_size: int) -> Float[Tensor, "B M D"]:
        """The memory before an episode's first step: zeros."""
        shape = (batch_size, self.config.num_memory_tokens, self.config.embed_dim)
        return self.positions.new_zeros(shape)

    def step(
        self, tokens: Float[Tensor, "B K D"], memory: Float[Tensor, "B M D"]
    ) -> tuple[Float[Tensor, "B R D"], Float[Tensor, "B M D"]]:
        """Return what one step puts out, and the memory after it."""
        output = self.read(torch.cat([memory, tokens], dim=1)) + self.positions
        for block in self.blocks:
            output = block(output)
        output = self.final_norm(output)
        return output, self.write(torch.cat([memory, tokens, output], dim=1))

    def forward(
        self, tokens: Float[Tensor, "B T K D"], is_first: Bool[Tensor, "B T"] | None = None
    ) -> Float[Tensor, "B T R D"]:
        """Return what every step puts out, from the steps of its episode up to it.

        Args:
            tokens: Of every step.
            is_first: Steps that start an episode, before which a row's memory is emptied; the row's
                first step does so in any case.
        """
        memory = self.initial_memory(len(tokens))
        outputs = []
        for time in range(tokens.shape[1]):
            if is_first is not None:
                memory = memory.masked_fill(is_first[:, time, None, None], 0.0)
            output, memory = self.step(tokens[:, time], memory)
            outputs.append(output)
        return torch.stack(outputs, dim=1)
