"""Checks of what a module must hold exactly: what it reads, and what it must not.

A loss curve does not show that a mask is transposed, that a batch norm mixes the rows, or that a
model sees the future. Each check here takes any module or function, and raises a `PropertyError`
that names what was violated and by how much. "Bitwise" means equal in every bit.

Axis letters: ``B`` batch, ``T`` time steps, ``P`` positions, ``D`` width.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Collection, Iterator, Mapping
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

Recurrence = Callable[[Tensor, Tensor, int, Any], tuple[Tensor, Any]]
"""Parameters, their gradients, the number of the step from 1, and a state that is None at first,
to the parameters after the step and the next state."""

Step = Callable[[Tensor, Tensor, Any], tuple[Tensor, Any]]
"""Inputs `[B, ...]`, is_first `[B]` and a state that is None at first, to output and state."""


class PropertyError(AssertionError):
    """A module does not hold what it must."""


def check_gradients(
    forward: Callable[[Mapping[str, Tensor]], Mapping[str, Tensor]],
    inputs: Mapping[str, Tensor],
    reads: Mapping[str, Collection[str]],
) -> None:
    """Each output has a gradient with respect to the inputs it reads, and to no other one.

    Args:
        forward: Named inputs to named outputs.
        inputs: Floating point.
        reads: For every output, the inputs that it depends on. The gradient of every other pair
            must be exactly 0.

    Raises:
        PropertyError: If a gradient is 0 that must not be, or the reverse, or NaN.
        ValueError: If `reads` names other outputs or inputs than there are.

    Example:
        >>> def forward(inputs):
        ...     return {"sum": inputs["a"] + inputs["b"], "twice": 2 * inputs["a"]}
        >>> inputs = {"a": torch.ones(2), "b": torch.ones(2)}
        >>> check_gradients(forward, inputs, {"sum": {"a", "b"}, "twice": {"a"}})
    """
    leaves = {name: tensor.detach().clone().requires_grad_() for name, tensor in inputs.items()}
    with torch.enable_grad():
        outputs = forward(leaves)
    if set(outputs) != set(reads):
        raise ValueError(f"got outputs {sorted(outputs)}, expected those of reads {sorted(reads)}")
    unknown = {name for names in reads.values() for name in names} - set(inputs)
    if unknown:
        raise ValueError(f"reads names inputs {sorted(unknown)}, given were {sorted(inputs)}")
    for output_name, output in outputs.items():
        for (input_name, _), size in zip(leaves.items(), _sizes(output, leaves), strict=True):
            pair = f"gradient of output {output_name!r} with respect to input {input_name!r}"
            if math.isnan(size):
                raise PropertyError(f"{pair} is NaN")
            if input_name in reads[output_name] and size == 0.0:
                raise PropertyError(f"{pair} is 0, expected another value: it is declared as read")
            if input_name not in reads[output_name] and size != 0.0:
                raise PropertyError(
                    f"{pair} is up to {size:.3g}, expected exactly 0: it is not declared as read"
                )


def _sizes(output: Tensor, leaves: Mapping[str, Tensor]) -> list[float]:
    """The largest absolute gradient of an output with respect to each leaf."""
    if not output.requires_grad:
        return [0.0] * len(leaves)
    # The plain sum of a normalised output is constant, so each number gets a weight of its own.
    weights = torch.rand(output.shape, generator=torch.Generator().manual_seed(0)) + 0.5
    total = (output * weights.to(output)).sum()
    gradients = torch.autograd.grad(
        total, list(leaves.values()), allow_unused=True, retain_graph=True
    )
    return [0.0 if gradient is None else _largest(gradient) for gradient in gradients]


def check_causality(
    forward: Callable[[Tensor], Tensor],
    inputs: Tensor,
    *,
    generator: torch.Generator,
    time_axis: int = 1,
) -> None:
    """An output depends on its own step and on those before it alone.

    For several steps ``k``, everything from ``k`` on is changed: the outputs before ``k`` must be
    bitwise the same, and that of ``k`` must not.

    Args:
        forward: To an output with as many steps, on the same axis.
        inputs: Two steps or more. They are changed to other values from their own range.
        generator: Draws the changes.
        time_axis: The axis of the time steps.

    Raises:
        PropertyError: If an output depends on a later step, or not on its own.
        ValueError: If there are fewer than two steps, or other numbers of steps come out.
    """
    num_steps = inputs.shape[time_axis]
    if num_steps < 2:
        raise ValueError(f"got {num_steps} time steps on axis {time_axis}, expected 2 or more")
    with torch.no_grad():
        expected = forward(inputs)
        if expected.shape[time_axis] != num_steps:
            raise ValueError(
                f"got an output of shape {list(expected.shape)}, expected {num_steps} time steps "
                f"on axis {time_axis}, as in the inputs"
            )
        for step in sorted({0, 1, num_steps // 2, num_steps - 1}):
            later = inputs.narrow(time_axis, step, num_steps - step)
            changed = inputs.clone()
            changed.narrow(time_axis, step, num_steps - step).copy_(_changed(later, generator))
            output = forward(changed)
            before = [tensor.narrow(time_axis, 0, step) for tensor in (output, expected)]
            if not torch.equal(*before):
                raise PropertyError(
                    f"changing the inputs from step {step} on changes outputs before it by up to "
                    f"{_distance(*before):.3g}, expected them bitwise equal"
                )
            if torch.equal(output.select(time_axis, step), expected.select(time_axis, step)):
                raise PropertyError(
                    f"changing the inputs from step {step} on leaves the output of step {step} "
                    "as it was, expected it to change"
                )


def check_batch_independence(
    forward: Callable[[Mapping[str, Tensor]], Any],
    inputs: Mapping[str, Tensor],
    *,
    generator: torch.Generator,
) -> None:
    """The rows of a batch do not see each other.

    For every row all its inputs are changed: the outputs of the other rows must be bitwise the
    same, and those of the row must not.

    Args:
        forward: To a tensor, or a mapping, sequence or dataclass of them, batch on axis 0.
        inputs: Two rows or more. They are changed to other values from their own range.
        generator: Draws the changes.

    Raises:
        PropertyError: If a row depends on another, or not on itself.
        ValueError: If there are fewer than two rows, or the inputs differ in their number.
    """
    sizes = {name: len(tensor) for name, tensor in inputs.items()}
    if len(set(sizes.values())) != 1 or min(sizes.values()) < 2:
        raise ValueError(f"got {sizes} rows, expected the same number everywhere, 2 or more")
    with torch.no_grad():
        expected = dict(_tensors(forward(inputs)))
        for row in range(min(sizes.values())):
            changed = {name: tensor.clone() for name, tensor in inputs.items()}
            for name, tensor in inputs.items():
                changed[name][row] = _changed(tensor, generator)[row]
            for name, output in _tensors(forward(changed)):
                others = torch.arange(len(output), device=output.device) != row
                if not torch.equal(output[others], expected[name][others]):
                    raise PropertyError(
                        f"changing row {row} changes {name} of other rows by up to "
                        f"{_distance(output[others], expected[name][others]):.3g}, expected them "
                        "bitwise equal"
                    )
                if torch.equal(output[row], expected[name][row]):
                    raise PropertyError(
                        f"changing row {row} leaves its {name} as it was, expected it to change"
                    )


def check_eval_determinism(module: nn.Module, *inputs: Any) -> None:
    """Two passes in eval mode are bitwise the same, and leave no trace in the module.

    Each submodule is put back into the mode in which it was.

    Args:
        module: Returns a tensor, or a mapping, sequence or dataclass of them.
        inputs: What it is called with.

    Raises:
        PropertyError: If the passes differ, or if they changed a parameter or a buffer.
    """
    modes = [(part, part.training) for part in module.modules()]
    before = {name: tensor.clone() for name, tensor in _state(module)}
    try:
        module.eval()
        with torch.no_grad():
            first = [(name, tensor.clone()) for name, tensor in _tensors(module(*inputs))]
            second = dict(_tensors(module(*inputs)))
    finally:
        for part, training in modes:
            part.training = training
    for name, tensor in first:
        if not torch.equal(tensor, second[name]):
            raise PropertyError(
                f"two passes in eval mode differ in {name} by up to "
                f"{_distance(tensor, second[name]):.3g}, expected them bitwise equal"
            )
    for name, tensor in _state(module):
        if not torch.equal(tensor, before[name]):
            raise PropertyError(
                f"a pass in eval mode changed {name} by up to "
                f"{_distance(tensor, before[name]):.3g}, expected no state to be kept"
            )


def _state(module: nn.Module) -> Iterator[tuple[str, Tensor]]:
    yield from module.named_parameters()
    yield from module.named_buffers()


def check_distinct_positions(table: Float[Tensor, "P D"]) -> None:
    """All rows of a table of positions are different.

    Raises:
        PropertyError: If two rows are the same, or one is not finite.
    """
    table = table.detach()
    bad = (~table.isfinite().all(dim=1)).nonzero()
    if len(bad):
        raise PropertyError(f"position {int(bad[0])} is not finite")
    first: dict[tuple[float, ...], int] = {}
    for position, row in enumerate(table.tolist()):
        other = first.setdefault(tuple(row), position)
        if other != position:
            num_different = len({tuple(values) for values in table.tolist()})
            raise PropertyError(
                f"positions {other} and {position} are the same, expected all to be different; "
                f"only {num_different} of {len(table)} are"
            )


def check_streaming(
    offline: Callable[[Tensor, Tensor], Tensor],
    step: Step,
    inputs: Tensor,
    is_first: Bool[Tensor, "B T"],
    *,
    tolerance: float,
) -> None:
    """One step at a time gives what all of them together give, with resets inside.

    Args:
        offline: Inputs `[B, T, ...]` and `is_first` to outputs `[B, T, ...]`.
        step: The same, one step at a time.
        inputs: Of shape `[B, T, ...]`. Zeros must be legal inputs too.
        is_first: Where a new episode begins, somewhere after the first step too.
        tolerance: Largest absolute difference; 0 means bitwise equal.

    Raises:
        PropertyError: If the two differ, or if steps before a reset are seen after it.
        ValueError: If there is no reset after the first step.
    """
    resets = is_first[:, 1:].nonzero().tolist()
    if not resets:
        raise ValueError("is_first has no reset after the first step: put some inside")
    with torch.no_grad():
        expected = offline(inputs, is_first)
        state: Any = None
        for time in range(inputs.shape[1]):
            output, state = step(inputs[:, time], is_first[:, time], state)
            _check_close(output, expected[:, time], tolerance, f"step by step, output {time}")
        for row, before in resets:
            emptied = inputs.clone()
            emptied[row, : before + 1] = 0
            after = offline(emptied, is_first)[row, before + 1 :]
            what = f"emptying row {row} before its reset at step {before + 1}, what follows"
            _check_close(after, expected[row, before + 1 :], tolerance, what)


def check_parameter_count(module: nn.Module, expected: int) -> None:
    """A module has exactly so many parameters; shared ones count once.

    Raises:
        PropertyError: If the number is another.
    """
    count = sum(parameter.numel() for parameter in module.parameters())
    if count != expected:
        raise PropertyError(
            f"got {count:,} parameters, expected {expected:,}: {count - expected:+,}"
        )


def check_optimizer(
    make_optimizer: Callable[[list[nn.Parameter]], torch.optim.Optimizer],
    recurrence: Recurrence,
    *,
    num_steps: int,
    generator: torch.Generator,
    tolerance: float = 1e-6,
) -> None:
    """An optimiser follows the recurrence of its paper, from the first step on.

    Args:
        make_optimizer: For one matrix in double precision.
        recurrence: The same steps in plain formulas.
        num_steps: Steps to compare.
        generator: Draws the matrix and its gradients.
        tolerance: Largest difference, as a fraction of the largest change of a step.

    Raises:
        PropertyError: If the parameters differ after a step.
        ValueError: If a step of the recurrence changes nothing.

    Example:
        >>> def descent(parameter, gradient, step, state):
        ...     return parameter - 0.1 * gradient, state
        >>> generator = torch.Generator().manual_seed(0)
        >>> sgd = lambda parameters: torch.optim.SGD(parameters, lr=0.1)
        >>> check_optimizer(sgd, descent, num_steps=3, generator=generator)
    """
    expected = torch.randn(4, 3, generator=generator, dtype=torch.float64)
    parameter = nn.Parameter(expected.clone())
    optimizer = make_optimizer([parameter])
    state: Any = None
    for step in range(1, num_steps + 1):
        gradient = torch.randn(4, 3, generator=generator, dtype=torch.float64)
        previous = expected
        expected, state = recurrence(previous, gradient, step, state)
        parameter.grad = gradient.clone()
        optimizer.step()
        change = _distance(expected, previous)
        if change == 0.0:
            raise ValueError(f"step {step} of the recurrence changes nothing: give a larger rate")
        error = _distance(parameter.detach(), expected) / change
        if not error <= tolerance:
            raise PropertyError(
                f"after step {step} parameters are off by {error:.3g} times the largest change of "
                f"the step, expected at most {tolerance:.3g}"
            )


def check_chance_level(loss: Tensor | float, num_choices: int, *, tolerance: float) -> None:
    """A contrastive loss at initialisation is that of guessing, log N.

    Args:
        loss: One number, in nats.
        num_choices: N, of which one is right.
        tolerance: Largest absolute difference.

    Raises:
        PropertyError: If it is another.
    """
    _check_close(
        torch.as_tensor(loss).detach().double(),
        torch.tensor(math.log(num_choices), dtype=torch.float64),
        tolerance,
        f"the loss, against log {num_choices} = {math.log(num_choices):.4g},",
    )


def _check_close(output: Tensor, expected: Tensor, tolerance: float, what: str) -> None:
    if output.shape != expected.shape:
        raise PropertyError(
            f"{what} has shape {list(output.shape)}, expected {list(expected.shape)}"
        )
    distance = _distance(output, expected)
    if not distance <= tolerance:  # NaN is not close
        raise PropertyError(f"{what} is off by {distance:.3g}, expected at most {tolerance:.3g}")


def _changed(values: Tensor, generator: torch.Generator) -> Tensor:
    """Other values from the same range, so that they are legal wherever the given ones were."""
    if values.dtype == torch.bool:
        return ~values
    if values.is_floating_point():
        places = torch.randint(values.numel(), values.shape, generator=generator)
        changed = values.flatten()[places.to(values.device)]
    else:
        low, high = int(values.min()), int(values.max())
        shift = torch.randint(1, max(high - low, 1) + 1, values.shape, generator=generator)
        shifted = (values.long() - low + shift.to(values.device)) % (high - low + 1)
        changed = (shifted + low).to(values.dtype)
    if torch.equal(changed, values):
        raise ValueError("all given values are the same: give inputs that vary")
    return changed


def _tensors(output: Any, name: str = "the output") -> Iterator[tuple[str, Tensor]]:
    """The tensors of a result, with the names under which they stand there."""
    if isinstance(output, Tensor):
        yield name, output
    elif isinstance(output, Mapping):
        for key, value in output.items():
            yield from _tensors(value, str(key))
    elif isinstance(output, tuple | list):
        for place, value in enumerate(output):
            yield from _tensors(value, f"{name}[{place}]")
    elif dataclasses.is_dataclass(output):
        for field in dataclasses.fields(output):
            yield from _tensors(getattr(output, field.name), field.name)
    elif output is not None:
        raise ValueError(f"got an output of type {type(output).__name__}, expected tensors")


def _distance(left: Tensor, right: Tensor) -> float:
    return _largest(left.double() - right.double())


def _largest(values: Tensor) -> float:
    return values.abs().max().item() if values.numel() else 0.0
