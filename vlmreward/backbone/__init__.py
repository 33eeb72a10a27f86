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
from vlmreward.backbone.fusion import GatedCrossAttention, ModalityGates
from vlmreward.backbone.latents import (
    CausalLatentModel,
    LatentConfig,
    Latents,
    LatentState,
    cut_chunks,
    latent_loss,
)
from vlmreward.backbone.masked_language import (
    MaskedTokens,
    MaskingConfig,
    mask_tokens,
    masked_language_loss,
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
from vlmreward.backbone.state import StateError
from vlmreward.backbone.text_decoder import TextDecoder, TextDecoderConfig
from vlmreward.backbone.training import (
    BackboneTrainingConfig,
    retrieval_recall,
    train_backbone,
)
from vlmreward.backbone.ttm import TTMConfig
from vlmreward.backbone.video import (
    ConvTokensConfig,
    TowerTokensConfig,
    TubeletConfig,
    TubeletTokens,
)
from vlmreward.backbone.zorro import Zorro, ZorroConfig

__all__ = [
    "AudioError",
    "BackboneConfig",
    "BackboneTrainingConfig",
    "CausalLatentModel",
    "CombinerConfig",
    "ContrastiveObjectives",
    "ConvTokensConfig",
    "GatedCrossAttention",
    "LatentConfig",
    "LatentState",
    "Latents",
    "LogMelConfig",
    "MaskedTokens",
    "MaskingConfig",
    "MeanMemory",
    "ModalityGates",
    "MultimodalBackbone",
    "MultimodalEncoder",
    "ObjectivesConfig",
    "OptimiserConfig",
    "PairConfig",
    "StateError",
    "StepEmbeddings",
    "StreamEmbeddings",
    "StreamTexts",
    "StreamingLogMel",
    "TTMCombiner",
    "TTMConfig",
    "TextConfig",
    "TextDecoder",
    "TextDecoderConfig",
    "TowerTokensConfig",
    "TransformerCombiner",
    "TubeletConfig",
    "TubeletTokens",
    "Zorro",
    "ZorroConfig",
    "cut_chunks",
    "latent_loss",
    "load_backbone",
    "log_mel",
    "mask_tokens",
    "masked_language_loss",
    "retrieval_recall",
    "save_backbone",
    "shipped_backbones",
    "start_from_clip",
    "tokenizer_of",
    "train_backbone",
]
