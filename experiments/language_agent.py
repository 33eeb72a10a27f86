"""A Stable-Baselines3 agent that learns a language goal from pixels.

The agent sees each frame through the frozen encoder's embedding, from the same forward pass that
pays the reward, and its own position. The same agent trained on the true reward is the reference.
"""

from pathlib import Path
from typing import Any

import numpy as np
from gymnasium.vector import AutoresetMode
from numpy.typing import NDArray
from stable_baselines3 import PPO
from stable_baselines3.common.callbacks import CallbackList
from stable_baselines3.common.vec_env import VecEnv

from reward_agents import EnvReward, EpisodeLog, PaidBy
from vlmreward import RewardModel
from vlmreward.wrappers.sb3 import VectorEnvAdapter, VecVLMReward, VLMRewardCallback
from vlmreward_envs.playroom import PlayroomConfig, PlayroomVectorEnv

GOAL = "the person is holding the red ball"
MAX_EPISODE_STEPS = 30
NUM_ENVS = 64
_EVALUATION_SEED = 1_000_000
ROOM_CONFIG = PlayroomConfig(num_objects=3)


def make_envs(reward_model: RewardModel, seed: int, ends_by: PaidBy | None) -> VecEnv:
    """Make the rooms; ``ends_by`` says whose success ends an episode (``None``: nobody's)."""
    rooms = PlayroomVectorEnv(
        NUM_ENVS,
        GOAL,
        config=ROOM_CONFIG,
        max_episode_steps=MAX_EPISODE_STEPS,
        terminate_on_success=ends_by == "env",
        autoreset_mode=AutoresetMode.SAME_STEP,
    )
    envs = VectorEnvAdapter(rooms)
    envs.seed(seed)
    return VecVLMReward(
        envs, reward_model, terminate_on_success=ends_by == "vlm", observe="embedding"
    )


def train_agent(
    reward_model: RewardModel, paid_by: PaidBy, *, num_steps: int, seed: int, log_dir: Path
) -> dict[str, NDArray[Any]]:
    """Train one agent and return its learning curve and what it can do afterwards.

    Returns:
        ``steps``, ``vlm_return``, ``env_return`` of training ``[K]``; ``success`` of each
        evaluation episode ``[E]`` (ground truth, on any of its steps); one evaluation episode's
        ``frames`` ``[T, H, W, 3]``, ``probability`` and ``reached`` ``[T]``.
    """
    envs = make_envs(reward_model, seed, ends_by=paid_by)
    agent = PPO(
        "MultiInputPolicy",
        envs if paid_by == "vlm" else EnvReward(envs),
        n_steps=32,
        batch_size=512,
        n_epochs=6,
        learning_rate=1e-3,
        gamma=0.95,
        gae_lambda=0.9,
        ent_coef=0.01,
        policy_kwargs={"net_arch": [128, 128]},
        tensorboard_log=str(log_dir),
        seed=seed,
        device="cpu",
    )
    log = EpisodeLog(num_steps)
    callbacks = CallbackList([log, VLMRewardCallback()])
    agent.learn(num_steps, callback=callbacks, tb_log_name=f"agent_{paid_by}_{seed}")
    return log.curves() | evaluate_agent(agent, reward_model)


def evaluate_agent(
    agent: PPO, reward_model: RewardModel, num_episodes: int = 256
) -> dict[str, NDArray[Any]]:
    """Let an agent act, sampling its actions, in rooms it was not trained in."""
    envs = make_envs(reward_model, _EVALUATION_SEED, ends_by=None)
    rooms = envs.unwrapped.vector_env.rooms  # type: ignore[attr-defined]
    obs = envs.reset()
    success: list[NDArray[np.bool_]] = []
    frames = [rooms.render()[0].numpy()]
    probability = [float(reward_model.score(frames[0][None]).score)]
    reached = [bool(rooms.success[0])]
    for episode in range(num_episodes // NUM_ENVS):
        achieved = np.zeros(NUM_ENVS, dtype=np.bool_)
        for _ in range(MAX_EPISODE_STEPS):
            actions, _ = agent.predict(obs, deterministic=False)
            obs, _, dones, infos = envs.step(actions)
            achieved |= np.array([info["env_reward"] > 0 for info in infos])
            if episode == 0 and not dones[0] and not reached[-1]:
                frames.append(rooms.render()[0].numpy())
                probability.append(infos[0]["vlm_score"])
                reached.append(infos[0]["env_reward"] > 0)
        success.append(achieved)
    return {
        "success": np.concatenate(success),
        "frames": np.stack(frames),
        "probability": np.array(probability),
        "reached": np.array(reached),
    }
