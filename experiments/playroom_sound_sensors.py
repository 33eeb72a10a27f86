"""What the reward pays in an agent's own episodes when a sensor fails halfway through them.

Axis letters: ``S`` agents.
"""

from collections.abc import Callable, Sequence
from typing import get_args

import numpy as np
import torch
from numpy.typing import NDArray

from algdistill.sources import ActorCritic
from playroom_sound_tasks import Sensor, SoundTasks
from run_folder import Arrays
from trend_online import act

CUTS: tuple[Sensor | None, ...] = (None, *get_args(Sensor))


def cut_name(sensor: Sensor | None) -> str:
    """Return what the counts with a sensor cut, or none, are called."""
    return f"cut_{sensor or 'none'}"


def watch_with_cuts(
    learner: ActorCritic, make_tasks: Callable[[Sensor | None], SoundTasks]
) -> Arrays:
    """Let a trained agent act in the same episodes, with no sensor failing and with each.

    Returns:
        Of each of `CUTS`, over the second half of the episodes, where sensors have failed: the
        numbers of steps that were paid rightly, paid wrongly, true, and all.
    """
    return {cut_name(sensor): _count(learner, make_tasks(sensor)) for sensor in CUTS}


def _count(learner: ActorCritic, tasks: SoundTasks) -> NDArray[np.int64]:
    later = list(act(learner, tasks))[tasks.episode_length // 2 :]
    paid = torch.stack([result.reward > 0 for result in later])
    true = torch.stack([result.env_reward > 0 for result in later])
    counts = [(paid & true).sum(), (paid & ~true).sum(), true.sum(), true.numel()]
    return np.array([int(count) for count in counts])


def rates(counts: Sequence[NDArray[np.int64]]) -> dict[str, float | None]:
    """Return what share of true steps is paid, and of the others; None where there are none.

    Args:
        counts: Of S agents, pooled; see `watch_with_cuts`.
    """
    rightly, wrongly, true, steps = np.sum(counts, axis=0).tolist()
    return {
        "recall": rightly / true if true else None,
        "false_positives": wrongly / (steps - true) if steps > true else None,
    }
