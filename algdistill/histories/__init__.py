"""Learning histories: what they are, how they are recorded, stored and sampled."""

from algdistill.histories.pool import WindowBatch
from algdistill.histories.recorder import HistoryRecorder
from algdistill.histories.schema import LearningHistory
from algdistill.histories.store import HistoryStore, HistoryStoreError
from algdistill.histories.store_windows import StoreWindowSampler
from algdistill.histories.windows import WindowSampler, WindowSource

__all__ = [
    "HistoryRecorder",
    "HistoryStore",
    "HistoryStoreError",
    "LearningHistory",
    "StoreWindowSampler",
    "WindowBatch",
    "WindowSampler",
    "WindowSource",
]
