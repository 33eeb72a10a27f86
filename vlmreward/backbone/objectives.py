r"""Contrastive objectives between any two sets of unit vectors, and which of them train a backbone.

A `Pair` is two sets of unit vectors x and y, which pairs of them are true, and which rows are there
at all. Two losses of it, with logits :math:`l_{ij} = s\, x_i \cdot y_j`, the true ones of a row
:math:`P(i)` and the false ones :math:`N(i)`, among rows that are present:

.. math::
    L_\text{InfoNCE} &= \tfrac12 (L_{xy} + L_{yx}), \quad L_{xy} =
        \mathrm{mean}_i\, \mathrm{mean}_{j \in P(i)} \log\left(1 + \sum_{n \in N(i)}
        e^{l_{in} - l_{ij}}\right) \\
    L_\text{SigLIP} &= \frac1B \sum_{ij} \log\left(1 + e^{-z_{ij} (l_{ij} + b)}\right), \quad
        z_{ij} = \pm 1

InfoNCE (van den Oord et al. 2018, `arXiv 1807.03748 <https://arxiv.org/abs/1807.03748>`_) here
takes any number of positives: true texts of a row do not compete with each other, and one caption
may be true of several rows. SigLIP is Zhai et al. 2023 (`arXiv 2303.15343
<https://arxiv.org/abs/2303.15343>`_).

Paper → code: s → ``logit_scale`` (1 / temperature), b → ``logit_bias``, z → ``is_true``.

Axis letters: ``B`` rows of the batch, ``N`` vectors they are contrasted with, ``D`` width.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Literal, get_args

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn import functional as F

Side = Literal["first", "second"]
Loss = Literal["info_nce", "siglip"]

STREAMS = ("audio", "video", "fusion", "episode")
"""What is embedded: a sound, frames, both together, or the memory of an episode so far."""

_ABSENT = -1e4  # far below any logit, and unlike minus infinity it has a gradient
_MAX_LOGIT_SCALE = 100.0  # Radford et al. 2021, section 2.5
_DESCRIBED = {
    "image_text": "video",
    "audio_text": "audio",
    "fusion_text": "fusion",
    "episode_text": "episode",
}


@dataclass(frozen=True)
class Pair:
    """Two sets of unit vectors and what is true between them.

    Attributes:
        first: Unit vectors x.
        second: Unit vectors y.
        is_true: The positives. A row or a column may have several, or none: then it is only
            contrasted with.
        has_first: Rows of `first` that are present; all by default. What stands in the other rows
            does not matter, not even NaN.
        has_second: The same of `second`.

    Raises:
        ValueError: If the shapes do not fit together.
    """

    first: Float[Tensor, "B D"]
    second: Float[Tensor, "N D"]
    is_true: Bool[Tensor, "B N"]
    has_first: Bool[Tensor, " B"] | None = None
    has_second: Bool[Tensor, " N"] | None = None

    def __post_init__(self) -> None:
        if self.first.shape[1] != self.second.shape[1]:
            raise ValueError(
                f"got vectors of width {self.first.shape[1]} and {self.second.shape[1]}, expected "
                "one width: project both to the same space"
            )
        expected = (len(self.first), len(self.second))
        if tuple(self.is_true.shape) != expected:
            raise ValueError(
                f"got is_true of shape {list(self.is_true.shape)}, expected {list(expected)}"
            )
        for size, is_present in zip(expected, (self.has_first, self.has_second), strict=True):
            if is_present is not None and tuple(is_present.shape) != (size,):
                raise ValueError(
                    f"got presence of shape {list(is_present.shape)}, expected [{size}]"
                )

    def stop_gradient(self, side: Side) -> Pair:
        """The same pair, of which one side is a target that the loss does not train."""
        if side == "first":
            return replace(self, first=self.first.detach())
        return replace(self, second=self.second.detach())

    def similarities(self) -> Float[Tensor, "B N"]:
        """x·y in float32, in mixed precision too; 0 where one of the two is missing."""
        # Chosen away before the product: zero times NaN is NaN, in the gradient as well.
        first = _present(self.first.float(), self.has_first)
        second = _present(self.second.float(), self.has_second)
        with torch.autocast(first.device.type, enabled=False):
            return first @ second.T

    def is_present(self) -> Bool[Tensor, "B N"]:
        """Where both vectors are present."""
        present = torch.ones_like(self.is_true)
        if self.has_first is not None:
            present = present & self.has_first[:, None]
        if self.has_second is not None:
            present = present & self.has_second
        return present


def _present(vectors: Float[Tensor, "B D"], has: Bool[Tensor, " B"] | None) -> Tensor:
    return vectors if has is None else torch.where(has[:, None], vectors, 0.0)


def info_nce(pair: Pair, logit_scale: Float[Tensor, ""]) -> Float[Tensor, ""]:
    """Return the symmetric InfoNCE loss of a pair, in nats; 0 where nothing present is true.

    With one positive a row and equal similarities it is log N.

    Args:
        pair: The vectors.
        logit_scale: s.

    Example:
        Two orthogonal vectors, each matched with itself: log(1 + exp(-s)).

        >>> eye = torch.eye(2)
        >>> round(info_nce(Pair(eye, eye, eye.bool()), torch.tensor(1.0)).item(), 4)
        0.3133
    """
    logits = logit_scale.float() * pair.similarities()
    present = pair.is_present()
    positives, negatives = pair.is_true & present, ~pair.is_true & present
    forth = _one_way(logits, positives, negatives)
    back = _one_way(logits.T, positives.T, negatives.T)
    return (forth + back) / 2


def _one_way(
    logits: Float[Tensor, "R C"], positives: Bool[Tensor, "R C"], negatives: Bool[Tensor, "R C"]
) -> Float[Tensor, ""]:
    # log(1 + sum of e^(b - a)) = softplus(log sum of e^b - a)
    against = logits.masked_fill(~negatives, _ABSENT).logsumexp(dim=1, keepdim=True)
    of_pair = F.softplus(against - logits).masked_fill(~positives, 0.0)
    of_row = of_pair.sum(dim=1) / positives.sum(dim=1).clamp(min=1)
    return of_row.sum() / positives.any(dim=1).sum().clamp(min=1)


def siglip(
    pair: Pair, logit_scale: Float[Tensor, ""], logit_bias: Float[Tensor, ""]
) -> Float[Tensor, ""]:
    """Return the pairwise sigmoid loss of a pair, summed over columns, the mean over rows.

    Args:
        pair: The vectors.
        logit_scale: s.
        logit_bias: b; about -log N at first, since nearly all pairs are false.

    Example:
        >>> eye = torch.eye(2)
        >>> zero = torch.tensor(0.0)
        >>> round(siglip(Pair(eye, eye, eye.bool()), zero, zero).item(), 4)  # 2 log 2
        1.3863
    """
    logits = logit_scale.float() * pair.similarities() + logit_bias.float()
    present = pair.is_present()
    signed = torch.where(pair.is_true, logits, -logits)
    of_pair = F.softplus(-signed).masked_fill(~present, 0.0)
    return of_pair.sum() / present.any(dim=1).sum().clamp(min=1)


@dataclass(frozen=True)
class PairConfig:
    """How one pair of streams is contrasted.

    Attributes:
        weight: What its loss is multiplied by; 0 is off.
        loss: ``"info_nce"`` or ``"siglip"``.
        temperature: 1 / s at first.
        bias: b at first, of SigLIP.
        stop_gradient: The side that is only a target, if one is.

    Raises:
        ValueError: If a value is out of its range.
    """

    weight: float = 1.0
    loss: Loss = "info_nce"
    temperature: float = 0.07
    bias: float = -10.0
    stop_gradient: Side | None = None

    def __post_init__(self) -> None:
        if not 0.0 <= self.weight < math.inf:
            raise ValueError(f"got weight={self.weight}, expected 0 (off) or more")
        if self.loss not in get_args(Loss):
            raise ValueError(f"got loss={self.loss!r}, expected one of {get_args(Loss)}")
        if not 1 / _MAX_LOGIT_SCALE <= self.temperature <= 1.0:
            raise ValueError(
                f"got temperature={self.temperature}, expected {1 / _MAX_LOGIT_SCALE} to 1"
            )
        if self.stop_gradient not in (None, *get_args(Side)):
            raise ValueError(
                f"got stop_gradient={self.stop_gradient!r}, expected one of {get_args(Side)} or "
                "None"
            )


@dataclass(frozen=True)
class ObjectivesConfig:
    """Every pair of streams. The first side of each is named first.

    Attributes:
        image_text: Video and text.
        audio_text: Audio and text.
        audio_video: Audio and video of the same moment.
        fusion_text: Both together and text.
        episode_text: The memory of an episode and text.

    Raises:
        ValueError: If all are off.
    """

    image_text: PairConfig = field(default_factory=PairConfig)
    audio_text: PairConfig = field(default_factory=PairConfig)
    audio_video: PairConfig = field(default_factory=PairConfig)
    fusion_text: PairConfig = field(default_factory=PairConfig)
    episode_text: PairConfig = field(default_factory=PairConfig)

    def __post_init__(self) -> None:
        if not self.active():
            raise ValueError("got weight 0 for every pair, expected at least one above 0")

    def active(self) -> dict[str, PairConfig]:
        """The pairs that are on, by name."""
        pairs: dict[str, PairConfig] = {
            item.name: getattr(self, item.name) for item in fields(self)
        }
        return {name: pair for name, pair in pairs.items() if pair.weight > 0.0}


@dataclass(frozen=True)
class StreamEmbeddings:
    """What one stream makes of a batch.

    Attributes:
        vectors: Unit vectors.
        is_present: Rows that have this stream; all by default.
    """

    vectors: Float[Tensor, "B D"]
    is_present: Bool[Tensor, " B"] | None = None


@dataclass(frozen=True)
class StreamTexts:
    """Distinct sentences, and which row of the batch each is true of, as one stream shows it.

    Attributes:
        vectors: Unit vectors.
        is_true: Which text is true of which row. A near miss is true of none.
    """

    vectors: Float[Tensor, "N D"]
    is_true: Bool[Tensor, "B N"]


class ContrastiveObjectives(nn.Module):
    """The losses between the streams of a backbone, each with a learned scale of its own.

    Args:
        config: Which pairs, and how.
    """

    def __init__(self, config: ObjectivesConfig) -> None:
        super().__init__()
        self.config = config
        self.log_scales = nn.ParameterDict()
        self.biases = nn.ParameterDict()
        for name, pair in config.active().items():
            self.log_scales[name] = nn.Parameter(torch.tensor(-math.log(pair.temperature)))
            if pair.loss == "siglip":
                self.biases[name] = nn.Parameter(torch.tensor(pair.bias))

    def logit_scale(self, name: str) -> Float[Tensor, ""]:
        """The scale of one pair's logits: at least 1, at most 100."""
        log_scale: Tensor = self.log_scales[name]
        with torch.no_grad():  # the parameter itself, so that a gradient can bring it back
            log_scale.clamp_(0.0, math.log(_MAX_LOGIT_SCALE))
        return log_scale.exp()

    def forward(
        self,
        streams: Mapping[str, StreamEmbeddings],
        texts: Mapping[str, StreamTexts],
        is_same_moment: Bool[Tensor, "B B"] | None = None,
    ) -> dict[str, Float[Tensor, ""]]:
        """Return the losses of the pairs that are on and given, each times its weight.

        Args:
            streams: By name, of `STREAMS`; those that no row has may be left out.
            texts: By name of the stream that they describe.
            is_same_moment: Which sound (rows) belongs to which video (columns); each to its own by
                default. Say so where several are equal, as silence is.

        Raises:
            ValueError: If a stream is unknown, or no pair that is on is given.
        """
        for name in (*streams, *texts):
            if name not in STREAMS:
                raise ValueError(f"got stream {name!r}, expected one of {STREAMS}")
        losses = {}
        for name, config in self.config.active().items():
            pair = _pair(name, streams, texts, is_same_moment)
            if pair is None:
                continue
            if config.stop_gradient is not None:
                pair = pair.stop_gradient(config.stop_gradient)
            scale = self.logit_scale(name)
            if config.loss == "siglip":
                losses[name] = config.weight * siglip(pair, scale, self.biases[name])
            else:
                losses[name] = config.weight * info_nce(pair, scale)
        if not losses:
            raise ValueError(
                f"got streams {sorted(streams)} with texts of {sorted(texts)}, expected those "
                f"of at least one pair that is on: {sorted(self.config.active())}"
            )
        return losses


def _pair(
    name: str,
    streams: Mapping[str, StreamEmbeddings],
    texts: Mapping[str, StreamTexts],
    is_same_moment: Bool[Tensor, "B B"] | None,
) -> Pair | None:
    """The vectors of a pair by its name, or None if one side is not given."""
    if name == "audio_video":
        if "audio" not in streams or "video" not in streams:
            return None
        audio, video = streams["audio"], streams["video"]
        if is_same_moment is None:
            is_same_moment = torch.eye(
                len(audio.vectors), dtype=torch.bool, device=audio.vectors.device
            )
        return Pair(
            audio.vectors, video.vectors, is_same_moment, audio.is_present, video.is_present
        )
    stream = _DESCRIBED[name]
    if stream not in streams or stream not in texts:
        return None
    seen, text = streams[stream], texts[stream]
    return Pair(seen.vectors, text.vectors, text.is_true, seen.is_present)
