"""What holds for every test: one thread, and the same global seeds."""

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, settings

torch.set_num_threads(1)

# Timings never decide a test; the same examples are tried everywhere.
settings.register_profile(
    "repeatable",
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile("repeatable")


@pytest.fixture(autouse=True)
def _seed_global_generators() -> None:
    # Libraries under test must not draw from these; third-party ones (SB3, timm) do.
    np.random.seed(0)  # noqa: NPY002
    torch.manual_seed(0)
