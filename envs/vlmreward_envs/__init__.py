"""Environments with hidden or spoken goals; importing this package registers them in Gymnasium."""

import gymnasium as gym

gym.register(
    id="vlmreward/Playroom-v0",
    entry_point="vlmreward_envs.playroom:PlayroomEnv",
    vector_entry_point="vlmreward_envs.playroom:PlayroomVectorEnv",
)
gym.register(
    id="vlmreward/PlayroomSound-v0",
    entry_point="vlmreward_envs.playroom_sound:PlayroomSoundEnv",
    vector_entry_point="vlmreward_envs.playroom_sound:PlayroomSoundVectorEnv",
)
gym.register(
    id="vlmreward/Launcher-v0",
    entry_point="vlmreward_envs.launcher:LauncherEnv",
    vector_entry_point="vlmreward_envs.launcher:LauncherVectorEnv",
)
gym.register(
    id="vlmreward/AdversarialBandit-v0",
    entry_point="vlmreward_envs.adversarial_bandit:AdversarialBanditEnv",
    vector_entry_point="vlmreward_envs.adversarial_bandit:AdversarialBanditVectorEnv",
)
gym.register(
    id="vlmreward/DarkRoom-v0",
    entry_point="vlmreward_envs.dark_room:DarkRoomEnv",
    vector_entry_point="vlmreward_envs.dark_room:DarkRoomVectorEnv",
)
gym.register(
    id="vlmreward/DarkRoomHard-v0",
    entry_point="vlmreward_envs.dark_room:DarkRoomEnv",
    vector_entry_point="vlmreward_envs.dark_room:DarkRoomVectorEnv",
    kwargs={"hard": True},
)
gym.register(
    id="vlmreward/DarkKeyToDoor-v0",
    entry_point="vlmreward_envs.key_to_door:DarkKeyToDoorEnv",
    vector_entry_point="vlmreward_envs.key_to_door:DarkKeyToDoorVectorEnv",
)
gym.register(
    id="vlmreward/Watermaze-v0",
    entry_point="vlmreward_envs.watermaze:WatermazeEnv",
    vector_entry_point="vlmreward_envs.watermaze:WatermazeVectorEnv",
)
