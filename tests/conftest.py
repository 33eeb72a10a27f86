"""What holds for every test: one thread, and the same global seeds."""

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, settings
from tensorboard.summary.writer import event_file_writer

torch.set_num_threads(1)
# Event files of one second are read in the order of their names, which end in a count: 10 would
# come before 9, and a resumed run before the one that was killed.
event_file_writer._global_uid = event_file_writer.AtomicCounter(10_000)

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
