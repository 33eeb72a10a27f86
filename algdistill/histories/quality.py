"""Are these learning histories worth distilling? Measured before training, in one pass.

A distilled model copies what one context shows it. So the question is how much the source improves
within a context, over how many tasks, and how many whole episodes to leave out where it is slow.

Only whole episodes count. Axis letters: ``E`` episodes, ``D`` tenths of training, ``N``
tasks, ``Q`` quantiles.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from jaxtyping import Float

from algdistill.histories.quality_advice import Advice, advise
from algdistill.histories.quality_sums import Coverage, QualitySums
from algdistill.histories.schema import LearningHistory

QUANTILES = np.linspace(0.0, 1.0, 21)
"""Which quantiles of the improvement are reported."""


@dataclass(frozen=True)
class HistoryQuality:
    """What a set of learning histories offers to a model of some context.

    Returns are sums of ``rewards``, what the source was paid, unless ``env`` is in the name.

    Attributes:
        context_length: Time steps of the context they were judged for.
        keep_every: Only every ``keep_every``-th episode was looked at.
        num_histories: How many.
        num_tasks: Tasks of different ``task_id``.
        num_steps: Time steps of the kept episodes.
        episode_returns: Learning curve: mean over the histories that reached each kept episode.
        episode_returns_low: Lower end of its 95 % interval, normal over histories; NaN for one.
        episode_returns_high: Upper end.
        decile_returns: Mean return in each tenth of training.
        decile_env_returns: The same of the ground truth.
        gain: Mean over histories of the last tenth's return less the first's.
        gain_low: Lower end of its 95 % interval; NaN for a single history.
        learning_episodes: Kept episodes until the learning curve, smoothed over a tenth of its
            length, has made 90 % of its rise.
        episodes_per_context: Mean number of whole episodes in a context.
        improvement: Within a context: mean return of its second half of episodes less that of its
            first, averaged over all contexts that start with an episode; NaN where a context holds
            less than two.
        improvement_quantiles: The distribution of it, at `QUANTILES`.
        share_improving: Share of contexts where it is positive.
        task_returns: Mean return of each task in the last tenth of training, lowest first.
        tasks_without_gain: Tasks that earn no more in the last tenth than in the first.
        coverage: What was visited; None where observations cannot be counted.
        advice: Which episodes to keep, why, and what is likely to go wrong.
    """

    context_length: int
    keep_every: int
    num_histories: int
    num_tasks: int
    num_steps: int
    episode_returns: Float[np.ndarray, " E"]
    episode_returns_low: Float[np.ndarray, " E"]
    episode_returns_high: Float[np.ndarray, " E"]
    decile_returns: Float[np.ndarray, " D"]
    decile_env_returns: Float[np.ndarray, " D"]
    gain: float
    gain_low: float
    learning_episodes: int
    episodes_per_context: float
    improvement: float
    improvement_quantiles: Float[np.ndarray, " Q"]
    share_improving: float
    task_returns: Float[np.ndarray, " N"]
    tasks_without_gain: int
    coverage: Coverage | None
    advice: Advice

    def to_dict(self) -> dict[str, Any]:
        """Everything as data that JSON can hold; numbers that are not known are None."""
        known: dict[str, Any] = _plain(asdict(self))
        return known


def measure_quality(
    blocks: Iterable[Sequence[LearningHistory]], *, context_length: int, keep_every: int = 1
) -> HistoryQuality:
    """Judge histories for a context, block by block; memory does not grow with their number.

    Args:
        blocks: ``store.blocks()``, or histories in memory as ``[histories]``.
        context_length: Time steps of the context to train for.
        keep_every: Look at every ``keep_every``-th whole episode only, to see what it would bring.

    Raises:
        ValueError: If there are no histories, their spaces differ, one has less than two whole
            episodes, or all are shorter than the context.

    Example:
        >>> from algdistill.sources import TabularQLearning, TabularQLearningConfig
        >>> from algdistill.tasks_fake import dark_room_tasks
        >>> tasks = dark_room_tasks()
        >>> config = TabularQLearningConfig(num_episodes=40)
        >>> histories = TabularQLearning(tasks, config, tasks.task_ids).train()
        >>> quality = measure_quality([histories], context_length=80)
        >>> quality.num_tasks, quality.episodes_per_context, quality.coverage.states
        (81, 4.0, 1.0)
        >>> quality.advice.keep_every
        1
    """
    if context_length < 1:
        raise ValueError(f"got context_length={context_length}, expected at least 1")
    sums = QualitySums(context_length)
    for block in blocks:
        for history in block:
            sums.add(history if keep_every == 1 else history.keep_every(keep_every))
    sums.check()
    returns, half_width = sums.curve()
    improvements = sums.improvements.values
    known = len(improvements) > 0
    gain, gain_half_width = sums.gain()
    learning_episodes = _learning_episodes(returns[sums.reached_by_half()])
    episodes_per_context = sums.episodes_per_context()
    first, last = sums.task_means()
    return HistoryQuality(
        context_length=context_length,
        keep_every=keep_every,
        num_histories=sums.num_histories,
        num_tasks=len(last),
        num_steps=sums.num_steps,
        episode_returns=returns,
        episode_returns_low=returns - half_width,
        episode_returns_high=returns + half_width,
        decile_returns=sums.decile_returns / sums.num_histories,
        decile_env_returns=sums.decile_env_returns / sums.num_histories,
        gain=gain,
        gain_low=gain - gain_half_width,
        learning_episodes=learning_episodes,
        episodes_per_context=episodes_per_context,
        improvement=float(improvements.mean()) if known else float("nan"),
        improvement_quantiles=(
            np.quantile(improvements, QUANTILES) if known else np.full(len(QUANTILES), np.nan)
        ),
        share_improving=float((improvements > 0.0).mean()) if known else float("nan"),
        task_returns=np.sort(last),
        tasks_without_gain=int((last <= first).sum()),
        coverage=sums.coverage(),
        advice=advise(
            num_tasks=len(last),
            num_histories=sums.num_histories,
            num_too_short=sums.num_too_short,
            keep_every=keep_every,
            gain=gain,
            gain_low=gain - gain_half_width,
            last_return=float(sums.decile_returns[-1] / sums.num_histories),
            learning_episodes=learning_episodes,
            episodes_per_context=episodes_per_context,
            tasks_without_gain=int((last <= first).sum()),
        ),
    )


def _learning_episodes(returns: Float[np.ndarray, " E"]) -> int:
    """Episodes until the smoothed curve has made 90 % of its rise."""
    width = max(1, len(returns) // 10)
    smooth = np.convolve(returns, np.full(width, 1.0 / width), mode="valid")
    goal = smooth[0] + 0.9 * (smooth.max() - smooth[0])
    return max(1, int(np.argmax(smooth >= goal)) + width // 2)


def _plain(value: Any) -> Any:
    """Arrays as lists, and None for what is not a number."""
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, np.ndarray | list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, float):
        return None if np.isnan(value) else float(value)
    return value
