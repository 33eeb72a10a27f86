"""Rewards for frames that were recorded before: what the wrappers would have paid for them."""

from vlmreward.relabel.episodes import Episode, EpisodeRewards, relabel, relabel_side_by_side
from vlmreward.relabel.files import FileRewards, load_rewards, relabel_file, rewards_path
from vlmreward.relabel.minari import relabel_minari
from vlmreward.relabel.recordings import RecordingError

__all__ = [
    "Episode",
    "EpisodeRewards",
    "FileRewards",
    "RecordingError",
    "load_rewards",
    "relabel",
    "relabel_file",
    "relabel_minari",
    "relabel_side_by_side",
    "rewards_path",
]
