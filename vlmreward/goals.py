"""Goals in words, and the negatives that a goal is told apart from."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vlmreward.frames import Frames, check_frames


@dataclass(frozen=True, init=False)
class Goal:
    """A task said in words, shown in pictures, or both.

    Several `prompts` are several wordings of one goal: their unit embeddings are averaged and the
    mean is scaled back to unit length, so that the similarity stays a cosine. Several `images` are
    treated alike. A goal with both lies between the two unit means, at `image_weight`, again at
    unit length.

    `negative_prompts` say what else the frame might show; a softmax head shares its probability
    among the goal and its negatives. `baseline_prompts` say how the scene looks before anything is
    done ("a car in the mountains"); a goal-baseline head pays for moving away from it.

    Describe the state that is wanted ("the person is next to the blue key"), not the deed that
    leads there ("go to the blue key"): a frame shows states.

    Attributes:
        prompts: Wordings of the goal.
        negative_prompts: What else might be seen.
        baseline_prompts: Wordings of the scene without the goal.
        images: Goal images, uint8 RGB `[K, H, W, 3]`, or None.
        image_weight: Share of the images where there are prompts too, in [0, 1].

    Example:
        >>> Goal("a red room", negative_prompts=["a green room", "a blue room"])
        Goal(prompts=('a red room',), negative_prompts=('a green room', 'a blue room'))

    Raises:
        TypeError: If a prompt is not a string.
        FrameError: If the images are no frames.
        ValueError: If there is neither a prompt nor an image, if a prompt is empty or blank, if
            one is given twice, if the goal is among its own negatives or baselines (letter case
            and runs of white space do not count), or if the weight is outside [0, 1].
    """

    prompts: tuple[str, ...]
    negative_prompts: tuple[str, ...]
    baseline_prompts: tuple[str, ...]
    images: NDArray[np.uint8] | None = field(compare=False)
    image_weight: float
    images_digest: str | None = field(init=False)

    def __init__(
        self,
        prompts: str | Sequence[str] = (),
        negative_prompts: str | Sequence[str] = (),
        *,
        baseline_prompts: str | Sequence[str] = (),
        images: Frames | None = None,
        image_weight: float = 0.5,
    ) -> None:
        if not 0 <= image_weight <= 1:
            raise ValueError(f"expected image_weight from 0 to 1, got {image_weight}")
        own = _as_prompts(prompts, "prompts")
        frames = None if images is None else np.array(check_frames(images), dtype=np.uint8)
        if not own and frames is None:
            raise ValueError(
                "a goal needs a prompt or an image, got neither: say the goal in words"
            )
        values = {
            "prompts": own,
            "negative_prompts": _as_prompts(negative_prompts, "negative_prompts"),
            "baseline_prompts": _as_prompts(baseline_prompts, "baseline_prompts"),
            "images": frames,
            "image_weight": float(image_weight),
            "images_digest": None if frames is None else _digest(frames),
        }
        for name, value in values.items():
            object.__setattr__(self, name, value)
        _refuse_shared(own, self.negative_prompts, "negative_prompts", "negatives")
        _refuse_shared(own, self.baseline_prompts, "baseline_prompts", "baselines")

    def __repr__(self) -> str:
        shown = [f"prompts={self.prompts}", f"negative_prompts={self.negative_prompts}"]
        if self.baseline_prompts:
            shown.append(f"baseline_prompts={self.baseline_prompts}")
        if self.images is not None:
            shown.append(f"images={list(self.images.shape)}, image_weight={self.image_weight}")
        return f"Goal({', '.join(shown)})"

    def config(self) -> dict[str, Any]:
        """Describes the goal as JSON types; of images, only how many and a digest."""
        described: dict[str, Any] = {
            "prompts": list(self.prompts),
            "negative_prompts": list(self.negative_prompts),
        }
        if self.baseline_prompts:
            described["baseline_prompts"] = list(self.baseline_prompts)
        if self.images is not None:
            described["images"] = {"count": len(self.images), "sha256": self.images_digest}
            described["image_weight"] = self.image_weight
        return described


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


def _digest(frames: NDArray[np.uint8]) -> str:
    return hashlib.sha256(repr(frames.shape).encode() + frames.tobytes()).hexdigest()


def _refuse_shared(
    prompts: tuple[str, ...], others: tuple[str, ...], field_name: str, role: str
) -> None:
    own = {_canonical(prompt) for prompt in prompts}
    shared = [text for text in others if _canonical(text) in own]
    if shared:
        raise ValueError(
            f"the goal is among its own {role}: {shared[0]!r}. The frame would be compared with "
            f"what it is meant to show; remove it from `{field_name}`"
        )


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
