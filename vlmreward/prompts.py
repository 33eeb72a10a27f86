"""Wordings of goals: filled in, compared, and looked over.

Axes: `W` wordings, `B` frames, `D` width of the embedding.
"""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Float64
from numpy.typing import NDArray
from scipy import stats

from vlmreward.encoders import ImageTextEncoder
from vlmreward.frames import PIXELS, Frames
from vlmreward.goals import Goal
from vlmreward.heads import CosineHead, Head, ThresholdHead
from vlmreward.reward_model import RewardModel

APP_TEMPLATES: Mapping[str, str] = MappingProxyType(
    {
        "A": "Open {}",
        "B": "Open the {} app",
        "C": "Screenshot of {}",
        "D": "Screenshot of {} on Android",
    }
)
"""Forms A to D of "open this app" in Baumli et al. 2023 (arXiv 2312.09187).

A and B name the deed, C and D the state; the paper finds that descriptions of the state do better.
"""

_BLANK = "{}"

_DEED = re.compile(
    r"approach|bring|carry|catch|choose|click|climb|close|collect|cut|drag|drive|drop|"
    r"enter|find|fetch|fill|flip|follow|get|go|grab|grasp|hit|hold|insert|jump|kick|"
    r"kneel|launch|lay|leave|lift|make|move|navigate|open|pick|place|pour|press|pull|"
    r"push|put|raise|reach|release|remove|rotate|run|scroll|select|shut|sit|slide|stack|"
    r"stand|start|stop|sweep|swipe|switch|take|tap|throw|touch|turn|type|walk|wipe"
)
_STATE_VERB = re.compile(r"is|are|was|were|has|have|shows|lies|stands|sits|hangs")
_RELATIVE = frozenset({"that", "which", "who"})


def fill_templates(templates: str | Sequence[str], subject: str) -> tuple[str, ...]:
    """Writes one subject into several templates, for the `prompts` of one `Goal`.

    Args:
        templates: Each with one `{}`. Several average the accidents of a single wording out
            (Radford et al. 2021, arXiv 2103.00020, "prompt ensembling").
        subject: What takes the place of it.

    Raises:
        ValueError: If there is no template, if one has not exactly one `{}`, if two are alike, or
            if the subject is blank.

    Example:
        >>> fill_templates(["a photo of {}", "a drawing of {}"], "a red ball")
        ('a photo of a red ball', 'a drawing of a red ball')
        >>> fill_templates(APP_TEMPLATES["D"], "Maps")
        ('Screenshot of Maps on Android',)
    """
    given = (templates,) if isinstance(templates, str) else tuple(templates)
    if not given:
        raise ValueError("expected at least one template, got none")
    if not subject.strip():
        raise ValueError(f"expected a subject in words, got {subject!r}")
    for template in given:
        if template.count(_BLANK) != 1:
            raise ValueError(
                f"expected exactly one {_BLANK} in a template, got {template.count(_BLANK)} in "
                f"{template!r}"
            )
    # `replace`, not `format`: braces in the subject mean themselves.
    filled = tuple(template.replace(_BLANK, subject) for template in given)
    if len(set(filled)) < len(filled):
        raise ValueError(f"expected templates that differ, got {given}")
    return filled


def hint(prompt: str) -> str | None:
    """Says so where a prompt seems to name a deed instead of a state; None where it does not.

    A rule of thumb about English. A prompt is suspected if its first word, after "please" or "to",
    is a common verb of doing ("go", "pick", "open"; hyphenated words do not count), unless

    - a state verb ("is", "has", "lies") comes later, outside a relative clause: "open drawer is
      visible" describes, "go to the key that is blue" does not;
    - the next words are "of" or "up of": "close up of a key".

    A name that begins with such a word, without an article or a verb ("open drawer"), is suspected
    too, as it may just as well be a command; "an open drawer" is not. Deeds in other forms ("the
    robot picks up the mug") are not found.

    Example:
        >>> print(hint("go to the blue key"))
        'go' names a deed, and a frame shows states: say what is seen once it is done
        >>> hint("the person is next to the blue key")
    """
    words = re.findall(r"[\w'-]+", prompt.casefold())
    while words and words[0] in ("please", "to"):
        del words[0]
    if not words or not _DEED.fullmatch(words[0]):
        return None
    if words[1:2] == ["of"] or words[1:3] == ["up", "of"]:
        return None
    for before, word in itertools.pairwise(words):
        if _STATE_VERB.fullmatch(word) and before not in _RELATIVE:
            return None
    return f"{words[0]!r} names a deed, and a frame shows states: say what is seen once it is done"


@dataclass(frozen=True)
class WordingPair:
    """How two wordings of a goal agree about frames.

    Attributes:
        first: One wording.
        second: The other.
        kendall_tau: Kendall's tau-b of their scores, in [-1, 1]: 1 for the same ranking; NaN where
            a wording gives all frames the same score.
        spearman: Correlation of their ranks, likewise.
        flipped: Share of frames that one pays and the other does not; None if rewards are dense.
    """

    first: str
    second: str
    kendall_tau: float
    spearman: float
    flipped: float | None


