r"""Memory over an episode of any length: what has been seen up to a step, in a few tokens.

Three of one interface, whose cost and state are the same at every step:

- `MeanMemory`, the baseline to beat: the mean of all tokens of the episode.
- `TransformerCombiner` (the Combiner of Piergiovanni et al. 2023, Mirasol3B, made recurrent): a
  transformer over the step's tokens and :math:`m` learned queries, to which what was put out last
  is added; the last :math:`m` outputs, the queries', are kept.
- `TTMCombiner`: what a `TokenTuringMachine` puts out.

With ``time_stamps``, each token is told its step :math:`n` of the episode, from 0, by the sines and
cosines of Vaswani et al. 2017:

.. math::
    \mathrm{stamp}(n)_i = \sin(n \omega_i), \quad \mathrm{stamp}(n)_{i + D/2} = \cos(n \omega_i),
    \quad \omega_i = 10000^{-2i/D}

They have no last step and no parameters, and are added as they are: tokens should be of their size,
as those that leave a LayerNorm are, not unit vectors.

Axis letters: ``B`` batch, ``T`` time steps, ``K`` tokens of a step, ``M`` tokens put out, ``C``
tokens carried, ``D`` width, ``S`` some rows.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, field, replace

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor, nn

from vlmreward.backbone.layers import Block, learned, small_at_first
from vlmreward.backbone.state import StateError, check_is_first, check_state_shape
from vlmreward.backbone.ttm import TokenTuringMachine, TTMConfig

_STAMP_BASE = 10_000.0


@dataclass(frozen=True)
class MemoryState:
    """What a memory knows of the current episode of every row.

    Attributes:
        carried: Tokens carried from step to step.
        num_steps: Steps of the episode seen so far.
        memory: Whose state it is.
    """

    carried: Float[Tensor, "B C D"]
    num_steps: Int64[Tensor, " B"]
    memory: TokenMemory = field(repr=False, compare=False)

    def __getitem__(self, rows: Int64[Tensor, " S"]) -> MemoryState:
        """Return the states of some rows."""
        return replace(self, carried=self.carried[rows], num_steps=self.num_steps[rows])

    def replace_rows(self, rows: Int64[Tensor, " S"], by: MemoryState) -> MemoryState:
        """Return the same states, those of some rows being others."""
        return replace(
            self,
            carried=self.carried.index_copy(0, rows, by.carried),
            num_steps=self.num_steps.index_copy(0, rows, by.num_steps),
        )


def sinusoidal_stamps(num_steps: Int64[Tensor, " B"], embed_dim: int) -> Float[Tensor, "B D"]:
    """Return sines and cosines of step numbers, which tell any two steps apart.

    Raises:
        ValueError: If the width is odd or below 2: a sine goes with a cosine.

    Example:
        >>> sinusoidal_stamps(torch.tensor([0, 1]), 2)
        tensor([[0.0000, 1.0000],
                [0.8415, 0.5403]])
    """
    if embed_dim < 2 or embed_dim % 2:
        raise ValueError(f"got embed_dim={embed_dim}, expected an even number for time stamps")
    # In single precision the angles of late steps would be off by more than a step.
    places = torch.arange(0, embed_dim, 2, dtype=torch.float64, device=num_steps.device)
    angles = num_steps[:, None] * _STAMP_BASE ** (-places / embed_dim)
    return torch.cat([angles.sin(), angles.cos()], dim=1).float()


class TokenMemory(nn.Module, ABC):
    """Sums up the steps of an episode so far in a fixed number of tokens.

    Called with all steps at once or fed one `step` after the other, it gives the same.

    Args:
        embed_dim: D.
        num_outputs: M.
        num_carried: C.
        time_stamps: Whether tokens are told their step of the episode.

    Raises:
        ValueError: If a size is below 1, or the width is odd and there are time stamps.
    """

    def __init__(
        self, embed_dim: int, num_outputs: int, num_carried: int, *, time_stamps: bool
    ) -> None:
        super().__init__()
        if min(embed_dim, num_outputs, num_carried) < 1:
            raise ValueError(
                f"got embed_dim={embed_dim}, num_outputs={num_outputs} and "
                f"num_carried={num_carried}, expected sizes of at least 1"
            )
        if time_stamps and embed_dim % 2:
            raise ValueError(f"got embed_dim={embed_dim}, expected an even number for time stamps")
        self.embed_dim = embed_dim
        self.num_outputs = num_outputs
        self.has_time_stamps = time_stamps
        self.register_buffer("start", torch.zeros(num_carried, embed_dim), persistent=False)
        self.start: Tensor

    @abstractmethod
    def _combine(
        self,
        tokens: Float[Tensor, "B K D"],
        carried: Float[Tensor, "B C D"],
        num_steps: Int64[Tensor, " B"],
    ) -> tuple[Float[Tensor, "B M D"], Float[Tensor, "B C D"]]:
        """Return what a step puts out and what the next one is handed.

        Args:
            tokens: The step's.
            carried: From the step before; zeros at an episode's first step.
            num_steps: Steps of the episode before this one.
        """

    def initial_state(self, batch_size: int) -> MemoryState:
        """What is known before an episode's first step."""
        return MemoryState(
            carried=self.start.expand(batch_size, -1, -1),
            num_steps=torch.zeros(batch_size, dtype=torch.long, device=self.start.device),
            memory=self,
        )

    def step(
        self,
        tokens: Float[Tensor, "B K D"],
        is_first: Tensor,
        state: MemoryState | None,
    ) -> tuple[Float[Tensor, "B M D"], MemoryState]:
        """Take in one step of every row.

        Args:
            tokens: The step's; there may be another number of them at the next.
            is_first: Rows of which this step starts an episode, bool `[B]`; what they knew is
                forgotten.
            state: What the step before returned; `initial_state` if None.

        Returns:
            The episode so far in M tokens, and the state for the next step.

        Raises:
            ValueError: If there are no tokens, or they have another width.
            StateError: If the state is of another memory or batch, or flags are not one a row.
        """
        if tokens.shape[1] == 0 or tokens.shape[2] != self.embed_dim:
            raise ValueError(
                f"got {tokens.shape[1]} tokens of width {tokens.shape[2]}, expected at least 1, of "
                f"width embed_dim={self.embed_dim}"
            )
        if state is None:
            state = self.initial_state(len(tokens))
        self._check(state, is_first, len(tokens))
        num_steps = state.num_steps.masked_fill(is_first, 0)
        carried = torch.where(is_first[:, None, None], self.start, state.carried)
        if self.has_time_stamps:
            stamps = sinusoidal_stamps(num_steps, self.embed_dim)
            tokens = tokens + stamps[:, None].to(tokens.dtype)
        summary, carried = self._combine(tokens, carried, num_steps)
        return summary, MemoryState(carried, num_steps + 1, self)

    def _check(self, state: MemoryState, is_first: Tensor, batch_size: int) -> None:
        if state.memory is not self:
            raise StateError(
                f"got a state of another memory, a {type(state.memory).__name__}, expected one "
                f"that this {type(self).__name__} returned: begin with its initial_state"
            )
        check_state_shape("a state", state.carried, (batch_size, *self.start.shape))
        check_is_first(is_first, batch_size)

    def forward(
        self, tokens: Float[Tensor, "B T K D"], is_first: Bool[Tensor, "B T"]
    ) -> Float[Tensor, "B T M D"]:
        """Return the episode so far at every step.

        Args:
            tokens: Of every step.
            is_first: Steps that start an episode; the first of a row does so in any case.
        """
        state = self.initial_state(len(tokens))
        summaries = []
        for time in range(tokens.shape[1]):
            summary, state = self.step(tokens[:, time], is_first[:, time], state)
            summaries.append(summary)
        return torch.stack(summaries, dim=1)


