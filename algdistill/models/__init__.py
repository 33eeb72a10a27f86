"""The model: time steps to tokens, tokens to actions."""

from algdistill.models.checkpoint import CheckpointError, load_model, save_model
from algdistill.models.timestep_encoder import TimestepEncoder
from algdistill.models.transformer import ADTransformer, ADTransformerConfig, KeyValueCache

__all__ = [
    "ADTransformer",
    "ADTransformerConfig",
    "CheckpointError",
    "KeyValueCache",
    "TimestepEncoder",
    "load_model",
    "save_model",
]
