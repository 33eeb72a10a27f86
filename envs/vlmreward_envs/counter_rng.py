"""Random numbers as a pure function of (seed, stream, index).

A batch of rooms cannot share one sequential generator: room ``i`` would then depend on how many
rooms stand beside it. Here every draw is the SplitMix64 finaliser (Steele, Lea & Flood 2014,
"Fast Splittable Pseudorandom Number Generators") of the room's own seed and a stream number, so a
room is the same alone, among thousands, and on every torch device.

Axis letters: ``B`` rooms, ``M`` draws per room.
"""

import torch
from jaxtyping import Float, Int64
from torch import Tensor


def _to_signed(constant: int) -> int:
    """Return the int64 with the bit pattern of an unsigned 64-bit ``constant``."""
    return constant - (1 << 64) if constant >= 1 << 63 else constant


_GOLDEN_GAMMA = _to_signed(0x9E3779B97F4A7C15)
_MIX_1 = _to_signed(0xBF58476D1CE4E5B9)
_MIX_2 = _to_signed(0x94D049BB133111EB)


def _shift_right(bits: Tensor, count: int) -> Tensor:
    """Logical right shift: torch's ``>>`` on int64 drags the sign bit along."""
    return (bits >> count) & ((1 << (64 - count)) - 1)


def _mix(bits: Tensor) -> Tensor:
    bits = (bits ^ _shift_right(bits, 30)) * _MIX_1
    bits = (bits ^ _shift_right(bits, 27)) * _MIX_2
    return bits ^ _shift_right(bits, 31)


def fold(seed: Int64[Tensor, " B"], stream: int | Int64[Tensor, " B"]) -> Int64[Tensor, " B"]:
    """Return the seed of a sub-stream: independent of ``seed`` and of every other ``stream``."""
    stream = torch.as_tensor(stream, dtype=torch.int64, device=seed.device)
    return _mix(_mix(seed + _GOLDEN_GAMMA) + (stream + 1) * _GOLDEN_GAMMA)


def uniform(seed: Int64[Tensor, " B"], num_draws: int) -> Float[Tensor, "B M"]:
    """Draw ``num_draws`` float32 numbers per row, uniform in [0, 1) on a grid of 2**-24."""
    index = torch.arange(1, num_draws + 1, device=seed.device)
    bits = _mix(seed[:, None] + index * _GOLDEN_GAMMA)
    return _shift_right(bits, 40).to(torch.float32) * 2.0**-24


def integers(
    seed: Int64[Tensor, " B"], num_draws: int, low: int, high: int
) -> Int64[Tensor, "B M"]:
    """Draw ``num_draws`` integers per row, uniform in [``low``, ``high``)."""
    return low + (uniform(seed, num_draws).double() * (high - low)).long()


def choose_distinct(
    seed: Int64[Tensor, " B"], num_draws: int, allowed: Tensor
) -> Int64[Tensor, "B M"]:
    """Draw ``num_draws`` distinct indices per row, uniform over the ``True`` places of ``allowed``.

    Args:
        seed: One stream per row.
        num_draws: Indices per row; at most the number of allowed places of every row.
        allowed: Boolean ``[B, P]`` (or ``[P]``, the same for every row).
    """
    keys = uniform(seed, allowed.shape[-1]).masked_fill(~allowed, 2.0)
    return keys.argsort(dim=1, stable=True)[:, :num_draws]
