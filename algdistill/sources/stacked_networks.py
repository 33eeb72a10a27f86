r"""Networks of many learners as stacked tensors: one batched product serves all of them.

Learner ``i`` owns slice ``i`` of every parameter, and no operation mixes slices. On a CPU a learner
computes the same bits alone as among thousands, because every matrix begins on a cache line of its
own: widths are multiples of `WIDTH_MULTIPLE`, and kernels choose their way by shape and alignment.

Axis letters: ``N`` learners, ``B`` observations of each, ``O`` components of a symbolic
observation, ``D`` features, ``H`` width of a layer, ``K`` outputs.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from jaxtyping import Float, Int, Shaped
from torch import Tensor, nn
from torch.nn import functional

from algdistill.sources.random_streams import uniform_at
from algdistill.spaces import Embedding, Pixels, Symbolic
from algdistill.task_space import TaskSpace

WIDTH_MULTIPLE = 16
"""Numbers of four bytes in a cache line."""

_FIRST_COUNTER = 1 << 40  # far beyond the numbers that a learner acts by


class WeightStreams:
    """Draws initial weights, each learner's from its own stream.

    Args:
        origins: Where the stream of each learner begins.
    """

    def __init__(self, origins: Int[Tensor, " N"]) -> None:
        self._origins = origins
        self._counter = _FIRST_COUNTER

    @property
    def num_learners(self) -> int:
        """``N``."""
        return len(self._origins)

    def uniform(self, *shape: int, bound: float) -> nn.Parameter:
        """A parameter ``[N, *shape]``, uniform in [-bound, bound)."""
        count = math.prod(shape)
        counters = torch.arange(self._counter, self._counter + count, device=self._origins.device)
        self._counter += count
        numbers = uniform_at(self._origins[:, None], counters)
        return nn.Parameter(((2.0 * numbers - 1.0) * bound).view(-1, *shape))

    def zeros(self, *shape: int) -> nn.Parameter:
        """A parameter ``[N, *shape]`` of zeros; no number is drawn."""
        return nn.Parameter(torch.zeros(self.num_learners, *shape, device=self._origins.device))


FirstLayer = Callable[[WeightStreams, int], nn.Module]
"""Makes a layer ``[N, B, *observation] -> [N, B, H]``, given the streams and ``H``."""


class StackedLinear(nn.Module):
    """An affine map for each learner, as `torch.nn.Linear` is for one.

    Args:
        streams: Where initial weights come from; Glorot and Bengio 2010, uniform.
        num_features: ``D``.
        width: ``H``.
    """

    def __init__(self, streams: WeightStreams, num_features: int, width: int) -> None:
        super().__init__()
        bound = math.sqrt(6.0 / (num_features + width))
        self.weight = streams.uniform(num_features, width, bound=bound)
        self.bias = streams.zeros(1, width)

    def forward(self, features: Float[Tensor, "N B D"]) -> Float[Tensor, "N B H"]:
        """Map every learner's features."""
        return torch.baddbmm(self.bias, features, self.weight)


class StackedLookup(nn.Module):
    """The same on one-hot encoded observations: one row is looked up for each component.

    There is no bias, since each component always contributes one of its rows.

    Args:
        streams: Where initial weights come from.
        observation_sizes: Number of values of each component.
        width: ``H``.
    """

    offsets: Tensor

    def __init__(
        self, streams: WeightStreams, observation_sizes: Sequence[int], width: int
    ) -> None:
        super().__init__()
        num_rows = sum(observation_sizes)
        self.weight = streams.uniform(
            num_rows, width, bound=1.0 / math.sqrt(len(observation_sizes))
        )
        device = self.weight.device
        first = torch.tensor(observation_sizes, device=device).cumsum(0).roll(1)
        first[0] = 0
        learner = torch.arange(streams.num_learners, device=device)[:, None, None] * num_rows
        self.register_buffer("offsets", learner + first, persistent=False)

    def forward(self, obs: Int[Tensor, "N B O"]) -> Float[Tensor, "N B H"]:
        """Sum the rows that the components select."""
        rows = obs + self.offsets
        table = self.weight.flatten(0, 1)
        result = functional.embedding(rows[..., 0], table)
        for component in range(1, rows.shape[-1]):
            result = result + functional.embedding(rows[..., component], table)
        return result


def symbolic_layer(observation_sizes: Sequence[int]) -> FirstLayer:
    """Make first layers that read symbolic observations."""
    return lambda streams, width: StackedLookup(streams, observation_sizes, width)


def feature_layer(num_features: int) -> FirstLayer:
    """Make first layers that read ``num_features`` numbers, a frozen encoder's embedding say."""
    return lambda streams, width: StackedLinear(streams, num_features, width)


def layer_for(space: TaskSpace) -> FirstLayer:
    """Make first layers that read the observations of a space.

    Raises:
        ValueError: If they are pixels.
    """
    match space.observations:
        case Symbolic(sizes):
            return symbolic_layer(sizes)
        case Embedding(dim):
            return feature_layer(dim)
        case Pixels() as pixels:
            raise ValueError(
                f"got observations {pixels} and no first_layer, expected one that reads them, or "
                "tasks that show a frozen encoder's embeddings"
            )


def check_width(hidden_size: int) -> None:
    """Refuse, with a `ValueError`, a width that is no multiple of `WIDTH_MULTIPLE`."""
    if hidden_size < 1 or hidden_size % WIDTH_MULTIPLE:
        raise ValueError(f"got hidden_size={hidden_size}, expected a multiple of {WIDTH_MULTIPLE}")


class StackedPerceptron(nn.Module):
    """A perceptron for each learner, with tanh after each layer but the last, the head.

    The head begins at zero: at first all outputs are 0, whatever is observed.

    Args:
        streams: Where initial weights come from.
        first_layer: Reads observations.
        hidden_size: ``H``.
        num_layers: Layers before the head, the first included.
        num_outputs: ``K``.
    """

    def __init__(
        self,
        streams: WeightStreams,
        first_layer: FirstLayer,
        hidden_size: int,
        num_layers: int,
        num_outputs: int,
    ) -> None:
        super().__init__()
        self._num_outputs = num_outputs
        self.layers = nn.ModuleList(
            [
                first_layer(streams, hidden_size),
                *(StackedLinear(streams, hidden_size, hidden_size) for _ in range(num_layers - 1)),
            ]
        )
        width = math.ceil(num_outputs / WIDTH_MULTIPLE) * WIDTH_MULTIPLE
        self.head_weight = streams.zeros(hidden_size, width)
        self.head_bias = streams.zeros(1, width)

    def forward(self, obs: Shaped[Tensor, "N B ..."]) -> Float[Tensor, "N B K"]:
        """Return every learner's outputs for its observations."""
        hidden = obs
        for layer in self.layers:
            hidden = torch.tanh(layer(hidden))
        outputs = torch.baddbmm(self.head_bias, hidden, self.head_weight)
        return outputs[..., : self._num_outputs]
