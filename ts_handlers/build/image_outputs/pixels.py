"""What a model of segmentation gives of each pixel: numbers of all labels, one number, or an index."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ts_handlers.build.image_outputs.probe import Probe
from ts_handlers.build.image_outputs.reading import Labels, Reading, name_labels, one_output
from ts_handlers.build.image_outputs.scores import EDGE
from ts_handlers.errors import OperatorError
from ts_handlers.imaging.masks import Pixels
from ts_handlers.shapes import Array

BACKGROUND = "background"
"""Name of what is not the object, where only the object has one."""

_NEEDED = (
    "image-segmentation needs [n, labels, height, width] or [n, height, width, labels], or one number or index a pixel, "
    "[n, 1, height, width] or [n, height, width]"
)


def read_segmentation(found: Probe, labels: Labels | None, what: str) -> Reading:
    """Find out what each pixel is given.

    Raises:
        OperatorError: The output is of another shape, or of another number of labels.
    """

    def fits(array: Array) -> bool:
        return array.ndim == 4 and (labels is None or len(labels) in (array.shape[1], array.shape[3]))

    key = one_output(found.pictures[0], fits, what, _NEEDED)
    planes = [outputs[key][0] for outputs in found.pictures]
    shape, shown = planes[0].shape, f"the output {key} of the shape {[1, *planes[0].shape]}"
    if len(shape) not in (2, 3) or not planes[0].size:
        raise OperatorError(f"{what} gives {shown}; {_NEEDED}")
    if len(shape) == 2 or 1 in (shape[0], shape[-1]):
        return _read_plane(key, planes, [outputs[key][0] for outputs in found.far], labels, f"{what} gives {shown}")
    is_last = _has_labels_last(shape, labels)
    labels, notes = name_labels(labels, shape[-1] if is_last else shape[0], what, shown)
    pixels: Pixels = "labels_last" if is_last else "labels"
    return Reading({"logits": key}, {"pixels": pixels}, labels, tuple(notes))


def _has_labels_last(shape: tuple[int, ...], labels: Labels | None) -> bool:
    """Say whether labels are the last axis: the only one of their number; without names, the shortest."""
    if labels is not None and len(labels) in (shape[0], shape[-1]):
        return shape[0] != len(labels)
    return shape[-1] < min(shape[:-1])


def _read_plane(key: str, planes: Sequence[Array], far: Sequence[Array], labels: Labels | None, what: str) -> Reading:
    pixels = _kind(planes, far, what)
    if pixels == "index":
        note = f"the model gives the index of each pixel's label (output.pixels: {pixels})"
        return Reading({"logits": key}, {"pixels": pixels}, _of_indices(planes, labels, what), (note,))
    half = "0" if pixels == "logit" else "0.5"
    notes = [f"the model gives one {pixels} a pixel (output.pixels: {pixels}): more than {half} is the second label"]
    if labels is not None and len(labels) == 1:
        labels = (BACKGROUND, *labels)
        notes.append(f"the first label is called {BACKGROUND}: one was named, {labels[1]}")
    labels, more = name_labels(labels, 2, what, "one number a pixel")
    return Reading({"logits": key}, {"pixels": pixels}, labels, (*notes, *more))


def _kind(planes: Sequence[Array], far: Sequence[Array], what: str) -> Pixels:
    """Say what one number a pixel is: whole ones are indices; what is always between 0 and 1 is a probability.

    Raises:
        OperatorError: It is never below 0 and above 1: no logit (a depth, or a probability times 255).
    """
    values = np.concatenate([plane.ravel() for plane in planes])
    if values.dtype.kind in "iub" or ((values == np.rint(values)) & (values >= 0)).all():
        return "index"
    every = np.concatenate([values, *(plane.ravel() for plane in far)])
    every = every[np.isfinite(every)]
    lowest, highest = every.min(initial=0), every.max(initial=0)
    if lowest >= 0 and highest > 1 + EDGE:
        raise OperatorError(
            f"{what}, from {every.min():.3g} to {highest:.3g}, which are neither probabilities, from 0 to 1, nor logits, of "
            "which some are below 0; let the model give one of them"
        )
    return "probability" if lowest >= -EDGE and highest <= 1 + EDGE else "logit"


def _of_indices(planes: Sequence[Array], labels: Labels | None, what: str) -> Labels:
    lowest, highest = (int(choose([choose(plane) for plane in planes])) for choose in (np.min, np.max))
    if labels is None:
        raise OperatorError(
            f"{what}, indices of labels, and not how many labels there are; name them with --labels FILE"
        )
    if lowest < 0 or highest >= len(labels):
        raise OperatorError(
            f"{what}, whole numbers from {lowest} to {highest}, and {len(labels)} labels are named, which have the indices "
            f"0 to {len(labels) - 1}; name each label, or let the model give indices"
        )
    return labels
