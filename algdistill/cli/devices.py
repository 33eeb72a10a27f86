"""Devices named on the command line."""

from __future__ import annotations

import torch


def check_device(device: str) -> None:
    """Refuse a device that this machine does not have.

    Raises:
        ValueError: If no tensor can be put there.
    """
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:  # the latter where torch is built without it
        reason = str(error).partition("\n")[0]
        raise ValueError(
            f"got device={device!r}, expected cpu, or one that this machine has, as cuda: {reason}"
        ) from error
