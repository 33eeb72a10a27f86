r"""Independent neural actor–critics on tasks of their own, as stacked networks.

After every ``rollout_length`` steps a learner estimates advantages with :math:`\lambda`-returns
(Schulman et al. 2016, `arXiv 1506.02438 <https://arxiv.org/abs/1506.02438>`_),

.. math:: \hat A_t = \delta_t + \gamma \lambda\,(1 - \text{ended}_t)\,\hat A_{t+1}, \qquad
    \delta_t = r_t + \gamma\,(1 - \text{terminated}_t)\,V(s'_t) - V(s_t)

and takes steps of Adam down the clipped loss (Schulman et al. 2017,
`arXiv 1707.06347 <https://arxiv.org/abs/1707.06347>`_) with the ratio
:math:`\rho_t = \pi(a_t | s_t) / \pi_\text{old}(a_t | s_t)`:

.. math:: L = -\mathbb{E}_t \min\bigl(\rho_t \hat A_t,
    \text{clip}(\rho_t, 1 - \epsilon, 1 + \epsilon)\,\hat A_t\bigr)
    + c_v (1 - \gamma)^2\,\mathbb{E}_t\,(V(s_t) - \hat A_t - V_\text{old}(s_t))^2
    - c_e\,\mathbb{E}_t\,H(\pi(s_t))

With a single step for each rollout every ratio is 1, and this is the synchronous A3C, A2C (Mnih et
al. 2016), that Laskin et al. 2022 distil; with several it is PPO. The network's own output is
:math:`(1 - \gamma) V`, no larger than a reward whatever the discount: a value near 100 would be
learned slowly, and its error would drown the policy's in the layers that both share.

Axis letters: ``N`` learners, ``E`` tasks of each, ``R`` = N · E, ``T`` steps of a rollout, ``B`` =
T · E, ``A`` actions.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int, Shaped
from torch import Tensor

from algdistill.sources.fleet import FleetConfig, SourceFleet
from algdistill.sources.policy_gradient import lambda_advantages
from algdistill.sources.stacked_adam import StackedAdam
from algdistill.sources.stacked_networks import (
    FirstLayer,
    StackedPerceptron,
    WeightStreams,
    check_width,
    layer_for,
)
from algdistill.tasks import BatchedStep, BatchedTasks


@dataclass(frozen=True)
class ActorCriticConfig(FleetConfig):
    """Settings of every learner.

    Attributes:
        num_episodes: Episodes each learner trains for, in each of its tasks.
        num_actors: Tasks that one learner acts in side by side, ``E``.
        hidden_size: Width of the network's layers, a multiple of 16.
        num_layers: Layers before the head.
        rollout_length: Steps in every task between two updates.
        num_epochs: How often an update goes through its rollout.
        num_minibatches: Steps of Adam in each epoch; with ``k``, each sees every ``k``-th step.
        learning_rate: Of Adam.
        discount: Gamma, in [0, 1).
        gae_lambda: Lambda, in [0, 1].
        clip_range: Epsilon, how far a ratio may gain from 1.
        value_coefficient: Weight of the squared error of (1 - gamma) times the value.
        entropy_coefficient: Weight of the policy's entropy, in nats.
        max_grad_norm: Longest gradient of a learner; longer ones are shortened to it.

    Raises:
        ValueError: If a value is out of its range.
    """

    num_actors: int = 1
    hidden_size: int = 32
    num_layers: int = 2
    rollout_length: int = 20
    num_epochs: int = 1
    num_minibatches: int = 1
    learning_rate: float = 3e-3
    discount: float = 0.99
    gae_lambda: float = 0.95
    clip_range: float = 0.2
    value_coefficient: float = 0.5
    entropy_coefficient: float = 0.01
    max_grad_norm: float = 0.5

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("num_actors", "num_layers", "rollout_length", "num_epochs"):
            self._check_range(name, 1.0)
        self._check_range("num_minibatches", 1.0, float(self.rollout_length * self.num_actors))
        check_width(self.hidden_size)
        for name in ("learning_rate", "clip_range", "max_grad_norm"):
            self._check_range(name, 1e-9)
        self._check_range("discount", 0.0, 1.0 - 1e-6)
        self._check_range("gae_lambda", 0.0, 1.0)
        for name in ("value_coefficient", "entropy_coefficient"):
            self._check_range(name, 0.0)


class ActorCritic(SourceFleet[ActorCriticConfig]):
    """Independent actor–critics; learner ``i`` acts in tasks ``i * E … (i + 1) * E - 1``.

    A learner's histories depend on its tasks and its seeds only. On a CPU they are the same alone
    as in a fleet of thousands, with the same number of threads; on other devices as far as kernels
    round alike.

    Args:
        tasks: ``num_actors`` tasks for each learner, which are copies or kin of each other.
        config: Settings shared by all.
        learner_seeds: One seed for each task. A task's seed decides which actions are drawn in it;
            that of a learner's first task also its initial weights.
        first_layer: Reads observations; needed for pixels only.

    Raises:
        ValueError: If there is not one seed for each task, the tasks cannot be divided, or they
            show pixels and nothing reads them.
        TypeError: If actions are not discrete.

    Example:
        >>> import torch
        >>> from algdistill.tasks_fake import dark_room_tasks
        >>> tasks = dark_room_tasks(size=3)
        >>> fleet = ActorCritic(tasks, ActorCriticConfig(num_episodes=60), tasks.task_ids)
        >>> history = fleet.train()[0]
        >>> bool(history.episode_returns[-10:].mean() > history.episode_returns[:10].mean())
        True
    """

    source_algorithm = "actor_critic"

    def __init__(
        self,
        tasks: BatchedTasks,
        config: ActorCriticConfig,
        learner_seeds: Int[Tensor, " R"],
        first_layer: FirstLayer | None = None,
    ) -> None:
        super().__init__(tasks, config, learner_seeds)
        if tasks.num_tasks % config.num_actors:
            raise ValueError(
                f"got {tasks.num_tasks} tasks, expected a multiple of num_actors="
                f"{config.num_actors}"
            )
        self._first_layer = first_layer or layer_for(self._space)
        self._num_actions = self._space.num_actions
        self._forget()

    def _forget(self) -> None:
        streams = WeightStreams(self._origins[:: self._config.num_actors])
        # One head for both: an output for each action's logit, and one for the value.
        self.network = StackedPerceptron(
            streams,
            self._first_layer,
            self._config.hidden_size,
            self._config.num_layers,
            self._num_actions + 1,
        )
        self._optimizer = StackedAdam(
            self.network, self._config.learning_rate, self._config.max_grad_norm
        )
        self._rollout: list[_Step] = []

    @torch.no_grad()
    def _act(self, obs: Shaped[Tensor, "R ..."], step: int) -> Int[Tensor, " R"]:
        """Draw from the policy."""
        per_learner = obs.reshape(-1, self._config.num_actors, *obs.shape[1:])
        log_probs, values = self._evaluate(per_learner)
        below = log_probs.exp().cumsum(dim=-1) <= self._draw(step, 1).view(*values.shape, 1)
        actions = below[..., :-1].sum(dim=-1)
        chosen = log_probs.gather(-1, actions[..., None])[..., 0]
        self._latest = (per_learner, actions, chosen, values)
        return actions.flatten()

    def _learn(self, actions: Int[Tensor, " R"], result: BatchedStep) -> None:
        """Keep the step; after a whole rollout, learn from it."""
        obs, drawn, log_probs, values = self._latest
        shape = values.shape
        self._rollout.append(
            _Step(
                obs,
                drawn,
                log_probs,
                values,
                result.next_obs.reshape(obs.shape),
                result.reward.view(shape),
                result.terminated.view(shape),
                (result.terminated | result.truncated).view(shape),
            )
        )
        if len(self._rollout) == self._config.rollout_length:
            self._update(_Step.stacked(self._rollout))
            self._rollout.clear()

    def _evaluate(
        self, obs: Shaped[Tensor, "N B ..."]
    ) -> tuple[Float[Tensor, "N B A"], Float[Tensor, "N B"]]:
        """Return the logarithms of all actions' probabilities, and the values."""
        outputs = self.network(obs)
        logits, scaled_values = outputs[..., :-1], outputs[..., -1]
        return logits.log_softmax(dim=-1), scaled_values / (1.0 - self._config.discount)

    def _update(self, rollout: _Step) -> None:
        """Take all steps of Adam that a rollout is good for."""
        config = self._config
        with torch.no_grad():
            _, next_values = self._evaluate(rollout.next_obs.flatten(1, 2))
            advantages = lambda_advantages(
                rollout.rewards,
                rollout.values,
                next_values.view_as(rollout.values),
                rollout.terminated,
                rollout.ended,
                discount=config.discount,
                gae_lambda=config.gae_lambda,
            )
            whole = [
                value.flatten(1, 2)
                for value in (
                    rollout.obs,
                    rollout.actions,
                    rollout.log_probs,
                    advantages,
                    advantages + rollout.values,
                )
            ]
        for _ in range(config.num_epochs):
            for first in range(config.num_minibatches):
                part = [value[:, first :: config.num_minibatches] for value in whole]
                self._optimizer.descend(self._loss(*part))

    def _loss(
        self,
        obs: Shaped[Tensor, "N B ..."],
        actions: Int[Tensor, "N B"],
        old_log_probs: Float[Tensor, "N B"],
        advantages: Float[Tensor, "N B"],
        returns: Float[Tensor, "N B"],
    ) -> Float[Tensor, ""]:
        """The sum of all learners' losses, each of which moves its own weights only."""
        config = self._config
        log_probs, values = self._evaluate(obs)
        ratio = (log_probs.gather(-1, actions[..., None])[..., 0] - old_log_probs).exp()
        clipped = ratio.clamp(1.0 - config.clip_range, 1.0 + config.clip_range)
        gain = torch.minimum(ratio * advantages, clipped * advantages)
        entropy = -(log_probs.exp() * log_probs).sum(dim=-1)
        loss = (
            config.value_coefficient * ((1.0 - config.discount) * (values - returns)).square()
            - gain
            - config.entropy_coefficient * entropy
        )
        return loss.mean(dim=1).sum()


@dataclass(frozen=True)
class _Step:
    """A step of every learner in each of its tasks, ``[N, E]``; stacked, ``[N, T, E]``."""

    obs: Tensor
    actions: Tensor
    log_probs: Tensor
    values: Tensor
    next_obs: Tensor
    rewards: Tensor
    terminated: Tensor
    ended: Tensor

    @classmethod
    def stacked(cls, steps: list[_Step]) -> _Step:
        """Lay steps side by side."""
        columns = zip(*(vars(step).values() for step in steps), strict=True)
        return cls(*(torch.stack(column, dim=1) for column in columns))