class MeanMemory(TokenMemory):
    """The mean over the steps of the episode of each step's mean token; learns nothing.

    Args:
        embed_dim: D.
    """

    def __init__(self, embed_dim: int) -> None:
        super().__init__(embed_dim, num_outputs=1, num_carried=1, time_stamps=False)

    def _combine(
        self,
        tokens: Float[Tensor, "B K D"],
        carried: Float[Tensor, "B C D"],
        num_steps: Int64[Tensor, " B"],
    ) -> tuple[Float[Tensor, "B M D"], Float[Tensor, "B C D"]]:
        change = tokens.mean(dim=1, keepdim=True) - carried
        mean = carried + change / (num_steps + 1)[:, None, None]
        return mean, mean


@dataclass(frozen=True)
class CombinerConfig:
    """Shape of a `TransformerCombiner`.

    Attributes:
        embed_dim: Width of a token.
        num_outputs: Tokens that are put out, and carried to the next step.
        num_layers: Transformer blocks.
        num_heads: Attention heads; they divide ``embed_dim``.
        mlp_dim: Width of the hidden layer of each block's MLP.

    Raises:
        ValueError: If a size is below 1.
    """

    embed_dim: int = 128
    num_outputs: int = 8
    num_layers: int = 2
    num_heads: int = 4
    mlp_dim: int = 512

    def __post_init__(self) -> None:
        for name, size in vars(self).items():
            if size < 1:
                raise ValueError(f"got {name}={size}, expected at least 1")


