"""An agent that learns with frozen weights: whatever it learns is in its context.

Axis letters: ``N`` tasks, ``D`` width of a token, ``A`` numbers put out for an action;
``*obs`` and ``*action`` the
shapes of an observation and of an action.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Bool, Float, Shaped
from torch import Tensor

from algdistill.histories.schema import LearningHistory
from algdistill.models.action_head import likeliest_action, sample_action
from algdistill.models.block import KeyValueCache
from algdistill.models.transformer import ADTransformer
from algdistill.tasks import TaskSpace
from algdistill.timesteps import TimestepBatch


class InContextAgent:
    """Acts in many tasks at once, each with a context of its own that spans episodes.

    The context grows to the model's ``context_length``; then its oldest ``drop_length`` steps are
    forgotten and the rest is read anew. A cached key of a deeper layer has seen every step before
    it, so reading anew is the only exact way to forget. What is kept of a step is its token, which
    depends on that step alone: a context of frames costs no more memory than one of symbols.

    Args:
        model: Its weights are not changed.
        drop_length: Steps forgotten together, best a whole episode: training windows start where
            episodes start.
        greedy: Take the likeliest action, the mean of continuous ones. Sampling is the default as a
            greedy agent walks in circles and never explores.
        temperature: Actions are sampled from the model's probabilities to the power of
            ``1 / temperature``, normalised: below 1 the likely ones become likelier. Continuous
            actions keep a normal distribution, of ``temperature`` times the variance.

    Raises:
        ValueError: If ``drop_length`` is not within the context, the temperature is not above 0,
            or a greedy agent is given one.

    Example:
        >>> from algdistill.models import ADTransformer, ADTransformerConfig
        >>> from algdistill.sources import TabularQLearning, TabularQLearningConfig
        >>> from algdistill.tasks import TaskSpace
        >>> from algdistill.tasks_fake import dark_room_tasks
        >>> tasks = dark_room_tasks(size=3)
        >>> config = ADTransformerConfig(TaskSpace.of(tasks), context_length=80)
        >>> model = ADTransformer(config, torch.Generator().manual_seed(0))
        >>> agent = InContextAgent(model, drop_length=20)
        >>> agent.reset(tasks.num_tasks, torch.Generator().manual_seed(0))
        >>> source = TabularQLearningConfig(num_episodes=10)
        >>> histories = TabularQLearning(tasks, source, tasks.task_ids).train()
        >>> agent.prompt(histories, slice(80, 120))  # it goes on from the sixth episode's end
        >>> agent.act(tasks.reset()).shape
        torch.Size([9])
    """

    def __init__(
        self,
        model: ADTransformer,
        *,
        drop_length: int,
        greedy: bool = False,
        temperature: float = 1.0,
    ) -> None:
        if not 1 <= drop_length <= model.config.context_length:
            raise ValueError(
                f"got drop_length={drop_length}, expected 1 to context_length="
                f"{model.config.context_length}"
            )
        if not 0.0 < temperature < float("inf"):
            raise ValueError(
                f"got temperature={temperature}, expected more than 0: for the likeliest action, "
                "set `greedy`"
            )
        if greedy and temperature != 1.0:
            raise ValueError(
                f"got greedy=True and temperature={temperature}, expected one or the other"
            )
        self.model = model
        self.drop_length = drop_length
        self.greedy = greedy
        self.temperature = temperature
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
        shape = (num_tasks, config.num_tokens, config.embed_dim)
        self._tokens = torch.zeros(shape, device=device)
        self._num_steps = 0
        self._awaits_outcome = False
        self._prev_action = config.space.actions.none(num_tasks, device=device)
        self._prev_reward = torch.zeros(num_tasks, device=device)
        self._episode_start = torch.ones(num_tasks, dtype=torch.bool, device=device)

    @torch.no_grad()
    def action_logits(self, obs: Shaped[Tensor, " N *obs"]) -> Float[Tensor, "N A"]:
        """Add the present step to the context and return the logits of the action to take on it.

        Of continuous actions, what `algdistill.models.action_head` makes an action of.

        Raises:
            RuntimeError: If the agent was never reset, or did not observe what the last action
                led to.
        """
        self._check_ready()
        self._awaits_outcome = True
        present = TimestepBatch(
            obs[:, None],
            self._prev_action[:, None],
            self._prev_reward[:, None],
            self._episode_start[:, None],
        )
        tokens = self.model.encode(present)
        if self._num_steps == self.model.config.context_length:
            self._refill(self._num_steps - self.drop_length, tokens[:, :0])
        self._tokens[:, self._tokens_of(self._num_steps, self._num_steps + 1)] = tokens
        self._num_steps += 1
        logits: Float[Tensor, "N 1 A"] = self.model.predict(tokens, self._cache)
        return logits[:, 0]

    def act(self, obs: Shaped[Tensor, " N *obs"]) -> Shaped[Tensor, " N *action"]:
        """Choose an action in every task. Follow each call with one of `observe`."""
        outputs = self.action_logits(obs)
        if self.greedy:
            return likeliest_action(self.space.actions, outputs)
        return sample_action(self.space.actions, outputs, self.temperature, self._generator)

    def observe(
        self,
        actions: Shaped[Tensor, " N *action"],
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

    @torch.no_grad()
    def prompt(self, histories: Sequence[LearningHistory], rows: slice = slice(None)) -> None:
        """Live through a part of a learning history in every task (Laskin et al. 2022).

        Afterwards the agent is where it would be had it acted and observed those steps itself; what
        led to the first of them, if it is not the first of its history, is known to it.

        Args:
            histories: One for each task, of the model's space.
            rows: Time steps of each that are lived through.

        Raises:
            ValueError: If there is not one history for each task, they are of another space, or
                ``rows`` skips steps or leaves a history.
            RuntimeError: If the agent was never reset, or did not observe what the last action
                led to.
        """
        self._check_ready()
        if len(histories) != len(self._tokens):
            raise ValueError(
                f"got {len(histories)} histories, expected one for each of the "
                f"{len(self._tokens)} tasks"
            )
        if any(history.space != self.space for history in histories):
            raise ValueError(f"got histories of another space, expected {self.space}")
        shortest = min(map(len, histories))
        first = rows.start or 0
        last = shortest if rows.stop is None else rows.stop
        if rows.step not in (None, 1) or not 0 <= first < last <= shortest:
            raise ValueError(
                f"got {rows}, expected steps in a row, within the {shortest} of the shortest "
                "history"
            )
        # Of a long part, only the last steps are still remembered at its end.
        total = self._num_remembered(last - first)
        start = max(first, last - total)
        if start:
            before = self._outcomes(histories, slice(start - 1, start))
            self.observe(*(column[:, 0] for column in before))
        actions, rewards, ended = self._outcomes(histories, slice(start, last))
        obs = self._stacked([history.observations[start:last] for history in histories])
        steps = TimestepBatch(
            obs.to(self.space.observations.dtype),
            torch.cat([self._prev_action[:, None], actions[:, :-1]], dim=1),
            torch.cat([self._prev_reward[:, None], rewards[:, :-1]], dim=1),
            torch.cat([self._episode_start[:, None], ended[:, :-1]], dim=1),
        )
        self._refill(total - steps.num_steps, self.model.encode(steps))
        self.observe(actions[:, -1], rewards[:, -1], ended[:, -1])

    def _check_ready(self) -> None:
        """Refuse to go on where `reset` or `observe` is missing."""
        if self._generator is None:
            raise RuntimeError("call `reset` with the number of tasks before acting")
        if self._awaits_outcome:
            raise RuntimeError("call `observe` after each action: its outcome is the next input")

    def _num_remembered(self, num_new: int) -> int:
        """How many steps the context holds after that many more, dropped as they would be."""
        total = self._num_steps + num_new
        excess = max(0, total - self.model.config.context_length)
        return total - -(-excess // self.drop_length) * self.drop_length

    def _outcomes(
        self, histories: Sequence[LearningHistory], rows: slice
    ) -> tuple[Shaped[Tensor, "N T *action"], Float[Tensor, "N T"], Bool[Tensor, "N T"]]:
        """Actions, rewards and episode ends at some steps of learning histories."""
        return (
            self._stacked([history.actions[rows] for history in histories]).to(
                self.space.actions.dtype
            ),
            self._stacked([history.rewards[rows] for history in histories]).float(),
            self._stacked(
                [(history.terminated | history.truncated)[rows] for history in histories]
            ),
        )

    def _stacked(self, columns: list[np.ndarray]) -> Shaped[Tensor, "N T *rest"]:
        """One row for each task, on the model's device."""
        return torch.from_numpy(np.stack(columns)).to(self.model.device)

    def _tokens_of(self, first: int, last: int) -> slice:
        """Where the tokens of steps ``first … last - 1`` are."""
        per_step = self.model.config.tokens_per_step
        return slice(first * per_step, last * per_step)

    def _refill(self, num_kept: int, tokens: Float[Tensor, "N K D"]) -> None:
        """Keep the latest steps, add others, and read all of them anew at their positions."""
        kept = self._tokens_of(self._num_steps - num_kept, self._num_steps)
        context = torch.cat([self._tokens[:, kept], tokens], dim=1)
        num_tokens = context.shape[1]
        self._tokens[:, :num_tokens] = context
        self._cache.clear()
        if num_tokens:
            self.model.predict(context, self._cache)
        self._num_steps = num_tokens // self.model.config.tokens_per_step
