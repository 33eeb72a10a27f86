"""Several processes as one: they meet, and each takes its share of every batch.

Axis letters: ``B`` windows, ``S`` of them one process's share, ``T`` time steps.
"""

from __future__ import annotations

import os

from accelerate import Accelerator
from jaxtyping import Bool
from torch import Tensor

from algdistill.histories.pool import WindowBatch


def meet(*, on_cpu: bool) -> Accelerator:
    """Bring together the processes that a launcher started, or this one alone.

    The model says where to compute, and its device how precisely: that is not left to accelerate.

    Raises:
        RuntimeError: If other processes were started as well, but have not met this one.
    """
    num_launched = int(os.environ.get("WORLD_SIZE", "1"))
    accelerator = Accelerator(
        device_placement=False, mixed_precision="no", cpu=on_cpu and num_launched > 1
    )
    if accelerator.num_processes != num_launched:
        raise RuntimeError(
            f"got {accelerator.num_processes} process, expected the {num_launched} that were "
            "started: on a CPU, any earlier `PartialState` or `Accelerator` needs cpu=True"
        )
    return accelerator


def own_share(
    accelerator: Accelerator, batch: WindowBatch, masked: Bool[Tensor, "B T"]
) -> tuple[WindowBatch, Bool[Tensor, "S T"], float]:
    """This process's windows, and what to multiply its mean over steps that are not masked with.

    The mean of all processes' products is the mean over all steps that are not masked.
    """
    num_processes = accelerator.num_processes
    if num_processes == 1:
        return batch, masked, 1.0
    size = len(masked) // num_processes
    first = size * accelerator.process_index
    own = slice(first, first + size)
    weight = num_processes * (~masked[own]).sum().item() / (~masked).sum().item()
    return WindowBatch(batch.steps.windows(own), batch.actions[own]), masked[own], weight
