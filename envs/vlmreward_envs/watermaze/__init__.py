"""Watermaze: a pool seen in first person, and a platform in it that cannot be seen."""

from vlmreward_envs.watermaze.arena import Action, no_adaptation_return, platform_positions
from vlmreward_envs.watermaze.env import WatermazeEnv, WatermazeVectorEnv
from vlmreward_envs.watermaze.tasks import WatermazeTasks

__all__ = [
    "Action",
    "WatermazeEnv",
    "WatermazeTasks",
    "WatermazeVectorEnv",
    "no_adaptation_return",
    "platform_positions",
]
