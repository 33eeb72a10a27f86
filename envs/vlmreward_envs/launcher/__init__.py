"""The Launcher: a phone whose apps are to be opened, goals in words, ground truth for logging."""

from vlmreward_envs.launcher.apps import APP_NAMES, APPS, COMMON_NAMES, App
from vlmreward_envs.launcher.captions import describe, look_alikes
from vlmreward_envs.launcher.dynamics import (
    ActionType,
    LauncherConfig,
    LauncherState,
    reset_phones,
    step_phones,
)
from vlmreward_envs.launcher.env import LauncherEnv
from vlmreward_envs.launcher.gestures import Gesture
from vlmreward_envs.launcher.language import ALL_GOALS, COMMON_GOALS, parse_goal
from vlmreward_envs.launcher.oracle import optimal_gestures
from vlmreward_envs.launcher.phones import LauncherPhones, TouchedPhones
from vlmreward_envs.launcher.rendering import LauncherRenderer
from vlmreward_envs.launcher.vector_env import LauncherVectorEnv

__all__ = [
    "ALL_GOALS",
    "APPS",
    "APP_NAMES",
    "COMMON_GOALS",
    "COMMON_NAMES",
    "ActionType",
    "App",
    "Gesture",
    "LauncherConfig",
    "LauncherEnv",
    "LauncherPhones",
    "LauncherRenderer",
    "LauncherState",
    "LauncherVectorEnv",
    "TouchedPhones",
    "describe",
    "look_alikes",
    "optimal_gestures",
    "parse_goal",
    "reset_phones",
    "step_phones",
]
