"""Learning histories: what they are, how they are recorded, stored and sampled."""

from algdistill.histories.recorder import HistoryRecorder
from algdistill.histories.schema import LearningHistory
from algdistill.histories.store import HistoryStore, HistoryStoreError
from algdistill.histories.windows import WindowBatch, WindowSampler

__all__ = [
    "HistoryRecorder",
    "HistoryStore",
    "HistoryStoreError",
    "LearningHistory",
    "WindowBatch",
    "WindowSampler",
]
