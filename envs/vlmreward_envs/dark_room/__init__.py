"""Dark Room and Dark Room Hard: find a goal that cannot be seen, from its reward alone."""

from vlmreward_envs.dark_room.env import DarkRoomEnv, DarkRoomVectorEnv
from vlmreward_envs.dark_room.tasks import (
    DARK_ROOM,
    DARK_ROOM_HARD,
    DarkRoomConfig,
    DarkRoomTasks,
    no_adaptation_return,
)

__all__ = [
    "DARK_ROOM",
    "DARK_ROOM_HARD",
    "DarkRoomConfig",
    "DarkRoomEnv",
    "DarkRoomTasks",
    "DarkRoomVectorEnv",
    "no_adaptation_return",
]
