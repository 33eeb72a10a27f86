"""Goals in words, and the negatives that a goal is told apart from."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, init=False)
class Goal:
    """A task said in words.

    Several `prompts` are several wordings of one goal: their unit embeddings are averaged and the
    mean is scaled back to unit length, so that the similarity stays a cosine. `negative_prompts`
    say what else the frame might show; a softmax head shares its probability among the goal and
    its negatives.

    Describe the state that is wanted ("the person is next to the blue key"), not the deed that
    leads there ("go to the blue key"): a frame shows states.

    Example:
        >>> Goal("a red room", negative_prompts=["a green room", "a blue room"])
        Goal(prompts=('a red room',), negative_prompts=('a green room', 'a blue room'))

    Raises:
        TypeError: If a prompt is not a string.
        ValueError: If there is no prompt, if one is empty or blank, if one is given twice, or if
            the goal is among its own negatives. Letter case and runs of white space do not count
            in the last two.
    """

    prompts: tuple[str, ...]
    negative_prompts: tuple[str, ...]

    def __init__(
        self, prompts: str | Sequence[str], negative_prompts: str | Sequence[str] = ()
    ) -> None:
        object.__setattr__(self, "prompts", _as_prompts(prompts, "prompts"))
        object.__setattr__(
            self, "negative_prompts", _as_prompts(negative_prompts, "negative_prompts")
        )
        if not self.prompts:
            raise ValueError("a goal needs at least one prompt, got none: say the goal in words")
        own = {_canonical(prompt) for prompt in self.prompts}
        shared = [text for text in self.negative_prompts if _canonical(text) in own]
        if shared:
            raise ValueError(
                f"the goal is among its own negatives: {shared[0]!r}. The probability of the goal "
                "could then never exceed one half; remove it from `negative_prompts`"
            )


def goals_from_prompts(
    prompts: Sequence[str],
    *,
    num_negatives: int | None = None,
    generator: np.random.Generator | None = None,
) -> tuple[Goal, ...]:
    """Turns a set of tasks into goals, each with other tasks of the set as its negatives.

    The negatives are chosen here, once, and belong to the goal from then on: drawing them anew at
    every step would make the reward stochastic (Baumli et al. 2023, arXiv 2312.09187).

    Args:
        prompts: One prompt per task.
        num_negatives: How many of the other prompts each goal gets, drawn uniformly without
            replacement. All of them if None.
        generator: The source of that draw; needed exactly when `num_negatives` is given.

    Returns:
        One goal per prompt, in the same order.

    Raises:
        ValueError: If there are fewer than two prompts, if a prompt is blank or repeated, if
            `num_negatives` is not between 1 and `len(prompts) - 1`, or if it is given without a
            generator.
    """
    texts = _as_prompts(prompts, "prompts")
    if len(texts) < 2:
        raise ValueError(
            f"expected at least two prompts, got {len(texts)}: the negatives of a goal are the "
            "other prompts. For a single goal, write Goal(prompt, negative_prompts=[...])"
        )
    if num_negatives is None:
        return tuple(Goal(text, [other for other in texts if other != text]) for text in texts)
    if not 1 <= num_negatives < len(texts):
        raise ValueError(
            f"expected num_negatives between 1 and {len(texts) - 1} (the number of other prompts), "
            f"got {num_negatives}"
        )
    if generator is None:
        raise ValueError(
            "num_negatives was given without a generator: pass numpy.random.default_rng(seed), so "
            "that the choice of negatives can be repeated"
        )
    goals = []
    for text in texts:
        others = [other for other in texts if other != text]
        chosen = generator.choice(len(others), size=num_negatives, replace=False)
        goals.append(Goal(text, [others[index] for index in sorted(chosen)]))
    return tuple(goals)


def _canonical(prompt: str) -> str:
    return " ".join(prompt.casefold().split())


def _as_prompts(prompts: str | Iterable[object], field: str) -> tuple[str, ...]:
    texts = (prompts,) if isinstance(prompts, str) else tuple(prompts)
    seen: set[str] = set()
    checked = []
    for text in texts:
        if not isinstance(text, str):
            raise TypeError(f"expected strings in `{field}`, got {text!r} ({type(text).__name__})")
        if not text.strip():
            raise ValueError(f"a prompt in `{field}` is empty or blank ({text!r}): say it in words")
        if _canonical(text) in seen:
            raise ValueError(f"{text!r} is in `{field}` twice: remove one of them")
        seen.add(_canonical(text))
        checked.append(text)
    return tuple(checked)