@dataclass(frozen=True)
class WordingSensitivity:
    """How much a reward hangs on the wording of its goal.

    Attributes:
        wordings: What was compared.
        num_frames: On how many frames.
        paid: Share of frames that each wording pays; None if rewards are dense.
        pairs: Every two wordings.
        flipped: Share of frames about which the wordings do not all agree; None likewise.
    """

    wordings: tuple[str, ...]
    num_frames: int
    paid: tuple[float, ...] | None
    pairs: tuple[WordingPair, ...]
    flipped: float | None

    @property
    def worst(self) -> WordingPair:
        """The pair with the lowest tau; an undefined one counts as the lowest."""
        return min(
            self.pairs,
            key=lambda pair: -math.inf if _is_nan(pair.kendall_tau) else pair.kendall_tau,
        )

    def to_dict(self) -> dict[str, Any]:
        """Describes it as JSON types: a table of wordings and one of pairs."""
        paid = self.paid or (None,) * len(self.wordings)
        return {
            "num_frames": self.num_frames,
            "flipped": self.flipped,
            "worst": [self.worst.first, self.worst.second],
            "wordings": [
                {"wording": wording, "paid": share, "hint": hint(wording)}
                for wording, share in zip(self.wordings, paid, strict=True)
            ],
            "pairs": [
                {key: None if _is_nan(value) else value for key, value in vars(pair).items()}
                for pair in self.pairs
            ],
        }


def wording_sensitivity(
    encoder: ImageTextEncoder,
    obs: Mapping[str, Any] | Frames,
    wordings: Sequence[str],
    *,
    head: Head | None = None,
    negative_prompts: Sequence[str] = (),
    baseline_prompts: Sequence[str] = (),
    batch_size: int = 64,
) -> WordingSensitivity:
    """Compares how wordings of one goal rank the same observations.

    Args:
        encoder: Embeds.
        obs: Frames `[B, H, W, 3]`, uint8, or a mapping of batched modalities: some that show the
            goal, and some that do not.
        wordings: At least two.
        head: Scores each wording by itself, with the same negatives and baseline; the plain cosine
            if None. Rewards can flip if it is a `ThresholdHead`.
        negative_prompts: As in `Goal`.
        baseline_prompts: As in `Goal`.
        batch_size: Rows to a forward pass.

    Raises:
        ValueError: If there are fewer than two wordings or two observations, or if `Goal` or
            `RewardModel` refuses what is given.

    Example:
        "Green" and "a green room" are the same to this encoder, and red is not:

        >>> from vlmreward import FakeEncoder
        >>> frames = np.zeros((3, 8, 8, 3), np.uint8)
        >>> frames[1, :4, :, 1] = frames[2, ..., 1] = 255  # black, half green, green
        >>> found = wording_sensitivity(
        ...     FakeEncoder(), frames, ["a green room", "green everywhere", "a red room"],
        ...     head=ThresholdHead(CosineHead(), threshold=0.9),
        ... )
        >>> round(found.pairs[0].kendall_tau, 3), found.pairs[0].flipped
        (1.0, 0.0)
        >>> found.worst.second, round(found.flipped, 3)
        ('a red room', 0.333)
    """
    batch: Mapping[str, Any] = obs if isinstance(obs, Mapping) else {PIXELS: obs}
    if len(wordings) < 2 or isinstance(wordings, str):
        raise ValueError(f"expected at least two wordings to compare, got {wordings!r}")
    goals = [Goal(text, negative_prompts, baseline_prompts=baseline_prompts) for text in wordings]
    head = head or CosineHead()
    model = RewardModel(encoder, goals, head)
    embedding = _embed(encoder, batch, batch_size)
    if len(embedding) < 2:
        raise ValueError(f"expected at least two observations to rank, got {len(embedding)}")
    scored = [model.score_embeddings(embedding, index) for index in range(len(goals))]
    scores = [each.score.double().cpu().numpy() for each in scored]
    pays = np.stack([(each.reward > 0).cpu().numpy() for each in scored])
    is_binary = isinstance(head, ThresholdHead)
    pairs = []
    for first, second in itertools.combinations(range(len(goals)), 2):
        tau, rho = _rank_agreement(scores[first], scores[second])
        flipped = float((pays[first] != pays[second]).mean()) if is_binary else None
        pairs.append(WordingPair(wordings[first], wordings[second], tau, rho, flipped))
    return WordingSensitivity(
        wordings=tuple(wordings),
        num_frames=len(embedding),
        paid=tuple(float(row.mean()) for row in pays) if is_binary else None,
        pairs=tuple(pairs),
        flipped=float((pays != pays[0]).any(axis=0).mean()) if is_binary else None,
    )


def _is_nan(value: object) -> bool:
    return isinstance(value, float) and math.isnan(value)


def _embed(
    encoder: ImageTextEncoder, batch: Mapping[str, Any], batch_size: int
) -> Float[torch.Tensor, "B D"]:
    if batch_size < 1:
        raise ValueError(f"expected a batch_size of at least 1, got {batch_size}")
    read = {key: batch[key] for key in encoder.modalities if key in batch}
    num_rows = max((len(values) for values in read.values()), default=0)
    starts = range(0, max(num_rows, 1), batch_size)  # what is empty is the encoder's to refuse
    return torch.cat(
        [
            encoder.encode_obs({key: values[at : at + batch_size] for key, values in read.items()})
            for at in starts
        ]
    )


def _rank_agreement(
    first: Float64[NDArray[Any], " B"], second: Float64[NDArray[Any], " B"]
) -> tuple[float, float]:
    if np.ptp(first) == 0 or np.ptp(second) == 0:
        return float("nan"), float("nan")
    tau = stats.kendalltau(first, second).statistic
    return float(tau), float(stats.spearmanr(first, second).statistic)
