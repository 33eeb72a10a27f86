"""Encoders: frames and texts into one space."""

from vlmreward.encoders.base import (
    EpisodeEncoder,
    EpisodeMemory,
    ImageTextEncoder,
    MissingModalityError,
)
from vlmreward.encoders.fake import FakeEncoder
from vlmreward.encoders.frame_cache import CachedEncoder, CacheStatistics
from vlmreward.encoders.open_clip import (
    CheckpointError,
    OpenCLIPEncoder,
    build_model,
    build_tokenizer,
)
from vlmreward.encoders.precision import Precision
from vlmreward.encoders.replicas import ReplicatedEncoder, run_with_replicas
from vlmreward.encoders.zoo import load_encoder, save_encoder, shipped_encoders

__all__ = [
    "CacheStatistics",
    "CachedEncoder",
    "CheckpointError",
    "EpisodeEncoder",
    "EpisodeMemory",
    "FakeEncoder",
    "ImageTextEncoder",
    "MissingModalityError",
    "OpenCLIPEncoder",
    "Precision",
    "ReplicatedEncoder",
    "build_model",
    "build_tokenizer",
    "load_encoder",
    "run_with_replicas",
    "save_encoder",
    "shipped_encoders",
]
