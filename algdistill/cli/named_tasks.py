"""Tasks named on the command line: where they are made, and which of them.

Axis letters: ``N`` tasks.
"""

from __future__ import annotations

import importlib
import inspect
import sys
from collections.abc import Callable
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Annotated, Any

import torch
from jaxtyping import Int
from torch import Tensor
from tyro.conf import arg

from algdistill.tasks import BatchedTasks, TaskSpace

_POSITIONAL = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
_MOST_SEEDS = 2**20


@dataclass(frozen=True)
class NamedTasks:
    """Where tasks are made, and which of them are meant.

    Attributes:
        tasks: A callable, ``module:name``, that takes task ids (int64 ``[N]``) and returns tasks;
            a second argument that has no default, or is called ``seeds``, is given a random stream
            for each. Modules are also looked for in the present folder.
        task_ids: Numbers and ranges, as in ``0:65`` or ``0:10,12,40:50``; a range's end is not in
            it.
    """

    tasks: str
    task_ids: str

    def ids(self, device: str = "cpu") -> Int[Tensor, " N"]:
        """The numbers that ``task_ids`` names.

        Raises:
            ValueError: If it is no list of numbers and ranges, or names a number twice.
        """
        return torch.tensor(parse_ids(self.task_ids), device=device)

    def make(self, ids: Int[Tensor, " N"], streams: Int[Tensor, " N"]) -> BatchedTasks:
        """Make tasks of some ids, each with a random stream where tasks need one.

        Raises:
            ValueError: If there is no such callable.
            TypeError: If it takes other arguments, or returns something else than such tasks.
        """
        make = imported(self.tasks)
        tasks = make(ids, streams) if _takes_seeds(make, self.tasks) else make(ids)
        if not isinstance(tasks, BatchedTasks):
            raise TypeError(
                f"got a {type(tasks).__name__} from {self.tasks}, expected tasks with the members "
                "of algdistill.tasks.BatchedTasks"
            )
        if tasks.num_tasks != len(ids):
            raise TypeError(
                f"got {tasks.num_tasks} tasks from {self.tasks}, expected one for each of the "
                f"{len(ids)} ids"
            )
        TaskSpace.of(tasks)
        return tasks


Named = Annotated[NamedTasks, arg(name="")]
"""`NamedTasks` whose options need no prefix."""


def parse_ids(text: str) -> list[int]:
    """Read numbers and ranges, with commas between them.

    Raises:
        ValueError: If there is something else, a range is empty, or a number comes twice.

    Example:
        >>> parse_ids("0:3,7")
        [0, 1, 2, 7]
    """
    ids: list[int] = []
    for part in text.split(","):
        try:
            first, *end = (int(number) for number in part.split(":"))
        except ValueError as error:
            raise ValueError(_not_ids(text, part)) from error
        if len(end) > 1 or (end and end[0] <= first):
            raise ValueError(_not_ids(text, part))
        ids += range(first, end[0] if end else first + 1)
    if len(set(ids)) < len(ids):
        twice = sorted({number for number in ids if ids.count(number) > 1})
        raise ValueError(f"got task ids {text!r} that name {twice} twice, expected each once")
    return ids


def imported(name: str) -> Callable[..., Any]:
    """The callable of a ``module:name``; its module's code is run.

    Raises:
        ValueError: If the name has another form, or leads nowhere or to something else.
    """
    module_name, _, attribute = name.partition(":")
    if not module_name or not attribute:
        raise ValueError(
            f"got tasks {name!r}, expected module:callable, as in "
            "vlmreward_envs.dark_room:DarkRoomTasks"
        )
    if "" not in sys.path:  # a console script does not look into the present folder
        sys.path.insert(0, "")
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{module_name}.".startswith(f"{error.name}."):
            raise  # the module is there, and what it imports is not
        raise ValueError(
            f"got tasks {name!r}, but there is no module {error.name!r}: install it, or run from "
            "the folder that holds it"
        ) from error
    found = getattr(module, attribute, None)
    if not callable(found):
        close = get_close_matches(attribute, dir(module), n=1)
        hint = f"; did you mean {close[0]!r}?" if close else ""
        raise ValueError(f"got tasks {name!r}, but {module_name} has no such callable{hint}")
    return found  # type: ignore[no-any-return]


def random_streams(seed: int, purpose: int, count: int, device: str) -> Int[Tensor, " N"]:
    """One stream for each of ``count`` tasks; none belongs to another seed or purpose.

    Raises:
        ValueError: If the seed is out of range.
    """
    if not 0 <= seed < _MOST_SEEDS:
        raise ValueError(f"got seed={seed}, expected 0 to {_MOST_SEEDS - 1}")
    first = (len(PURPOSES) * seed + purpose) << 32
    return torch.arange(first, first + count, device=device)


PURPOSES = (COLLECTING, VALIDATING, EVALUATING) = range(3)
"""What random streams are for."""


def _takes_seeds(make: Callable[..., Any], name: str) -> bool:
    """Whether a callable is to be given random streams as well."""
    parameters = list(inspect.signature(make).parameters.values())
    needed = [p for p in parameters if p.default is p.empty and p.kind not in _VARIADIC]
    positional = [p for p in parameters if p.kind in _POSITIONAL]
    if not positional or len(needed) > 2 or any(p not in positional[:2] for p in needed):
        raise TypeError(
            f"got {name}{inspect.signature(make)}, expected a callable of task ids, or of task ids "
            "and seeds: write a function that takes those and calls it"
        )
    second = positional[1:2]
    return bool(second) and (second[0] in needed or second[0].name == "seeds")


_VARIADIC = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)


def _not_ids(text: str, part: str) -> str:
    return (
        f"got task ids {text!r} with {part!r} among them, expected numbers and ranges such as "
        "0:10,12,40:50"
    )
