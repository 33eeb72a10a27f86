"""The model: time steps to tokens, tokens to actions."""

from algdistill.models.attention import attention_weights
from algdistill.models.block import KeyValueCache
from algdistill.models.checkpoint import CheckpointError, load_model, save_model
from algdistill.models.config import ADTransformerConfig, FrameEncoderConfig
from algdistill.models.timestep_encoder import TimestepEncoder
from algdistill.models.transformer import ADTransformer

__all__ = [
    "ADTransformer",
    "ADTransformerConfig",
    "CheckpointError",
    "FrameEncoderConfig",
    "KeyValueCache",
    "TimestepEncoder",
    "attention_weights",
    "load_model",
    "save_model",
]
