"""Random numbers by counter: each learner of a fleet owns a stream that no other learner moves.

Number ``k`` of stream ``s`` is a hash of ``(s, k)``, SplitMix64 (Steele, Lea and Flood 2014), so a
learner draws the same numbers alone, in a fleet, and after a restart, on any device.

Axis letters: ``N`` streams, ``K`` numbers drawn from each.
"""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor

# SplitMix64's constants, as signed 64-bit integers: torch multiplies those modulo 2**64.
_GOLDEN_GAMMA = 0x9E3779B97F4A7C15 - 2**64
_MIX_1 = 0xBF58476D1CE4E5B9 - 2**64
_MIX_2 = 0x94D049BB133111EB - 2**64


def _shift_right(values: Int[Tensor, "*shape"], bits: int) -> Int[Tensor, "*shape"]:
    """Shift as unsigned: torch's own shift repeats the sign bit."""
    return (values >> bits) & ((1 << (64 - bits)) - 1)


def _mix(values: Int[Tensor, "*shape"]) -> Int[Tensor, "*shape"]:
    """SplitMix64's finaliser: every input bit reaches every output bit."""
    values = (values ^ _shift_right(values, 30)) * _MIX_1
    values = (values ^ _shift_right(values, 27)) * _MIX_2
    return values ^ _shift_right(values, 31)


def uniform_block(stream_seeds: Int[Tensor, " N"], first: int, count: int) -> Float[Tensor, "K N"]:
    """Numbers ``first … first + count - 1`` of every stream, uniform in [0, 1), 24 bits each."""
    # The seed is hashed first, so that neighbouring seeds do not give shifted copies of a stream.
    origin = _mix(stream_seeds + _GOLDEN_GAMMA)
    counters = torch.arange(first + 1, first + count + 1, device=stream_seeds.device)
    bits = _mix(origin + counters[:, None] * _GOLDEN_GAMMA)
    return _shift_right(bits, 40).to(torch.float32) * 2.0**-24
