"""How much of everything the training of the backbone of the Playroom with sound does."""

from dataclasses import dataclass
from typing import Literal

from playroom_sound_domain import SoundBatchConfig
from vlmreward.backbone.model import MemoryKind


@dataclass(frozen=True)
class Preset:
    """How much of everything.

    Attributes:
        num_pure_steps: Gradient steps of the pure streams alone.
        pure_batch: Of each; nothing is said of both senses.
        num_steps: Gradient steps of all streams of a step, after these.
        batch: Of each.
        num_fusion_steps: Gradient steps of another fusion than the model's own.
        fusion_batch: Steps of each.
        num_memory_steps: Gradient steps of a memory.
        memory_batch: Episodes of each.
        num_described: Steps of each of these episodes that are described.
        num_episodes: Of each kind in `EPISODES_SEEDS`, in its order.
        episode_length: Their steps.
        calibrate_every: Steps between those calibrated on; neighbours are much alike.
    """

    num_pure_steps: int
    pure_batch: SoundBatchConfig
    num_steps: int
    batch: SoundBatchConfig
    num_fusion_steps: int
    fusion_batch: int
    num_memory_steps: int
    memory_batch: int
    num_described: int
    num_episodes: tuple[int, int, int, int]
    episode_length: int
    calibrate_every: int


_PURE = SoundBatchConfig(captions_per_kind=(6, 2, 0, 2))
_FEW_PURE, _FEW = (SoundBatchConfig(8, kinds, 1) for kinds in ((1, 1, 0, 1), (1, 1, 1, 1)))
PRESETS = {
    "full": Preset(
        1000, _PURE, 1500, SoundBatchConfig(), 1500, 256, 800, 8, 100, (384, 16, 32, 64), 200, 5
    ),
    "debug": Preset(2, _FEW_PURE, 2, _FEW, 2, 16, 2, 2, 4, (3, 2, 4, 4), 100, 3),
}


@dataclass(frozen=True)
class SoundEncoderOptions:
    """Options of the command line.

    Attributes:
        memories: What goes over the steps of an episode; one or several, to compare.
        memory_seeds: Of the memories' weights and batches.
        streams: A shipped backbone, or the card of one, whose streams are taken as they are; they
            are trained if None.
        time_stamps: Whether memories are told the number of each step; a mean never is.
        preset: ``debug`` runs through everything in little time.
        seed: Of the streams' weights and batches.
        num_threads: Of torch, for the streams; another number gives other rounding, so other
            bytes. A memory that is trained in a process of its own has one.
        num_workers: Processes that draw batches ahead.
        workers: Memories trained at a time; with 0, they are trained one by one in this process.
        device: Where to train.
        run_name: Folder under ``runs/``.
    """

    memories: tuple[MemoryKind, ...] = ("ttm",)
    memory_seeds: tuple[int, ...] = (0,)
    streams: str | None = None
    time_stamps: bool = False
    preset: Literal["full", "debug"] = "full"
    seed: int = 0
    num_threads: int = 2
    num_workers: int = 0
    workers: int = 2
    device: str = "cpu"
    run_name: str = "playroom_sound_encoder"
