"""A multimodal backbone: video, sound and language, over episodes of any length.

The checks of what a model must hold exactly are in `vlmreward.backbone.properties`.
"""

from vlmreward.backbone.audio import AudioError, LogMelConfig, StreamingLogMel, log_mel
from vlmreward.backbone.combiner import (
    CombinerConfig,
    MeanMemory,
    TransformerCombiner,
    TTMCombiner,
)
from vlmreward.backbone.encoder import MultimodalEncoder
from vlmreward.backbone.files import (
    load_backbone,
    save_backbone,
    shipped_backbones,
    tokenizer_of,
)
from vlmreward.backbone.model import (
    BackboneConfig,
    MultimodalBackbone,
    StepEmbeddings,
    TextConfig,
)
from vlmreward.backbone.objectives import (
    ContrastiveObjectives,
    ObjectivesConfig,
    PairConfig,
    StreamEmbeddings,
    StreamTexts,
)
from vlmreward.backbone.optimisers import OptimiserConfig
from vlmreward.backbone.start import start_from_clip
from vlmreward.backbone.training import (
    BackboneTrainingConfig,
    retrieval_recall,
    train_backbone,
)
from vlmreward.backbone.ttm import TTMConfig
from vlmreward.backbone.video import ConvTokensConfig, TowerTokensConfig
from vlmreward.backbone.zorro import Zorro, ZorroConfig

__all__ = [
    "AudioError",
    "BackboneConfig",
    "BackboneTrainingConfig",
    "CombinerConfig",
    "ContrastiveObjectives",
    "ConvTokensConfig",
    "LogMelConfig",
    "MeanMemory",
    "MultimodalBackbone",
    "MultimodalEncoder",
    "ObjectivesConfig",
    "OptimiserConfig",
    "PairConfig",
    "StepEmbeddings",
    "StreamEmbeddings",
    "StreamTexts",
    "StreamingLogMel",
    "TTMCombiner",
    "TTMConfig",
    "TextConfig",
    "TowerTokensConfig",
    "TransformerCombiner",
    "Zorro",
    "ZorroConfig",
    "load_backbone",
    "log_mel",
    "retrieval_recall",
    "save_backbone",
    "shipped_backbones",
    "start_from_clip",
    "tokenizer_of",
    "train_backbone",
]
