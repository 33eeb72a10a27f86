"""The Playroom with sound: goals that are seen, heard, both, or told of over time."""

from vlmreward_envs.playroom_sound.captions import TOLD_CAPTIONS, describe, told_captions
from vlmreward_envs.playroom_sound.dynamics import (
    Event,
    PlayroomSoundConfig,
    PlayroomSoundState,
    give_voices,
    reset_sound_rooms,
    step_sound_rooms,
)
from vlmreward_envs.playroom_sound.env import PlayroomSoundEnv
from vlmreward_envs.playroom_sound.ground_truth import (
    goal_reached,
    goal_tensor,
    heard_now,
    told_so_far,
)
from vlmreward_envs.playroom_sound.language import (
    GoalKind,
    Heard,
    PlayroomSoundGoal,
    Voice,
    all_goals,
    alternatives,
    parse_goal,
)
from vlmreward_envs.playroom_sound.rooms import PlayroomSoundRooms
from vlmreward_envs.playroom_sound.synthesis import (
    SAMPLE_RATE,
    STEP_SAMPLES,
    PlayroomSynthesiser,
)
from vlmreward_envs.playroom_sound.vector_env import PlayroomSoundVectorEnv

__all__ = [
    "SAMPLE_RATE",
    "STEP_SAMPLES",
    "TOLD_CAPTIONS",
    "Event",
    "GoalKind",
    "Heard",
    "PlayroomSoundConfig",
    "PlayroomSoundEnv",
    "PlayroomSoundGoal",
    "PlayroomSoundRooms",
    "PlayroomSoundState",
    "PlayroomSoundVectorEnv",
    "PlayroomSynthesiser",
    "Voice",
    "all_goals",
    "alternatives",
    "describe",
    "give_voices",
    "goal_reached",
    "goal_tensor",
    "heard_now",
    "parse_goal",
    "reset_sound_rooms",
    "step_sound_rooms",
    "told_captions",
    "told_so_far",
]
