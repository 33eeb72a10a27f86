"""Stable-Baselines3 agents trained on a reward model, and the same ones trained on ground truth."""

from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from rich.progress import Progress
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.callbacks import BaseCallback, CallbackList
from stable_baselines3.common.logger import configure
from stable_baselines3.common.vec_env import (
    DummyVecEnv,
    VecEnv,
    VecEnvWrapper,
    VecExtractDictObs,
)
from stable_baselines3.common.vec_env.base_vec_env import VecEnvStepReturn

from language_task import LanguageTask
from run_folder import Arrays
from vlmreward import RewardModel
from vlmreward.frames import PIXELS
from vlmreward.wrappers.capture import STATE
from vlmreward.wrappers.sb3 import VecVLMReward, VLMRewardCallback

_NUM_CURVE_POINTS = 25
_EVALUATION_SEED = 1_000_000

PaidBy = Literal["vlm", "env"]
PAID_BY: tuple[PaidBy, ...] = ("vlm", "env")


class EnvReward(VecEnvWrapper):
    """Pays the ground truth instead of the reward model: the reference agent's reward."""

    def reset(self) -> Any:
        """Start an episode everywhere."""
        return self.venv.reset()

    def step_wait(self) -> VecEnvStepReturn:
        """Step, and pay what the environment pays."""
        obs, _, dones, infos = self.venv.step_wait()
        rewards = np.array([info["env_reward"] for info in infos], dtype=np.float32)
        return obs, rewards, dones, infos


class EpisodeLog(BaseCallback):
    """Keeps both returns of every training episode, and shows how far training is."""

    def __init__(self, num_steps: int) -> None:
        super().__init__()
        self._num_steps = num_steps
        self._episodes: list[tuple[int, float, float]] = []
        self._progress = Progress()
        self._bar = self._progress.add_task("training the agent", total=num_steps)

    def _on_training_start(self) -> None:
        self._progress.start()

    def _on_training_end(self) -> None:
        self._progress.stop()

    def _on_step(self) -> bool:
        self._progress.update(self._bar, completed=self.num_timesteps)
        for info in self.locals["infos"]:
            if "env_episode_return" in info:
                returns = (info["episode"]["r"], info["env_episode_return"])
                self._episodes.append((self.num_timesteps, *returns))
        return True

    def curves(self) -> dict[str, NDArray[Any]]:
        """Average the returns of the episodes that ended in each part of training.

        Returns:
            ``steps``, ``vlm_return``, ``env_return`` and ``success_rate`` (the share of episodes
            that the ground truth paid anything), ``[K]`` each; NaN where no episode ended.
        """
        steps, vlm_return, env_return = np.array(self._episodes).T
        edges = np.linspace(0, self._num_steps, _NUM_CURVE_POINTS + 1)
        part = np.clip(np.searchsorted(edges, steps) - 1, 0, _NUM_CURVE_POINTS - 1)
        counts = np.bincount(part, minlength=_NUM_CURVE_POINTS)

        def mean(values: NDArray[np.float64]) -> NDArray[np.float64]:
            with np.errstate(invalid="ignore"):
                return np.bincount(part, values, _NUM_CURVE_POINTS) / counts

        return {
            "steps": edges[1:].astype(np.int64),
            "vlm_return": mean(vlm_return),
            "env_return": mean(env_return),
            "success_rate": mean(env_return > 0),
        }


def make_envs(
    task: LanguageTask, reward_model: RewardModel, seed: int, ends_by: PaidBy | None
) -> VecVLMReward:
    """Make the environments; ``ends_by`` says whose success ends an episode, if any."""
    binary = task.pays == "binary"
    make_env = partial(task.make_env, binary and ends_by == "env")
    envs = DummyVecEnv([make_env] * task.num_envs)
    envs.seed(seed)
    goal_index = 0 if task.goal_source is None else task.goal_source(seed)
    return VecVLMReward(
        envs,
        reward_model,
        goal_index,
        terminate_on_success=binary and ends_by == "vlm",
        observe="embedding" if task.observes == "embedding" else "pixels",
        observe_goal=task.observes == "embedding",
    )


def seen_by_agent(task: LanguageTask, envs: VecEnv) -> VecEnv:
    """Leave the agent the environment's state alone where it does not see embeddings."""
    return VecExtractDictObs(envs, STATE) if task.observes == "state" else envs


def train_agent(
    task: LanguageTask,
    reward_model: RewardModel,
    algorithm: str,
    paid_by: PaidBy,
    *,
    num_steps: int,
    num_episodes: int,
    seed: int,
    log_dir: Path,
) -> Arrays:
    """Train one agent and return its learning curve and what it can do afterwards."""
    envs: VecEnv = make_envs(task, reward_model, seed, ends_by=paid_by)
    if paid_by == "env":
        envs = EnvReward(envs)
    agent = task.agents[algorithm](seen_by_agent(task, envs), seed)
    name = f"agent_{algorithm}_{paid_by}_{seed}"
    agent.set_logger(configure(str(log_dir / name), ["tensorboard"]))
    log = EpisodeLog(num_steps)
    agent.learn(num_steps, callback=CallbackList([log, VLMRewardCallback()]))
    envs.close()
    return log.curves() | evaluate_agent(task, reward_model, agent, num_episodes=num_episodes)


def evaluate_agent(
    task: LanguageTask,
    reward_model: RewardModel,
    agent: BaseAlgorithm | None,
    *,
    num_episodes: int,
) -> Arrays:
    """Let an agent (``None``: random actions) act in episodes it was not trained on.

    Where rewards are dense it takes its best action, elsewhere it samples.

    Returns:
        ``env_returns`` and ``vlm_returns`` of each episode ``[E]``; ``success``, whether the ground
        truth was positive on any of its steps ``[E]``; and ``frames`` ``[T, H, W, 3]``, ``scores``
        and ``env_rewards`` ``[T]`` of one episode.
    """
    envs = make_envs(task, reward_model, _EVALUATION_SEED, ends_by=None)
    seen = seen_by_agent(task, envs)
    seen.action_space.seed(_EVALUATION_SEED)
    obs = seen.reset()
    returns: dict[str, list[float]] = {"env_returns": [], "vlm_returns": [], "success": []}
    shown: dict[str, list[Any]] = {"frames": [], "scores": [], "env_rewards": []}
    achieved = np.zeros(task.num_envs, dtype=np.bool_)
    while len(returns["success"]) < num_episodes:
        if agent is None:
            actions = np.stack([seen.action_space.sample() for _ in range(task.num_envs)])
        else:
            actions, _ = agent.predict(obs, deterministic=task.pays == "dense")
        obs, _, dones, infos = seen.step(actions)
        achieved |= np.array([info["env_reward"] > 0 for info in infos])
        if not returns["success"]:
            assert envs.led_to is not None
            shown["frames"].append(envs.led_to[PIXELS][0].copy())
            shown["scores"].append(infos[0]["vlm_score"])
            shown["env_rewards"].append(infos[0]["env_reward"])
        for index in np.flatnonzero(dones):
            returns["env_returns"].append(infos[index]["env_episode_return"])
            returns["vlm_returns"].append(infos[index]["episode"]["r"])
            returns["success"].append(achieved[index])
            achieved[index] = False
    envs.close()
    kept = {name: np.array(values[:num_episodes]) for name, values in returns.items()}
    return kept | {name: np.stack(values) for name, values in shown.items()}
