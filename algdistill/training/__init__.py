"""Distil learning histories into a model."""

from algdistill.training.config import TrainingConfig
from algdistill.training.loss import action_loss
from algdistill.training.trainer import SELECTION_METRIC, Trainer, TrainingResult

__all__ = ["SELECTION_METRIC", "Trainer", "TrainingConfig", "TrainingResult", "action_loss"]
