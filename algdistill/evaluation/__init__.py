"""How well and how fast an agent learns in context."""

from algdistill.evaluation.bootstrap import (
    Interval,
    bootstrap_interval,
    improvement,
    interquartile_mean,
    mean_return,
)
from algdistill.evaluation.curves import (
    area_under_curve,
    episodes_to_threshold,
    mean_between,
)
from algdistill.evaluation.in_context import EvaluationResult, evaluate_in_context

__all__ = [
    "EvaluationResult",
    "Interval",
    "area_under_curve",
    "bootstrap_interval",
    "episodes_to_threshold",
    "evaluate_in_context",
    "improvement",
    "interquartile_mean",
    "mean_between",
    "mean_return",
]
