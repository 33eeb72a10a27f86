"""What to do about a set of learning histories: which episodes to keep, and what is known to fail.

The thresholds are rules of thumb. Laskin et al. 2022 (arXiv 2210.14215) found that contexts of two
to four episodes are needed and that few tasks teach nothing in context; that learning should take
no more than about eight contexts is this project's own experience in Dark Rooms.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

CONTEXTS_OF_LEARNING = 8
"""Most contexts, end to end, that learning should take; sources slower than that are cloned."""
FEWEST_TASKS = 37
"""Below it, little was learned in context in Dark Key-to-Door."""
FEWEST_HISTORIES = 1000
"""What is known to work had 2,000 and more."""
_SKILLED_FROM_THE_START = 0.1


@dataclass(frozen=True)
class Advice:
    """Which episodes to keep, and what to expect.

    Attributes:
        keep_every: Recommended subsampling of whole episodes, counted in recorded episodes.
        reason: Why, in words and figures.
        warnings: What is known to fail and applies here.
    """

    keep_every: int
    reason: str
    warnings: tuple[str, ...]


def advise(
    *,
    num_tasks: int,
    num_histories: int,
    num_too_short: int,
    keep_every: int,
    gain: float,
    gain_low: float,
    last_return: float,
    learning_episodes: int,
    episodes_per_context: float,
    tasks_without_gain: int,
) -> Advice:
    """Judge by the figures of `algdistill.histories.quality.HistoryQuality`."""
    warnings = _context_warnings(episodes_per_context)
    # A single history has no interval: its gain is taken at its word.
    learns = (gain if math.isnan(gain_low) else gain_low) > 0.0
    further = 1
    if not learns:
        reason = "There is no learning that leaving out episodes could speed up."
        warnings.append(
            f"The sources do not learn: the last tenth of training earns {gain:+.3g} more than the "
            "first. A model of such histories clones what it sees, an expert (Expert "
            "Distillation) or a beginner."
        )
    elif gain < _SKILLED_FROM_THE_START * last_return:
        reason = "There is hardly any learning that leaving out episodes could speed up."
        warnings.append(
            f"The sources are skilled from the start: all of training brings {gain:.3g} of "
            f"{last_return:.3g}. This is Expert Distillation: the model imitates and does not "
            "learn in context. Keep the beginning of training in the histories."
        )
    else:
        further, reason = _speed(learning_episodes, max(episodes_per_context, 1.0))
        if further > 1:
            warnings.append(
                "The sources are slow: a context shows so little of their learning that the model "
                "would clone one stage of it (behaviour cloning). Keep fewer episodes, as "
                "recommended, use faster sources, or a longer context."
            )
    if num_tasks < FEWEST_TASKS:
        warnings.append(
            f"Only {num_tasks} tasks: with fewer than {FEWEST_TASKS} the model is likely to "
            "remember them instead of learning in context."
        )
    if num_histories < FEWEST_HISTORIES:
        warnings.append(
            f"Only {num_histories} histories: what is known to work had 2,000 and more. More "
            "learners for each task, with other seeds, help as well."
        )
    if learns and 4 * tasks_without_gain > num_tasks:
        warnings.append(
            f"{tasks_without_gain} of {num_tasks} tasks earn no more at the end than at the "
            "beginning: their histories teach that trying is useless."
        )
    if num_too_short:
        warnings.append(
            f"{num_too_short} of {num_histories} histories are shorter than the context: samplers "
            "refuse them."
        )
    return Advice(keep_every * further, reason, tuple(warnings))


def _speed(learning_episodes: int, episodes_per_context: float) -> tuple[int, str]:
    """Of how many kept episodes to keep one, and why."""
    contexts = learning_episodes / episodes_per_context
    further = math.ceil(contexts / CONTEXTS_OF_LEARNING)
    reason = (
        f"The sources make 90 % of their gain in {learning_episodes} kept episodes, "
        f"{contexts:.1f} contexts of {episodes_per_context:.3g} episodes each; "
    )
    if further == 1:
        return 1, f"{reason}up to {CONTEXTS_OF_LEARNING} are fine, so nothing more is left out."
    return further, (
        f"{reason}keeping one in {further} of them brings it down to {contexts / further:.1f}, of "
        f"at most {CONTEXTS_OF_LEARNING} that are advisable."
    )


def _context_warnings(episodes_per_context: float) -> list[str]:
    if episodes_per_context < 1.0:
        return [
            f"A context holds {episodes_per_context:.2g} episodes: nothing is learned in context "
            "below one; two to four are needed."
        ]
    if episodes_per_context < 2.0:
        return [
            f"A context holds {episodes_per_context:.2g} episodes: it cannot show an improvement "
            "from one episode to the next; two to four are needed."
        ]
    return []
