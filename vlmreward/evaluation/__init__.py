"""How right a reward is, measured offline against labels, and a threshold with a guarantee."""

from vlmreward.evaluation.accuracy import GoalAccuracy, RewardAccuracy, evaluate_reward
from vlmreward.evaluation.bootstrap import Estimate, bootstrap
from vlmreward.evaluation.calibrated_head import (
    CalibratedHead,
    calibrate_for_false_positive_rate,
    calibrate_for_precision,
    calibrate_on_unlabelled,
)
from vlmreward.evaluation.calibration import (
    PrecisionThreshold,
    threshold_for_false_positive_rate,
    threshold_for_precision,
)
from vlmreward.evaluation.curves import (
    OperatingPoint,
    PrecisionRecallCurve,
    average_precision,
    operating_point,
    precision_recall_curve,
)
from vlmreward.evaluation.epic import epic_distance
from vlmreward.evaluation.grid import evaluate_grid
from vlmreward.evaluation.grid_rows import GridReport, GridRow
from vlmreward.evaluation.normalization import fit_normalized_head
from vlmreward.evaluation.reliability import (
    ReliabilityCurve,
    expected_calibration_error,
    reliability_curve,
)
from vlmreward.evaluation.returns import (
    ReturnAgreement,
    episode_returns,
    kendall_correlation,
    return_agreement,
    spearman_correlation,
)
from vlmreward.evaluation.roc import RocCurve, roc_auc, roc_curve
from vlmreward.evaluation.similarities import similarities_of
from vlmreward.evaluation.temperature import fit_temperature, negative_log_likelihood

__all__ = [
    "CalibratedHead",
    "Estimate",
    "GoalAccuracy",
    "GridReport",
    "GridRow",
    "OperatingPoint",
    "PrecisionRecallCurve",
    "PrecisionThreshold",
    "ReliabilityCurve",
    "ReturnAgreement",
    "RewardAccuracy",
    "RocCurve",
    "average_precision",
    "bootstrap",
    "calibrate_for_false_positive_rate",
    "calibrate_for_precision",
    "calibrate_on_unlabelled",
    "epic_distance",
    "episode_returns",
    "evaluate_grid",
    "evaluate_reward",
    "expected_calibration_error",
    "fit_normalized_head",
    "fit_temperature",
    "kendall_correlation",
    "negative_log_likelihood",
    "operating_point",
    "precision_recall_curve",
    "reliability_curve",
    "return_agreement",
    "roc_auc",
    "roc_curve",
    "similarities_of",
    "spearman_correlation",
    "threshold_for_false_positive_rate",
    "threshold_for_precision",
]
