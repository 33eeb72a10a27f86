"""Environments with language goals; importing this package registers them with Gymnasium."""

import gymnasium as gym

gym.register(
    id="vlmreward/Playroom-v0",
    entry_point="vlmreward_envs.playroom:PlayroomEnv",
    vector_entry_point="vlmreward_envs.playroom:PlayroomVectorEnv",
)
