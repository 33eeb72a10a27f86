"""What tasks must share to be learned by one model, as data: compared, a key, or JSON."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import torch

from algdistill.spaces import (
    ActionSpace,
    Continuous,
    Discrete,
    Embedding,
    ObservationSpace,
    Pixels,
    Symbolic,
)

_OBSERVATIONS = {"symbolic": Symbolic, "pixels": Pixels, "embedding": Embedding}
_ACTIONS = {"discrete": Discrete, "continuous": Continuous}


@dataclass(frozen=True)
class TaskSpace:
    """Observation and action spaces of a set of tasks.

    Example:
        >>> TaskSpace.symbolic((9, 9), num_actions=5)
        TaskSpace(observations=Symbolic(sizes=(9, 9)), actions=Discrete(num_actions=5))
        >>> TaskSpace(Pixels(72, 96), Discrete(8)).observations.shape
        (72, 96, 3)
    """

    observations: ObservationSpace
    actions: ActionSpace

    @classmethod
    def symbolic(cls, observation_sizes: tuple[int, ...], num_actions: int) -> TaskSpace:
        """Whole numbers to see, and numbered actions to take."""
        return cls(Symbolic(observation_sizes), Discrete(num_actions))

    @classmethod
    def of(cls, tasks: object) -> TaskSpace:
        """Read the spaces off a set of tasks.

        Observations are symbolic where tasks have ``observation_sizes``; otherwise
        ``observation_shape`` and ``observation_dtype`` tell frames (uint8, (H, W, 3)) from
        embeddings (float32, (D,)). Actions are discrete where tasks have ``num_actions``, otherwise
        they have ``action_dim``.

        Raises:
            TypeError: If the tasks do not say.
        """
        return cls(_observation_space(tasks), _action_space(tasks))

    @property
    def num_actions(self) -> int:
        """Number of discrete actions.

        Raises:
            TypeError: If actions are continuous.
        """
        if not isinstance(self.actions, Discrete):
            raise TypeError(f"got {self.actions}, expected discrete actions")
        return self.actions.num_actions

    @property
    def observation_sizes(self) -> tuple[int, ...]:
        """Number of values of each component of a symbolic observation.

        Raises:
            TypeError: If observations are not symbolic.
        """
        if not isinstance(self.observations, Symbolic):
            raise TypeError(f"got {self.observations}, expected symbolic observations")
        return self.observations.sizes

    def to_dict(self) -> dict[str, Any]:
        """Everything as data that JSON can hold."""
        return {
            "observations": _named(self.observations, _OBSERVATIONS),
            "actions": _named(self.actions, _ACTIONS),
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> TaskSpace:
        """Read what `to_dict` made.

        Raises:
            ValueError: If a kind of space is unknown.
        """
        return cls(
            _unnamed(data["observations"], _OBSERVATIONS), _unnamed(data["actions"], _ACTIONS)
        )


def _observation_space(tasks: Any) -> ObservationSpace:
    sizes = getattr(tasks, "observation_sizes", None)
    if sizes is not None:
        return Symbolic(tuple(sizes))
    shape = getattr(tasks, "observation_shape", None)
    dtype = getattr(tasks, "observation_dtype", None)
    if dtype == torch.uint8 and shape is not None and len(shape) == 3 and shape[2] == 3:
        return Pixels(*shape[:2])
    if dtype == torch.float32 and shape is not None and len(shape) == 1:
        return Embedding(*shape)
    raise TypeError(
        f"got {type(tasks).__name__} with observation_shape={shape} and observation_dtype={dtype}, "
        "expected (H, W, 3) and torch.uint8, or (D,) and torch.float32, or `observation_sizes`"
    )


def _action_space(tasks: Any) -> ActionSpace:
    num_actions = getattr(tasks, "num_actions", None)
    if num_actions is not None:
        return Discrete(num_actions)
    dim = getattr(tasks, "action_dim", None)
    if dim is None:
        raise TypeError(
            f"got {type(tasks).__name__} with neither `num_actions` nor `action_dim`, expected one"
        )
    return Continuous(dim)


def _named(space: Any, kinds: Mapping[str, type]) -> dict[str, Any]:
    (kind,) = (name for name, cls in kinds.items() if isinstance(space, cls))
    return {"kind": kind, **asdict(space)}


def _unnamed(data: Mapping[str, Any], kinds: Mapping[str, type]) -> Any:
    if data["kind"] not in kinds:
        raise ValueError(f"got a space of kind {data['kind']!r}, expected one of {sorted(kinds)}")
    values = {name: value for name, value in data.items() if name != "kind"}
    return kinds[data["kind"]](
        **{k: tuple(v) if isinstance(v, list) else v for k, v in values.items()}
    )
