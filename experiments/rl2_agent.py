"""An agent of RL²: a recurrent policy whose hidden state is what it has learned of its task.

Axis letters: ``N`` tasks side by side, ``O`` components of an observation, ``D`` numbers that the
policy reads, ``A`` actions.
"""

import torch
from jaxtyping import Bool, Float, Int64
from sb3_contrib.common.recurrent.policies import RecurrentActorCriticPolicy
from torch import Tensor
from torch.nn.functional import one_hot

from algdistill.models.action_head import likeliest_action, sample_action
from algdistill.tasks import TaskSpace


class PolicyInputs:
    """What the policy reads, for ``N`` tasks side by side, as one vector each.

    One-hot components of the observation, the previous action one-hot, its reward, and 1 where an
    episode begins. In the first step of a trial there is no previous action, and all its places
    are 0.
    """

    def __init__(self, space: TaskSpace) -> None:
        self._space = space
        self.dim = sum(space.observation_sizes) + space.num_actions + 2

    def reset(self, num_tasks: int) -> None:
        """Begin a trial in every task."""
        none = torch.full((num_tasks,), self._space.num_actions)
        self.observe(none, torch.zeros(num_tasks), torch.ones(num_tasks, dtype=torch.bool))

    def observe(
        self,
        actions: Int64[Tensor, " N"],
        rewards: Float[Tensor, " N"],
        episode_ended: Bool[Tensor, " N"],
    ) -> None:
        """Take note of what was done and what it led to."""
        self._prev_action = one_hot(actions, self._space.num_actions + 1)[:, :-1]
        self._prev_reward = rewards
        self._episode_start = episode_ended

    def vectors(self, obs: Int64[Tensor, "N O"]) -> Float[Tensor, "N D"]:
        """What the policy reads before it acts on ``obs``."""
        components = [
            one_hot(obs[:, index], size) for index, size in enumerate(self._space.observation_sizes)
        ]
        flags = torch.stack([self._prev_reward, self._episode_start.float()], dim=1)
        return torch.cat([*components, self._prev_action, flags], dim=1).float()


class TrialPolicy(RecurrentActorCriticPolicy):
    """Reads a trial in one call of its LSTM; the library's own goes step by step, far slower."""

    @staticmethod
    def _process_sequence(
        features: Tensor,
        lstm_states: tuple[Tensor, Tensor],
        episode_starts: Tensor,
        lstm: torch.nn.LSTM,
    ) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        num_sequences = lstm_states[0].shape[1]
        starts = episode_starts.reshape(num_sequences, -1)
        if not starts[:, 1:].any():  # cleared, if at all, before the first step only
            kept = (1.0 - starts[:, 0]).view(1, num_sequences, 1)
            lstm_states = (kept * lstm_states[0], kept * lstm_states[1])
            episode_starts = torch.zeros_like(episode_starts)
        return RecurrentActorCriticPolicy._process_sequence(
            features, lstm_states, episode_starts, lstm
        )


class RL2Agent:
    """A trained policy as an `algdistill.agents.Agent`: one trial that never ends.

    Args:
        policy: Its weights are not changed.
        space: What tasks show and take.
        greedy: Take the likeliest action; sampling is the default, as in training.
    """

    def __init__(
        self, policy: RecurrentActorCriticPolicy, space: TaskSpace, *, greedy: bool = False
    ) -> None:
        self.policy, self.space, self.greedy = policy, space, greedy
        self._inputs = PolicyInputs(space)

    def reset(self, num_tasks: int, generator: torch.Generator) -> None:
        """Clear the hidden state of every task."""
        self._generator = generator
        self._inputs.reset(num_tasks)
        num_layers, _, width = self.policy.lstm_hidden_state_shape
        zeros = torch.zeros(num_layers, num_tasks, width)
        self._state: tuple[Tensor, ...] = (zeros, zeros)

    @torch.no_grad()
    def action_logits(self, obs: Int64[Tensor, "N O"]) -> Float[Tensor, "N A"]:
        """Read the present step and return the logits of the action to take on it."""
        distribution, self._state = self.policy.get_distribution(
            self._inputs.vectors(obs),
            self._state,  # type: ignore[arg-type]
            torch.zeros(len(obs)),
        )
        logits: Tensor = distribution.distribution.logits
        return logits

    def act(self, obs: Int64[Tensor, "N O"]) -> Int64[Tensor, " N"]:
        """Choose an action in every task."""
        logits = self.action_logits(obs)
        if self.greedy:
            return likeliest_action(self.space.actions, logits)
        return sample_action(self.space.actions, logits, 1.0, self._generator)

    def observe(
        self,
        actions: Int64[Tensor, " N"],
        rewards: Float[Tensor, " N"],
        episode_ended: Bool[Tensor, " N"],
    ) -> None:
        """Take note of what was done; the hidden state outlives the episode."""
        self._inputs.observe(actions, rewards, episode_ended)
