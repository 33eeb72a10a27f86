"""Wrappers: an environment goes in, the same environment paying VLM reward comes out.

The wrapper for Stable-Baselines3 is in `vlmreward.wrappers.sb3`, which needs that library.
"""

from vlmreward.wrappers.capture import CaptureFrames
from vlmreward.wrappers.gymnasium import VLMReward
from vlmreward.wrappers.vector import VectorVLMReward

__all__ = ["CaptureFrames", "VLMReward", "VectorVLMReward"]
