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


def _xor_shifted_(values: Int[Tensor, "*shape"], bits: int) -> Int[Tensor, "*shape"]:
    """``values ^= values >> bits``, shifted as unsigned: torch's own shift repeats the sign bit."""
    return values.bitwise_xor_((values >> bits).bitwise_and_((1 << (64 - bits)) - 1))


def _mix_(values: Int[Tensor, "*shape"]) -> Int[Tensor, "*shape"]:
    """SplitMix64's finaliser, in place: every input bit reaches every output bit."""
    _xor_shifted_(values, 30).mul_(_MIX_1)
    _xor_shifted_(values, 27).mul_(_MIX_2)
    return _xor_shifted_(values, 31)


def stream_origins(stream_seeds: Int[Tensor, " N"]) -> Int[Tensor, " N"]:
    """Where each stream begins: its seed hashed, or neighbours would be shifted copies."""
    return _mix_(stream_seeds + _GOLDEN_GAMMA)


def uniform_at(
    origins: Int[Tensor, "*#shape"], counters: Int[Tensor, "*#shape"]
) -> Float[Tensor, "*#shape"]:
    """The numbers at ``counters``, from 0, of streams that begin at ``origins``.

    Both are broadcast; numbers are uniform in [0, 1), 24 bits each.
    """
    bits = _mix_(origins + (counters + 1) * _GOLDEN_GAMMA)
    return (bits >> 40).bitwise_and_((1 << 24) - 1).to(torch.float32).mul_(2.0**-24)


def uniform_block(stream_seeds: Int[Tensor, " N"], first: int, count: int) -> Float[Tensor, "K N"]:
    """Numbers ``first … first + count - 1`` of every stream, uniform in [0, 1), 24 bits each."""
    counters = torch.arange(first, first + count, device=stream_seeds.device)
    return uniform_at(stream_origins(stream_seeds), counters[:, None])
