"""Adversarial Bandit: ten arms, of which the best is usually odd in training and even in tests."""

from vlmreward_envs.adversarial_bandit.arms import (
    EPISODE_LENGTH,
    NUM_ARMS,
    ODD_RATE,
    draw_arm_probabilities,
    no_adaptation_return,
)
from vlmreward_envs.adversarial_bandit.env import AdversarialBanditEnv, AdversarialBanditVectorEnv
from vlmreward_envs.adversarial_bandit.tasks import AdversarialBanditTasks

__all__ = [
    "EPISODE_LENGTH",
    "NUM_ARMS",
    "ODD_RATE",
    "AdversarialBanditEnv",
    "AdversarialBanditTasks",
    "AdversarialBanditVectorEnv",
    "draw_arm_probabilities",
    "no_adaptation_return",
]
