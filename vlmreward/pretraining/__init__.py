"""Train a small CLIP in an environment's own domain, on frame–caption pairs."""

from vlmreward.pretraining.captions import CaptionedFrames, CaptionSource
from vlmreward.pretraining.loss import multi_positive_contrastive_loss
from vlmreward.pretraining.trainer import PretrainConfig, pretrain

__all__ = [
    "CaptionSource",
    "CaptionedFrames",
    "PretrainConfig",
    "multi_positive_contrastive_loss",
    "pretrain",
]
