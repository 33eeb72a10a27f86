"""Heads: from similarities to a reward."""

from vlmreward.heads.softmax import SoftmaxHead

__all__ = ["SoftmaxHead"]
