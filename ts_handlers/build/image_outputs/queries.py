"""Whether two outputs of a detector are DETR's: a row of logits and a box around a center for each query."""

from __future__ import annotations

import numpy as np

from ts_handlers.build.image_outputs.probe import Probe, stacked
from ts_handlers.build.image_outputs.reading import Labels, Reading, name_labels, shapes
from ts_handlers.build.image_outputs.scores import closing_function
from ts_handlers.errors import OperatorError
from ts_handlers.runtime.torch.program import DETECTOR_OUTPUTS

_NAMES = (("logits", "pred_boxes"), ("pred_logits", "pred_boxes"))
"""What transformers and DETR's authors call them."""

_NEEDED = (
    "object-detection reads logits [n, queries, labels, or one more for no object] and pred_boxes [n, queries, 4] (center "
    "x, center y, width, height, from 0 to 1). Where these are that, call them so; else read them by a handler of your own "
    "(--handler)"
)


_FAR_OUT = 0.5
"""How far past the picture a center or a size may be, in parts of it."""


def read_detection(found: Probe, labels: Labels | None, what: str) -> Reading:
    """Find the outputs of DETR and its kin by their names, or where their values leave no doubt.

    Raises:
        OperatorError: They are others, or may be.
    """
    first = found.pictures[0]
    if set(DETECTOR_OUTPUTS) <= set(first):
        return _read_lists(found, labels, what)
    named = next((names for names in _NAMES if set(names) <= set(first)), None)
    scores, boxes = named or _proven(found, labels, what)
    if first[boxes].ndim != 3 or first[boxes].shape[-1] != 4 or first[scores].shape[:-1] != first[boxes].shape[:-1]:
        raise OperatorError(f"{what} gives {shapes(first)}; {_NEEDED}")
    placed = stacked(found.pictures, boxes, 4)
    if placed.size and not (placed.min() >= -_FAR_OUT and placed.max() <= 1 + _FAR_OUT):
        raise OperatorError(f"{what} gives {boxes} from {placed.min():.3g} to {placed.max():.3g}; {_NEEDED}")
    count = first[scores].shape[-1]
    if labels is None:
        raise OperatorError(
            f"{what} gives {count} numbers a query, which are {count} labels, or {count - 1} and one for no object; name "
            "the labels with --labels FILE"
        )
    if len(labels) != count - 1:
        name_labels(labels, count, what, f"{count} numbers a query (output {scores} {list(first[scores].shape)})")
    notes = [] if named else [f"{scores} and {boxes} are read as DETR's logits and pred_boxes: no other form fits them"]
    function, closing_notes = closing_function(found, scores, count)
    output = {} if function is None else {"function_to_apply": "none"}
    return Reading({"logits": scores, "pred_boxes": boxes}, output, labels, (*notes, *closing_notes))


def _read_lists(found: Probe, labels: Labels | None, what: str) -> Reading:
    """Take what torchvision's detectors return; the labels that they found have names."""
    highest = max(int(outputs["labels"].max(initial=-1)) for outputs in found.pictures)
    if labels is None:
        raise OperatorError(
            f"{what} returns detections, and not how many labels there are; name them with --labels FILE, in the model's "
            "order: torchvision's own begin with the background"
        )
    if highest >= len(labels):
        raise OperatorError(
            f"{what} found label {highest}, and {len(labels)} labels are named, from 0 to {len(labels) - 1}; name each with "
            "--labels FILE: torchvision's own begin with the background"
        )
    return Reading({name: name for name in DETECTOR_OUTPUTS}, {}, labels)


def _proven(found: Probe, labels: Labels | None, what: str) -> tuple[str, str]:
    """Tell two unnamed outputs by their values.

    Boxes from 0 to 1 of which some would end before they begin are no corners, so that they are centers and sizes; as many
    numbers a query as labels, and no scores, are sigmoid's logits. One number more may be for no object, or for background,
    first or last: nothing shows which.
    """
    first = found.pictures[0]
    if len(first) == 2 and labels is not None:
        for scores, boxes in (tuple(first), tuple(first)[::-1]):
            values = stacked(found.pictures, boxes, 4) if first[boxes].shape[-1:] == (4,) else np.empty((0, 4))
            are_parts = values.size > 0 and values.min() >= 0 and values.max() <= 1
            are_centers = bool((values[:, 2:] < values[:, :2]).any())
            if are_parts and are_centers and first[scores].ndim == 3 and first[scores].shape[-1] == len(labels):
                return scores, boxes
    raise OperatorError(f"{what} gives {shapes(first)}; {_NEEDED}")
