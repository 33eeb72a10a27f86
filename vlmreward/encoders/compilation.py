"""Image towers compiled by `torch.compile`.

Axes: `B` batch, `S T` height and width of the model's input.
"""

from __future__ import annotations

import warnings

import torch
from jaxtyping import Float
from torch import nn


def compile_tower(tower: nn.Module, pixels: Float[torch.Tensor, "B 3 S T"]) -> None:
    """Compiles an image tower in place, for batches of any size.

    It stays the module that it was, with the same parameters under the same names, and is only
    called another way. A copy of it is not compiled.

    Args:
        tower: In evaluation mode and in its final precision.
        pixels: An input such as it will be given, of two rows or more: torch.compile makes a
            program of its own for one row alone, when the first comes.

    Raises:
        RuntimeError: If it cannot be compiled, as where there is no C++ compiler.
    """
    assert len(pixels) > 1
    tower.compile()
    # Only the batch varies. With symbols for height and width as well, programs take longer to
    # make and to run; padding would cost a whole batch for every ragged one.
    torch._dynamo.maybe_mark_dynamic(pixels, 0)
    try:
        with torch.no_grad(), warnings.catch_warnings():
            # Programs with torchao's tensors are not cached on disk; that is all it says.
            warnings.filterwarnings("ignore", "Int8Tensor does not implement _stable_hash")
            tower(pixels)
    except torch._dynamo.exc.TorchDynamoException as error:
        raise RuntimeError(
            f"torch.compile failed for a {type(tower).__name__} on {str(pixels.device)!r} "
            f"({str(error).splitlines()[0]}). It needs a C++ compiler, g++ or the one that the "
            "variable CXX names, and on a GPU Triton besides: install them, or leave out `compile`"
        ) from error