class TransformerCombiner(TokenMemory):
    """A transformer over the step's tokens and learned queries, which go on from the last outputs.

    Being added to the queries, what was put out last has a residual path to what is put out next:
    without it, memory over several steps is learned at fewer learning rates. What the blocks add to
    that path is small at first, so that what is carried lasts for many steps before anything is
    learned. The transformer knows the tokens of a step by their content only: positions are the
    tokeniser's to add.

    Args:
        config: Shape of the transformer.
        generator: Draws the initial weights.
        time_stamps: Whether tokens are told their step of the episode.
    """

    def __init__(
        self, config: CombinerConfig, generator: torch.Generator, *, time_stamps: bool = False
    ) -> None:
        width, num_outputs = config.embed_dim, config.num_outputs
        super().__init__(width, num_outputs, num_carried=num_outputs, time_stamps=time_stamps)
        self.config = config
        self.queries = learned(num_outputs, width, generator=generator)
        self.blocks = nn.ModuleList(
            small_at_first(Block(width, config.num_heads, config.mlp_dim, generator))
            for _ in range(config.num_layers)
        )
        self.final_norm = nn.LayerNorm(width)

    def _combine(
        self,
        tokens: Float[Tensor, "B K D"],
        carried: Float[Tensor, "B C D"],
        num_steps: Int64[Tensor, " B"],
    ) -> tuple[Float[Tensor, "B M D"], Float[Tensor, "B C D"]]:
        hidden = torch.cat([tokens, self.queries + carried], dim=1)
        for block in self.blocks:
            hidden = block(hidden)
        summary = self.final_norm(hidden[:, -self.num_outputs :])
        return summary, summary


class TTMCombiner(TokenMemory):
    """What a Token Turing Machine puts out; its memory is what is carried.

    Args:
        config: Shape of the machine.
        generator: Draws the initial weights.
        time_stamps: Whether tokens are told their step of the episode.
    """

    def __init__(
        self, config: TTMConfig, generator: torch.Generator, *, time_stamps: bool = False
    ) -> None:
        super().__init__(
            config.embed_dim,
            num_outputs=config.num_process_tokens,
            num_carried=config.num_memory_tokens,
            time_stamps=time_stamps,
        )
        self.machine = TokenTuringMachine(config, generator)

    def _combine(
        self,
        tokens: Float[Tensor, "B K D"],
        carried: Float[Tensor, "B C D"],
        num_steps: Int64[Tensor, " B"],
    ) -> tuple[Float[Tensor, "B M D"], Float[Tensor, "B C D"]]:
        output, memory = self.machine.step(tokens, carried)
        return output, memory
