"""VLM reward for a Gymnasium `VectorEnv`, in all three autoreset modes.

Axes: `N` environments, `S` episodes that start together.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from gymnasium.vector import AutoresetMode, VectorEnv, VectorWrapper
from gymnasium.vector.utils import batch_space
from jaxtyping import Bool, Float, Int64
from numpy.typing import NDArray

from vlmreward.frames import require_pixels
from vlmreward.goal_source import GoalSource
from vlmreward.guard import TerminationGuard
from vlmreward.reward_model import GoalIndex, RewardModel
from vlmreward.reward_stream import RewardStream, StreamStep
from vlmreward.wrappers.batches import replace_rows, row_of, rows_of, rows_where
from vlmreward.wrappers.goal_conditioning import GoalConditioning

Batch = dict[str, Any]
Mask = Bool[NDArray[Any], " N"]


class VectorVLMReward(VectorWrapper[Any, Any, Any, Any]):
    """Replaces the rewards of a vector environment with those of a reward model.

    All environments are scored in one forward pass per step, each for its own goal and always for
    the frame that its action led to:

    =============  ============================================================================
    autoreset      what is scored at the end of an episode
    =============  ============================================================================
    `NEXT_STEP`    the observation itself; the step after, which only resets, pays 0
    `SAME_STEP`    `infos["final_obs"]`, never the next episode's first frame beside it
    `DISABLED`     the observation itself; the caller resets with `options={"reset_mask": ...}`
    =============  ============================================================================

    Infos gain, for every environment, `env_reward` (its own reward, which the learner must not
    see), `vlm_score` (before any threshold, NaN on steps that were not scored), `goal_index` and,
    of an `EpisodeEncoder`, `vlm_stream`, which of its streams was scored.

    Args:
        env: A vector environment with a dict observation that has `pixels`, such as one of
            environments in `gymnasium.wrappers.AddRenderObservation(env, render_only=False)`.
        reward_model: Pays; its `timing` says when, and from how many frames.
        goal_index: Which of its goals each environment is about, or a `GoalSource` that says so at
            every start of an episode.
        terminate_on_success: End the episode, as `terminated`, at the first step that pays. None
            does so exactly where the reward is binary. The vector environment must know
            Gymnasium's option `reset_mask`.
        observe_goal: Add the embedding of the episode's goal to the observation, under
            `goal_embedding`.

    Raises:
        FrameError: If the observation has no `pixels`.
        ValueError: If the environment does not say how it resets.
    """

    def __init__(
        self,
        env: VectorEnv[Any, Any, Any],
        reward_model: RewardModel,
        goal_index: GoalIndex | GoalSource = 0,
        *,
        terminate_on_success: bool | None = None,
        observe_goal: bool = False,
    ) -> None:
        super().__init__(env)
        require_pixels(env.single_observation_space)
        mode = env.metadata.get("autoreset_mode")
        if not isinstance(mode, AutoresetMode):
            raise ValueError(
                f"expected metadata['autoreset_mode'] to be an AutoresetMode, got {mode!r}: frames "
                "at the end of an episode cannot be told apart without it"
            )
        self.autoreset_mode = mode
        self.reward_model = reward_model
        self._goals = GoalConditioning(reward_model, goal_index, observe_goal)
        self._stream = RewardStream(reward_model, self.num_envs, self._goals.initial(self.num_envs))
        self._guard = TerminationGuard(reward_model.head, reward_model.timing, terminate_on_success)
        # NEXT_STEP: who resets in the coming step, by the environment or by us after a success.
        self._ended = np.zeros(self.num_envs, dtype=bool)
        self._to_restart = np.zeros(self.num_envs, dtype=bool)
        if observe_goal:
            self.single_observation_space = self._goals.extend_space(env.single_observation_space)
            self.observation_space = batch_space(self.single_observation_space, self.num_envs)

    @property
    def goal_index(self) -> Int64[NDArray[Any], " N"]:
        """What each environment's episode is about now."""
        return self._stream.goal_index.copy()

    def reset(
        self,
        *,
        seed: int | None = None,
        options: dict[str, Any] | None = None,
    ) -> tuple[Any, dict[str, Any]]:
        """Starts episodes everywhere, or in the environments of `options["reset_mask"]`."""
        asked = (options or {}).get("reset_mask")
        mask = np.ones(self.num_envs, dtype=bool) if asked is None else np.array(asked, dtype=bool)
        obs, infos = self.env.reset(seed=seed, options=options)
        rows = rows_where(mask)
        self._stream.start(rows, rows_of(obs, rows), goal_index=self._choose(obs, infos, rows))
        self._ended[mask] = self._to_restart[mask] = False
        return self._goals.add_to_rows(obs, self.goal_index), infos

    def step(
        self, actions: Any
    ) -> tuple[Any, Float[NDArray[Any], " N"], Mask, Mask, dict[str, Any]]:
        """Steps all environments and pays for the frames that the actions led to."""
        obs, env_rewards, terminated, truncated, infos = self.env.step(actions)
        terminated, truncated = np.array(terminated, bool), np.array(truncated, bool)
        goal_index = self.goal_index
        if self._to_restart.any():  # these took a step that nobody was to see
            obs, infos = self._reset_rows(obs, infos, self._to_restart)
            terminated[self._to_restart] = truncated[self._to_restart] = False
        resets = self._ended | self._to_restart
        if (terminated & ~resets).any():
            self._guard.saw_terminated()
        paid = self._pay(obs, infos, terminated, truncated, resets)

        success = (paid.reward > 0) & self._guard.ends_on_success
        restarted = success & ~terminated & ~truncated
        if self.autoreset_mode is AutoresetMode.SAME_STEP:
            obs, infos = self._restart_now(obs, infos, restarted)
        elif self.autoreset_mode is AutoresetMode.NEXT_STEP:
            self._ended, self._to_restart = terminated | truncated, restarted
        everyone = np.ones(self.num_envs, dtype=bool)
        values = {
            "env_reward": np.where(resets, 0.0, env_rewards),
            "vlm_score": paid.score,
            "goal_index": np.where(resets, self.goal_index, goal_index),
        }
        if paid.stream is not None:
            values["vlm_stream"] = np.array(paid.stream)
        infos = {**infos, **values, **{f"_{key}": everyone.copy() for key in values}}
        shown = self._goals.add_to_rows(obs, self.goal_index)
        infos = self._with_final_goals(infos, goal_index)
        return shown, paid.reward.astype(np.float64), terminated | success, truncated, infos

    def _pay(
        self, obs: Batch, infos: Batch, terminated: Mask, truncated: Mask, resets: Mask
    ) -> StreamStep:
        """Scores what each action led to, and starts the episodes that have begun."""
        led_to, started = obs, rows_where(resets)
        if self.autoreset_mode is AutoresetMode.SAME_STEP:
            started = rows_where(terminated | truncated)
            led_to = replace_rows(obs, started, [infos["final_obs"][row] for row in started])
        first = rows_of(obs, started)
        return self._stream.step(
            led_to,
            terminated=terminated,
            truncated=truncated,
            stepped=~resets,
            started=started,
            first_obs=first,
            goal_index=self._choose(obs, infos, started),
        )

    def _reset_rows(self, obs: Batch, infos: Batch, mask: Mask) -> tuple[Batch, Batch]:
        """Resets some environments; returns all observations and infos with theirs replaced."""
        first, first_infos = self.env.reset(options={"reset_mask": mask.copy()})
        rows = rows_where(mask)
        obs = replace_rows(obs, rows, [row_of(first, row) for row in rows])
        return obs, _replace_infos(infos, first_infos, mask)

    def _restart_now(self, obs: Batch, infos: Batch, mask: Mask) -> tuple[Batch, Batch]:
        """Starts the next episode after a success, keeping the last frame (SAME_STEP)."""
        if not mask.any():
            return obs, infos
        rows = rows_where(mask)
        final_obs = np.array(infos.get("final_obs", np.full(self.num_envs, None)), dtype=object)
        has_final = np.array(infos.get("_final_obs", np.zeros(self.num_envs)), dtype=bool)
        for row in rows:
            final_obs[row] = {key: values[row].copy() for key, values in obs.items()}
        obs, fresh = self._reset_rows(obs, infos, mask)
        self._stream.start(rows, rows_of(obs, rows), goal_index=self._choose(obs, fresh, rows))
        last = {key: value for key, value in infos.items() if "final_" not in key}
        return obs, {
            **fresh,
            "final_obs": final_obs,
            "_final_obs": has_final | mask,
            "final_info": _replace_infos(last, infos.get("final_info", {}), has_final),
            "_final_info": has_final | mask,
        }

    def _with_final_goals(self, infos: Batch, goal_index: Int64[NDArray[Any], " N"]) -> Batch:
        """Adds to last observations the goal that they were about."""
        if "final_obs" not in infos:
            return infos
        final_obs = np.array(infos["final_obs"], dtype=object)
        for row in rows_where(np.array(infos["_final_obs"], dtype=bool)):
            final_obs[row] = self._goals.add_to_row(final_obs[row], int(goal_index[row]))
        return {**infos, "final_obs": final_obs}

    def _choose(
        self, obs: Batch, infos: Batch, rows: list[int]
    ) -> Int64[NDArray[Any], " S"] | None:
        each = [row_of(obs, row) for row in rows]
        return self._goals.choose(each, [_info(infos, row) for row in rows])


def _info(infos: Mapping[str, Any], row: int) -> Batch:
    """One environment's info out of the batch, where the mask `_key` says who has `key`."""
    return {
        key: values[row]
        for key, values in infos.items()
        if f"_{key}" in infos and infos[f"_{key}"][row] and not isinstance(values, Mapping)
    }


def _replace_infos(infos: Batch, by: Mapping[str, Any], mask: Mask) -> Batch:
    """Returns batched infos in which the masked environments have the values of others."""
    replaced: Batch = {}
    for key in {*infos, *by}:
        own, other = infos.get(key), by.get(key)
        if isinstance(own, Mapping) or isinstance(other, Mapping):
            replaced[key] = _replace_infos(dict(own or {}), other or {}, mask)
            continue
        known = np.asarray(own if own is not None else other)
        values = np.array(own) if own is not None else np.zeros_like(known)
        values[mask] = np.asarray(other)[mask] if other is not None else np.zeros_like(values[mask])
        replaced[key] = values
    return replaced
