"""The Playroom: a room seen from above, goals in words, ground truth for logging."""

from vlmreward_envs.description import Description
from vlmreward_envs.playroom.captions import describe
from vlmreward_envs.playroom.dynamics import (
    Action,
    PlayroomConfig,
    PlayroomState,
    goal_reached,
    reset_rooms,
    step_rooms,
)
from vlmreward_envs.playroom.env import PlayroomEnv
from vlmreward_envs.playroom.language import Family, PlayroomGoal, all_goals, parse_goal
from vlmreward_envs.playroom.rendering import PlayroomRenderer
from vlmreward_envs.playroom.rooms import PlayroomRooms
from vlmreward_envs.playroom.vector_env import PlayroomVectorEnv

__all__ = [
    "Action",
    "Description",
    "Family",
    "PlayroomConfig",
    "PlayroomEnv",
    "PlayroomGoal",
    "PlayroomRenderer",
    "PlayroomRooms",
    "PlayroomState",
    "PlayroomVectorEnv",
    "all_goals",
    "describe",
    "goal_reached",
    "parse_goal",
    "reset_rooms",
    "step_rooms",
]
