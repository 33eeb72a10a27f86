"""Heads: from similarities to a score and a reward."""

from vlmreward.heads.base import Head, Similarities
from vlmreward.heads.config import head_config, head_from_config
from vlmreward.heads.contrast import ContrastHead
from vlmreward.heads.cosine import CosineHead
from vlmreward.heads.goal_baseline import GoalBaselineHead
from vlmreward.heads.normalized import NormalizedHead
from vlmreward.heads.sigmoid import SigmoidHead
from vlmreward.heads.softmax import SoftmaxHead
from vlmreward.heads.threshold import ThresholdHead

__all__ = [
    "ContrastHead",
    "CosineHead",
    "GoalBaselineHead",
    "Head",
    "NormalizedHead",
    "SigmoidHead",
    "Similarities",
    "SoftmaxHead",
    "ThresholdHead",
    "head_config",
    "head_from_config",
]
