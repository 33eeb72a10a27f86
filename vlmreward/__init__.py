"""Say a goal in words, get a reward from pixels."""

from vlmreward.encoders import (
    CheckpointError,
    FakeEncoder,
    ImageTextEncoder,
    MissingModalityError,
    OpenCLIPEncoder,
    load_encoder,
    save_encoder,
)
from vlmreward.frames import FrameError
from vlmreward.goals import Goal, goals_from_prompts
from vlmreward.heads import (
    ContrastHead,
    CosineHead,
    GoalBaselineHead,
    Head,
    NormalizedHead,
    SigmoidHead,
    SoftmaxHead,
    ThresholdHead,
)
from vlmreward.reward_model import RewardModel, Scores
from vlmreward.timing import RewardTiming

__all__ = [
    "CheckpointError",
    "ContrastHead",
    "CosineHead",
    "FakeEncoder",
    "FrameError",
    "Goal",
    "GoalBaselineHead",
    "Head",
    "ImageTextEncoder",
    "MissingModalityError",
    "NormalizedHead",
    "OpenCLIPEncoder",
    "RewardModel",
    "RewardTiming",
    "Scores",
    "SigmoidHead",
    "SoftmaxHead",
    "ThresholdHead",
    "goals_from_prompts",
    "load_encoder",
    "save_encoder",
]
