"""Any Gymnasium `VectorEnv` as a Stable-Baselines3 `VecEnv`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.vector import AutoresetMode, VectorEnv
from numpy.typing import NDArray
from stable_baselines3.common.vec_env import VecEnv
from stable_baselines3.common.vec_env.base_vec_env import (
    VecEnvIndices,
    VecEnvObs,
    VecEnvStepReturn,
)

_FINAL = ("final_obs", "_final_obs", "final_info", "_final_info")


class VectorEnvAdapter(VecEnv):
    """Hands a natively vectorised environment to SB3, whose own `VecEnv`s are loops.

    The environment must reset in the step that ends an episode, as `VecEnv`s do. Single
    environments can be reset through `env_method("reset", indices=...)`, for which the vector
    environment must know Gymnasium's option `reset_mask`.

    Args:
        vector_env: A vector environment in `AutoresetMode.SAME_STEP`.

    Raises:
        ValueError: If the environment resets in another mode: `NEXT_STEP` puts a step between
            episodes that no action led to.
    """

    def __init__(self, vector_env: VectorEnv[Any, Any, Any]) -> None:
        mode = vector_env.metadata.get("autoreset_mode")
        if mode != AutoresetMode.SAME_STEP:
            raise ValueError(
                f"expected a vector environment in AutoresetMode.SAME_STEP, got {mode}: make it "
                "with autoreset_mode=AutoresetMode.SAME_STEP"
            )
        self.vector_env = vector_env
        self._actions: Any = None
        super().__init__(
            vector_env.num_envs,
            vector_env.single_observation_space,
            vector_env.single_action_space,
        )

    def reset(self) -> VecEnvObs:
        """Starts an episode everywhere, with the seeds and options that were set."""
        if any(options != self._options[0] for options in self._options):
            raise ValueError(
                f"expected the same reset options for all environments, got {self._options}"
            )
        # Both libraries give environment i the seed `seed + i`.
        obs, infos = self.vector_env.reset(seed=self._seeds[0], options=self._options[0] or None)
        self._reset_seeds()
        self._reset_options()
        self.reset_infos = [_row_of_infos(infos, index) for index in range(self.num_envs)]
        return obs  # type: ignore[no-any-return]

    def step_async(self, actions: NDArray[Any]) -> None:
        """Remembers the actions; a vector environment steps in one call."""
        self._actions = actions

    def step_wait(self) -> VecEnvStepReturn:
        """Steps all environments."""
        obs, rewards, terminated, truncated, batched = self.vector_env.step(self._actions)
        own = {key: values for key, values in batched.items() if key not in _FINAL}
        dones = np.asarray(terminated) | np.asarray(truncated)
        infos = []
        for index in range(self.num_envs):
            info = _row_of_infos(own, index)
            if dones[index]:
                self.reset_infos[index] = info
                info = _row_of_infos(batched.get("final_info", {}), index)
                info["terminal_observation"] = _row_of_obs(batched["final_obs"], index)
            info["TimeLimit.truncated"] = bool(truncated[index] and not terminated[index])
            infos.append(info)
        return obs, np.asarray(rewards, dtype=np.float32), dones, infos

    def close(self) -> None:
        """Closes the vector environment."""
        self.vector_env.close()

    def get_attr(self, attr_name: str, indices: VecEnvIndices = None) -> list[Any]:
        """Reads an attribute of the vector environment, which all its environments share."""
        return [getattr(self.vector_env, attr_name) for _ in self._get_indices(indices)]

    def set_attr(self, attr_name: str, value: Any, indices: VecEnvIndices = None) -> None:
        """Refuses: the environments of a vector environment have no attributes of their own."""
        raise NotImplementedError(
            f"cannot set {attr_name!r} on single environments of a vector environment: set it on "
            "`vector_env`"
        )

    def env_method(
        self,
        method_name: str,
        *method_args: Any,
        indices: VecEnvIndices = None,
        **method_kwargs: Any,
    ) -> list[Any]:
        """Resets some of the environments; there is no other method to call on single ones.

        Returns:
            One `(obs, info)` per index.

        Raises:
            NotImplementedError: If the method is not `reset`, or if it comes with arguments.
        """
        if method_name != "reset" or method_args or method_kwargs:
            raise NotImplementedError(
                f"expected env_method('reset', indices=...), got {method_name!r} with "
                f"{method_args}, {method_kwargs}: call it on `vector_env`"
            )
        chosen = list(self._get_indices(indices))
        mask = np.zeros(self.num_envs, dtype=bool)
        mask[chosen] = True
        obs, infos = self.vector_env.reset(options={"reset_mask": mask})
        return [(_row_of_obs(obs, index), _row_of_infos(infos, index)) for index in chosen]

    def env_is_wrapped(
        self, wrapper_class: type[gym.Wrapper[Any, Any, Any, Any]], indices: VecEnvIndices = None
    ) -> list[bool]:
        """Says no: the wrappers of single environments do not apply to a vector environment."""
        return [False for _ in self._get_indices(indices)]

    def get_images(self) -> Sequence[NDArray[Any] | None]:
        """Returns one rendered frame per environment."""
        frames: Any = self.vector_env.render()
        return list(frames) if frames is not None else [None] * self.num_envs


def _row_of_obs(obs: Any, index: int) -> Any:
    if isinstance(obs, Mapping):
        return {key: values[index] for key, values in obs.items()}
    return obs[index]


def _row_of_infos(infos: Mapping[str, Any], index: int) -> dict[str, Any]:
    """Undoes the batching of infos, where the mask `_key` says who has `key`."""
    row: dict[str, Any] = {}
    for key, values in infos.items():
        mask = infos.get(f"_{key}")
        is_mask = key.startswith("_") and key[1:] in infos
        if is_mask or (mask is not None and not mask[index]):
            continue
        row[key] = _row_of_infos(values, index) if isinstance(values, Mapping) else values[index]
    return row
