"""Heads as plain numbers, for the record of a run, and back."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from vlmreward.heads.base import Head
from vlmreward.heads.contrast import ContrastHead
from vlmreward.heads.cosine import CosineHead
from vlmreward.heads.goal_baseline import GoalBaselineHead
from vlmreward.heads.normalized import NormalizedHead
from vlmreward.heads.sigmoid import SigmoidHead
from vlmreward.heads.softmax import SoftmaxHead
from vlmreward.heads.threshold import ThresholdHead

_KINDS: dict[str, type[Any]] = {
    "contrast": ContrastHead,
    "cosine": CosineHead,
    "goal_baseline": GoalBaselineHead,
    "normalized": NormalizedHead,
    "sigmoid": SigmoidHead,
    "softmax": SoftmaxHead,
    "threshold": ThresholdHead,
}


def head_config(head: Head) -> dict[str, Any]:
    """Describes one of this package's heads as JSON types.

    Raises:
        TypeError: If the head is of another kind.

    Example:
        >>> head_config(ThresholdHead(SoftmaxHead(temperature=0.01), threshold=0.9))
        {'kind': 'threshold', 'head': {'kind': 'softmax', 'temperature': 0.01}, 'threshold': 0.9}
    """
    kinds = {cls: kind for kind, cls in _KINDS.items()}
    if type(head) not in kinds:
        raise TypeError(
            f"expected a head of vlmreward.heads, got {type(head).__name__}: write its settings "
            "down yourself"
        )
    config: dict[str, Any] = {"kind": kinds[type(head)]}
    for field in fields(head):  # type: ignore[arg-type]
        value = getattr(head, field.name)
        config[field.name] = head_config(value) if isinstance(value, Head) else value
    return config


def head_from_config(config: Mapping[str, Any]) -> Head:
    """Builds the head that `head_config` described.

    Raises:
        ValueError: If the kind is unknown, or if settings are missing, unexpected or bad.
    """
    settings = dict(config)
    kind = settings.pop("kind", None)
    if kind not in _KINDS:
        raise ValueError(f"expected a head of kind {sorted(_KINDS)}, got {kind!r}")
    expected = {field.name for field in fields(_KINDS[kind])}
    if set(settings) != expected:
        raise ValueError(
            f"expected the settings {sorted(expected)} of a {kind!r} head, got {sorted(settings)}"
        )
    if isinstance(settings.get("head"), Mapping):
        settings["head"] = head_from_config(settings["head"])
    head: Head = _KINDS[kind](**settings)
    return head
