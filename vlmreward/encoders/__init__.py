"""Encoders: frames and texts into one space."""

from vlmreward.encoders.base import ImageTextEncoder, MissingModalityError
from vlmreward.encoders.fake import FakeEncoder
from vlmreward.encoders.open_clip import (
    CheckpointError,
    OpenCLIPEncoder,
    build_model,
    build_tokenizer,
)
from vlmreward.encoders.zoo import load_encoder, save_encoder, shipped_encoders

__all__ = [
    "CheckpointError",
    "FakeEncoder",
    "ImageTextEncoder",
    "MissingModalityError",
    "OpenCLIPEncoder",
    "build_model",
    "build_tokenizer",
    "load_encoder",
    "save_encoder",
    "shipped_encoders",
]
