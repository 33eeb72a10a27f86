"""Dark Key-to-Door: fetch a key, then open a door, neither of which can be seen."""

from vlmreward_envs.key_to_door.env import DarkKeyToDoorEnv, DarkKeyToDoorVectorEnv
from vlmreward_envs.key_to_door.tasks import (
    DARK_KEY_TO_DOOR,
    DarkKeyToDoorTasks,
    KeyToDoorConfig,
    no_adaptation_return,
)

__all__ = [
    "DARK_KEY_TO_DOOR",
    "DarkKeyToDoorEnv",
    "DarkKeyToDoorTasks",
    "DarkKeyToDoorVectorEnv",
    "KeyToDoorConfig",
    "no_adaptation_return",
]
