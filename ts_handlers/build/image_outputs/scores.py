"""Whether a model's numbers are scores already; and how a classifier's are read."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np

from ts_handlers.build.image_outputs.probe import Probe, stacked
from ts_handlers.build.image_outputs.reading import Labels, Reading, name_labels, one_output
from ts_handlers.errors import OperatorError
from ts_handlers.outputs import one_axis
from ts_handlers.shapes import Array

EDGE = 1e-3
"""How far a score may be past 0 or 1, and a sum of scores from 1: half precision has three digits."""

Function = Literal["softmax", "sigmoid"]

_LEAST_CHANGE = 1e-6
_LEAST_SUM = 1.5


def closing_function(found: Probe, key: str, count: int) -> tuple[Function | None, list[str]]:
    """Say which function a model ends in, None where its numbers are not scores; and what to say of it.

    Args:
        found: What it returned. What is between 0 and 1 on inputs that no picture has, too, is kept there by the model.
        key: Name of the output, `(1, ..., count)`.
        count: Labels of each of its rows.
    """
    rows, far = stacked(found.pictures, key, count), stacked(found.far, key, count)
    every = np.concatenate([rows, far]).astype(np.float64)
    every = every[np.isfinite(every).all(axis=1)]
    if not len(every) or every.min() < -EDGE or every.max() > 1 + EDGE:
        return None, []
    if count > 1 and np.abs(every.sum(axis=1) - 1).max() <= EDGE * np.sqrt(count):
        function: Function = "softmax"
        why = "between 0 and 1 and sum to 1"
    elif np.ptp(every, axis=0).max() > _LEAST_CHANGE:
        function, why = "sigmoid", "between 0 and 1"
    else:
        return None, []  # a constant shows nothing
    note = (
        f"the model ends in a {function}: its outputs on all probes are {why}. They are the scores "
        "(output.function_to_apply: none, which --set overrides)"
    )
    return function, [note]


def _are_whole(found: Probe, key: str) -> bool:
    values = np.concatenate([outputs[key].ravel() for outputs in found.pictures])
    return bool((values == np.rint(values)).all() and (values != values[0]).any())


def _refuse_percents(rows: Array, what: str) -> None:
    """Refuse scores that sum to something else than 1: they are no logits.

    Raises:
        OperatorError: They do.
    """
    sums = rows.astype(np.float64).sum(axis=1)
    is_constant = np.ptp(sums) <= EDGE * sums[0] and np.ptp(rows, axis=0).max() > _LEAST_CHANGE
    if rows.shape[1] > 1 and rows.min() >= 0 and sums[0] > _LEAST_SUM and is_constant:
        raise OperatorError(
            f"{what} gives scores that sum to {sums[0]:.4g} on every picture; let it give scores that sum to 1, or logits"
        )


def read_classification(found: Probe, labels: Labels | None, what: str) -> Reading:
    """Find a classifier's logits, or scores.

    Raises:
        OperatorError: There are none, or as many labels as there are not.
    """

    def fits(array: Array) -> bool:
        row = one_axis(array[0])
        return row.ndim == 1 and (labels is None or len(row) == len(labels))

    needed = "image-classification needs one number for each label, [n, labels]"
    first = found.pictures[0]
    key = one_output(first, fits, what, needed)
    row = one_axis(first[key][0])
    if row.ndim != 1 or not row.size:
        raise OperatorError(f"{what} gives the output {key} of the shape {list(first[key].shape)}; {needed}")
    if row.dtype.kind in "iub" or (len(row) == 1 and _are_whole(found, key)):
        raise OperatorError(
            f"{what} gives the output {key} of the shape {list(first[key].shape)} in whole numbers, the index of the best "
            f"label, say; {needed}: leave out what comes after the scores"
        )
    labels, notes = name_labels(labels, len(row), what, f"{len(row)} scores (output {key} {list(first[key].shape)})")
    _refuse_percents(stacked(found.pictures, key, len(row)), what)
    function, closing_notes = closing_function(found, key, len(row))
    output: dict[str, Any] = {} if function is None else {"function_to_apply": "none"}
    if function == "sigmoid" and len(labels) > 1:
        output["problem_type"] = "multi_label_classification"
    return Reading({"logits": key}, output, labels, (*notes, *closing_notes))
