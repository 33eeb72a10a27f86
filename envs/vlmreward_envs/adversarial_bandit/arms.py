r"""How the arms of an Adversarial Bandit pay, and what that is worth.

The paper (Laskin et al. 2022) has 10 arms and 100 trials, with the reward under odd arms 95 % of
the time in training and under even arms 95 % of the time in evaluation. It leaves open what is
drawn. Here every arm pays 1 with its own probability, uniform in [0, 1) as in RL² (Duan et al.
2016), and the 95 % are the chance that the best arm of a task is an odd one. Arms are numbered
from 0.

Axis letters: ``N`` tasks, ``A`` = 10 arms.
"""

from collections.abc import Mapping
from types import MappingProxyType

from jaxtyping import Float, Int64
from torch import Tensor

from vlmreward_envs import counter_rng

NUM_ARMS = 10
EPISODE_LENGTH = 100

ODD_RATE: Mapping[str, float] = MappingProxyType({"train": 0.95, "test": 0.05})
"""Probability that the best arm of a task is odd, by split: ``"train"`` or ``"test"``."""

_PAY_STREAM, _ODD_STREAM, _PLACE_STREAM = range(3)


def draw_arm_probabilities(
    task_ids: Int64[Tensor, " N"], split: str = "train"
) -> Float[Tensor, "N A"]:
    """Draw how likely each arm of each task is to pay.

    Ten numbers are drawn, uniform in [0, 1), and an arm, odd with probability `ODD_RATE`; then the
    largest number changes places with that arm's. A task depends on its id and split alone.

    Args:
        task_ids: Any integers. Use other ids for test tasks than for train tasks, so that an id
            means one task.
        split: Whether the best arm is mostly odd (``"train"``) or mostly even (``"test"``).

    Raises:
        ValueError: If there is no such split.

    Example:
        >>> import torch
        >>> best = draw_arm_probabilities(torch.arange(10_000)).argmax(dim=1)
        >>> round((best % 2 == 1).float().mean().item(), 2)
        0.95
    """
    _check_split(split)
    pays = counter_rng.uniform(counter_rng.fold(task_ids, _PAY_STREAM), NUM_ARMS)
    is_odd = counter_rng.uniform(counter_rng.fold(task_ids, _ODD_STREAM), 1) < ODD_RATE[split]
    pair = counter_rng.integers(counter_rng.fold(task_ids, _PLACE_STREAM), 1, 0, NUM_ARMS // 2)
    best_arm = 2 * pair + is_odd
    largest = pays.argmax(dim=1, keepdim=True)
    displaced = pays.gather(1, best_arm)
    most = pays.gather(1, largest)
    return pays.scatter(1, largest, displaced).scatter(1, best_arm, most)


def no_adaptation_return(acting: str = "train", paid_in: str | None = None) -> float:
    r"""Return the most that is earned, on average over tasks, without heeding rewards.

    The largest of ``A`` uniform numbers is :math:`A / (A + 1)` on average, and each other half of
    it. All that is known before the first trial is that the best arm is odd with probability ``p``,
    so an odd arm pays with probability

    .. math:: \frac{A}{A + 1}\left(\frac{1}{2} + \frac{1}{2} \cdot \frac{p}{A / 2}\right)

    and an even arm with ``1 - p`` in place of ``p``. Pulling one arm of the likelier kind again and
    again earns as much as any choice among them.

    Args:
        acting: The split for which the agent's choice is best.
        paid_in: The split it then acts in; the same if ``None``.

    Example:
        >>> [round(no_adaptation_return("train", paid_in), 2) for paid_in in ("train", "test")]
        [54.09, 45.91]
    """
    paid_in = paid_in or acting
    _check_split(acting)
    _check_split(paid_in)
    chance_best = ODD_RATE[paid_in] if ODD_RATE[acting] > 0.5 else 1 - ODD_RATE[paid_in]
    largest = NUM_ARMS / (NUM_ARMS + 1)
    return EPISODE_LENGTH * largest * (0.5 + 0.5 * chance_best / (NUM_ARMS // 2))


def _check_split(split: str) -> None:
    if split not in ODD_RATE:
        raise ValueError(f"got split={split!r}, expected one of {list(ODD_RATE)}")
