"""Adversarial Bandit (Laskin et al. 2022) as batched tensors.

Axis letters: ``N`` tasks, ``A`` arms, ``H W`` pixels.
"""

import torch
from jaxtyping import Float, Int64, UInt8
from torch import Tensor

from vlmreward_envs import counter_rng
from vlmreward_envs.adversarial_bandit.arms import EPISODE_LENGTH, NUM_ARMS
from vlmreward_envs.adversarial_bandit.rendering import draw_bandits
from vlmreward_envs.episodes import EpisodicTasks

_TRIAL_STREAM = 3  # 0 to 2 draw the arms, perhaps from the same integers


class AdversarialBanditTasks(EpisodicTasks):
    """Bandits with ten arms; each trial pays 1 with the probability of the arm that is pulled.

    There is nothing to see: the observation is always 0.

    Args:
        task_ids: What tells one bandit from another.
        seeds: The stream of every bandit's trials.
        arm_probabilities: How likely each arm is to pay, 0 to 1; see
            :func:`~vlmreward_envs.adversarial_bandit.draw_arm_probabilities`.

    Attributes:
        last_arm: The arm pulled last; -1 before the first trial of an episode.
        last_reward: What it paid.

    Raises:
        ValueError: If there is no task, not one seed for each, or the table has another shape or
            is no table of probabilities.

    Example:
        >>> from vlmreward_envs.adversarial_bandit import draw_arm_probabilities
        >>> task_ids = torch.arange(1000)
        >>> probabilities = draw_arm_probabilities(task_ids)
        >>> tasks = AdversarialBanditTasks(task_ids, task_ids, probabilities)
        >>> step = tasks.step(probabilities.argmax(dim=1))
        >>> step.obs.unique(), step.reward.unique()
        (tensor([0]), tensor([0., 1.]))
    """

    num_actions = NUM_ARMS
    observation_sizes = (1,)
    episode_length = EPISODE_LENGTH

    def __init__(
        self,
        task_ids: Int64[Tensor, " N"],
        seeds: Int64[Tensor, " M"],
        arm_probabilities: Float[Tensor, "M2 A"],
    ) -> None:
        super().__init__(task_ids, None)
        shape = (self.num_tasks, NUM_ARMS)
        if arm_probabilities.shape != shape:
            raise ValueError(
                f"got arm_probabilities of shape {tuple(arm_probabilities.shape)}, expected {shape}"
            )
        if not bool(((arm_probabilities >= 0) & (arm_probabilities <= 1)).all()):
            raise ValueError("got arm_probabilities outside [0, 1], expected probabilities")
        self.arm_probabilities = arm_probabilities.to(self.device)
        self._trial_seeds = counter_rng.fold(self._one_each(seeds), _TRIAL_STREAM)
        self._nothing = torch.zeros_like(task_ids)[:, None]
        self.last_arm = torch.full_like(task_ids, -1)
        self.last_reward = torch.zeros(self.num_tasks, device=self.device)
        self.reset()

    def observe(self) -> Int64[Tensor, "N 1"]:
        """Return nothing, as 0."""
        return self._nothing

    def optimal_returns(self) -> Float[Tensor, " N"]:
        """Return the expected return of pulling the best arm in every trial."""
        return EPISODE_LENGTH * self.arm_probabilities.amax(dim=1)

    def render(self) -> UInt8[Tensor, "N H W 3"]:
        """Draw every bandit with its probabilities, the arm pulled last, and what it paid."""
        return draw_bandits(self.arm_probabilities, self.last_arm, self.last_reward)

    def _begin(self) -> None:
        episode_seeds = counter_rng.fold(self._trial_seeds, self.episode)
        # One number for each trial: which arms would have paid does not depend on the one pulled.
        self._luck = counter_rng.uniform(episode_seeds, EPISODE_LENGTH).T.contiguous()
        self.last_arm = torch.full_like(self.task_ids, -1)
        self.last_reward = torch.zeros_like(self.last_reward)

    def _act(self, actions: Int64[Tensor, " N"]) -> Float[Tensor, " N"]:
        probability = self.arm_probabilities.gather(1, actions[:, None])[:, 0]
        self.last_arm = actions
        self.last_reward = (self._luck[self.num_steps - 1] < probability).float()
        return self.last_reward
