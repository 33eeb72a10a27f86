"""How right a reward is, measured offline against labels, and a threshold with a guarantee."""

from vlmreward.evaluation.accuracy import Estimate, GoalAccuracy, RewardAccuracy, evaluate_reward
from vlmreward.evaluation.calibration import threshold_for_false_positive_rate
from vlmreward.evaluation.curves import (
    OperatingPoint,
    PrecisionRecallCurve,
    average_precision,
    operating_point,
    precision_recall_curve,
)

__all__ = [
    "Estimate",
    "GoalAccuracy",
    "OperatingPoint",
    "PrecisionRecallCurve",
    "RewardAccuracy",
    "average_precision",
    "evaluate_reward",
    "operating_point",
    "precision_recall_curve",
    "threshold_for_false_positive_rate",
]
