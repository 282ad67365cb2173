"""What was found out about a model's outputs, and what the tasks' readers share."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from ts_handlers.build.image_outputs.probe import Outputs
from ts_handlers.errors import OperatorError
from ts_handlers.shapes import Array

Labels = tuple[str, ...]

_KNOWN = ("logits", "out")
"""What transformers' models and torchvision's models of segmentation call the output that counts."""


@dataclass(frozen=True, slots=True)
class Reading:
    """How a model's outputs are read.

    Attributes:
        keys: Our name of an output -> the model's own.
        output: `handler.output` as far as the model decides it.
        labels: Names of its labels.
        notes: What was found, for the user.
    """

    keys: Mapping[str, str]
    output: Mapping[str, Any] = field(default_factory=dict)
    labels: Labels = ()
    notes: tuple[str, ...] = ()


def one_output(outputs: Outputs, fits: Callable[[Array], bool], what: str, needed: str) -> str:
    """Return the name of the output that counts: the one of a known name, the only one, or the only one that fits.

    Raises:
        OperatorError: There are several, or none fits.
    """
    for name in _KNOWN:
        if name in outputs:
            return name
    if len(outputs) == 1:
        return next(iter(outputs))
    fitting = [name for name, array in outputs.items() if fits(array)]
    if len(fitting) == 1:
        return fitting[0]
    raise OperatorError(
        f"{what} gives {shapes(outputs)}; {needed}, and {len(fitting) or 'none'} of these could be it: call it logits, "
        "leave the others out of the model, or read them by a handler of your own (--handler)"
    )


def name_labels(labels: Labels | None, count: int, what: str, counted: str) -> tuple[Labels, list[str]]:
    """Return the labels' names, numbers where none were given, and what to say of it.

    Args:
        labels: Names; None where none were given.
        count: How many the model has.
        what: Name of the model, for errors.
        counted: What was counted, and its shape.

    Raises:
        OperatorError: The model has another number of them.
    """
    if labels is None:
        note = f"no labels were given: they are called by their numbers, 0 to {count - 1}; name them with --labels FILE"
        return tuple(map(str, range(count))), [note]
    if len(labels) != count:
        raise OperatorError(
            f"{what} gives {counted}, which is {count} labels, and {len(labels)} labels are named; name each, in the "
            "model's order, with --labels FILE"
        )
    return labels, []


def shapes(outputs: Outputs) -> str:
    """Return outputs with their shapes, as errors name them."""
    return ", ".join(f"{name} {list(array.shape)}" for name, array in outputs.items()) or "no tensor"
