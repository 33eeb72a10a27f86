"""How well and how fast an agent learns in context."""

from algdistill.evaluation.bootstrap import (
    Interval,
    bootstrap_interval,
    improvement,
    interquartile_mean,
    mean_return,
)
from algdistill.evaluation.in_context import EvaluationResult, evaluate_in_context

__all__ = [
    "EvaluationResult",
    "Interval",
    "bootstrap_interval",
    "evaluate_in_context",
    "improvement",
    "interquartile_mean",
    "mean_return",
]
