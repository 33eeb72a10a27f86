"""An agent that learns with frozen weights: whatever it learns is in its context.

Axis letters: ``N`` tasks, ``T`` time steps, ``O`` observation components, ``A`` actions.
"""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from algdistill.models.transformer import ADTransformer, KeyValueCache
from algdistill.tasks import TaskSpace
from algdistill.timesteps import TimestepBatch


class InContextAgent:
    """Acts in many tasks at once, each with a context of its own that spans episodes.

    The context grows to the model's ``context_length``; then its oldest ``drop_length`` steps are
    forgotten and the rest is encoded anew. A cached key of a deeper layer has seen every step
    before it, so encoding anew is the only exact way to forget.

    Args:
        model: Its weights are not changed.
        drop_length: Steps forgotten together, best a whole episode: training windows start where
            episodes start.
        greedy: Take the likeliest action. Sampling is the default as a greedy agent walks in
            circles and never explores.

    Raises:
        ValueError: If ``drop_length`` is not within the context.
    """

    def __init__(self, model: ADTransformer, *, drop_length: int, greedy: bool = False) -> None:
        if not 1 <= drop_length <= model.config.context_length:
            raise ValueError(
                f"got drop_length={drop_length}, expected 1 to context_length="
                f"{model.config.context_length}"
            )
        self.model = model
        self.drop_length = drop_length
        self.greedy = greedy
        self._generator: torch.Generator | None = None

    @property
    def space(self) -> TaskSpace:
        """The observation and action spaces of the model."""
        return self.model.config.space

    def reset(self, num_tasks: int, generator: torch.Generator) -> None:
        """Empty the context of every task; not to be called between episodes.

        Args:
            num_tasks: How many tasks are acted in together.
            generator: Draws the actions; on the device of the model.
        """
        config, device = self.model.config, self.model.device
        self._generator = generator
        self._cache = KeyValueCache(config, num_tasks, device)
        length = config.context_length
        self._context = TimestepBatch(
            torch.zeros(
                num_tasks, length, *config.space.observations.shape,
                dtype=config.space.observations.dtype, device=device,
            ),
            config.space.actions.none(num_tasks, length, device=device),
            torch.zeros(num_tasks, length, device=device),
            torch.zeros(num_tasks, length, dtype=torch.bool, device=device),
        )  # fmt: skip
        self._num_steps = 0
        self._awaits_outcome = False
        self._prev_action = config.space.actions.none(num_tasks, device=device)
        self._prev_reward = torch.zeros(num_tasks, device=device)
        self._episode_start = torch.ones(num_tasks, dtype=torch.bool, device=device)

    @torch.no_grad()
    def action_logits(self, obs: Int[Tensor, "N O"]) -> Float[Tensor, "N A"]:
        """Add the present step to the context and return the logits of the action to take on it.

        Raises:
            RuntimeError: If the agent was never reset, or did not observe what the last action
                led to.
        """
        if self._generator is None:
            raise RuntimeError("call `reset` with the number of tasks before acting")
        if self._awaits_outcome:
            raise RuntimeError("call `observe` after each action: its outcome is the next input")
        self._awaits_outcome = True
        if self._num_steps == self.model.config.context_length:
            self._forget()
        now = slice(self._num_steps, self._num_steps + 1)
        present = self._context[now]
        present.obs[:, 0] = obs
        present.prev_action[:, 0] = self._prev_action
        present.prev_reward[:, 0] = self._prev_reward
        present.episode_start[:, 0] = self._episode_start
        self._num_steps += 1
        logits: Float[Tensor, "N 1 A"] = self.model(present, cache=self._cache)
        return logits[:, 0]

    def act(self, obs: Int[Tensor, "N O"]) -> Int[Tensor, " N"]:
        """Choose an action in every task. Follow each call with one of `observe`."""
        logits = self.action_logits(obs)
        if self.greedy:
            return logits.argmax(dim=-1)
        return torch.multinomial(logits.softmax(-1), 1, generator=self._generator)[:, 0]

    def observe(
        self,
        actions: Int[Tensor, " N"],
        rewards: Float[Tensor, " N"],
        episode_ended: Bool[Tensor, " N"],
    ) -> None:
        """Take note of what was done in every task and what it was paid.

        Args:
            actions: What was done; usually what `act` chose.
            rewards: What it was paid.
            episode_ended: Whether the next observation starts a new episode.
        """
        self._awaits_outcome = False
        self._prev_action = actions
        self._prev_reward = rewards
        self._episode_start = episode_ended

    def _forget(self) -> None:
        """Drop the oldest block of steps and encode the others at their new positions."""
        kept = self._num_steps - self.drop_length
        self._cache.clear()
        if kept:
            remaining = self._context[slice(self.drop_length, self._num_steps)]
            for name in ("obs", "prev_action", "prev_reward", "episode_start"):
                getattr(self._context, name)[:, :kept] = getattr(remaining, name).clone()
            self.model(self._context[slice(kept)], cache=self._cache)
        self._num_steps = kept
