"""Logs VLM reward beside ground truth while a Stable-Baselines3 algorithm learns."""

from __future__ import annotations

from collections import deque

import numpy as np
from stable_baselines3.common.callbacks import BaseCallback


class VLMRewardCallback(BaseCallback):
    """Logs what the learner is paid beside what it was meant to earn.

    Over the last `window` episodes: `vlm_reward/episode_return`, `env_reward/episode_return` and,
    where infos carry `success`, `env_reward/success_rate`, the share of episodes in whose last
    step it was true. Written whenever the algorithm writes its own metrics.

    Args:
        window: How many episodes to average over.
    """

    def __init__(self, window: int = 100) -> None:
        super().__init__()
        self._values: dict[str, deque[float]] = {
            "vlm_reward/episode_return": deque(maxlen=window),
            "env_reward/episode_return": deque(maxlen=window),
            "env_reward/success_rate": deque(maxlen=window),
        }

    def _on_step(self) -> bool:
        for info in self.locals["infos"]:
            if "env_episode_return" in info:
                self._values["vlm_reward/episode_return"].append(info["episode"]["r"])
                self._values["env_reward/episode_return"].append(info["env_episode_return"])
                if "success" in info:
                    self._values["env_reward/success_rate"].append(float(info["success"]))
        return True

    def _on_rollout_end(self) -> None:
        for name, values in self._values.items():
            if values:
                self.logger.record(name, float(np.mean(values)))
