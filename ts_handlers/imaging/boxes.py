"""Detections: what a model returns -> labels, scores and boxes in pixels of the original image. Pure functions on arrays."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ts_handlers.errors import InferenceError
from ts_handlers.outputs import Floats, ScoreFunction, apply_function, require_finite
from ts_handlers.shapes import Size


class Detections(NamedTuple):
    """Found objects, best first.

    Attributes:
        labels: `(n,)` index of each one's label.
        scores: `(n,) float32`.
        boxes: `(n, 4) float32`: left, top, right, bottom.
    """

    labels: NDArray[np.intp]
    scores: Floats
    boxes: Floats


def from_queries(
    logits: Floats, pred_boxes: Floats, num_labels: int, function: ScoreFunction | None = None
) -> Detections:
    """Read the outputs of DETR and its kin, as transformers' processors do.

    With one logit more than labels, the last says "no object" and an object has one label (softmax: DETR, YOLOS, Table
    Transformer); with as many, labels are independent and an object can have several (sigmoid: Conditional and Deformable
    DETR, RT-DETR, D-FINE).

    Args:
        logits: `(num_queries, num_labels + 1)` or `(num_queries, num_labels)`.
        pred_boxes: `(num_queries, 4)`: center x, center y, width, height as parts of the image.
        num_labels: How many labels the model has.
        function: What makes scores of logits, if not what is said above.

    Returns:
        Detections whose boxes are parts of the image, from 0 to 1.

    Raises:
        InferenceError: 500, the outputs are of another shape, or not finite.
    """
    if logits.ndim != 2 or pred_boxes.shape != (len(logits), 4) or logits.shape[1] not in (num_labels, num_labels + 1):
        raise InferenceError(
            f"the model returned logits {logits.shape} and pred_boxes {pred_boxes.shape} for {num_labels} labels; "
            "index_to_name.json must name every label, in the model's order"
        )
    require_finite(logits)
    require_finite(pred_boxes)
    placed = pred_boxes.astype(np.float32)
    center, half = placed[:, :2], placed[:, 2:] / 2
    boxes = np.concatenate([center - half, center + half], axis=1)
    has_no_object = logits.shape[1] > num_labels
    scores = apply_function(logits, function or ("softmax" if has_no_object else "sigmoid"))
    if has_no_object:
        labels = scores[:, :-1].argmax(axis=1)
        return best_first(Detections(labels, scores[:, :-1].max(axis=1), boxes))
    scores = scores.ravel()
    chosen = np.argsort(-scores, kind="stable")[: len(logits)]
    return Detections(chosen % num_labels, scores[chosen], boxes[chosen // num_labels])


def from_detector(labels: NDArray[Any], scores: Floats, boxes: Floats, size: Size) -> Detections:
    """Read the outputs of torchvision's detectors.

    Args:
        labels: `(n,)`.
        scores: `(n,)`.
        boxes: `(n, 4)`: left, top, right, bottom, in pixels of the model's input.
        size: Of the model's input.

    Returns:
        Detections whose boxes are parts of the image, from 0 to 1.

    Raises:
        InferenceError: 500, the outputs are not finite.
    """
    require_finite(scores)
    require_finite(boxes)
    height, width = size
    relative = np.divide(boxes, (width, height, width, height), dtype=np.float32)
    return best_first(Detections(labels.astype(np.intp), scores, relative))


def best_first(found: Detections) -> Detections:
    """Sort by score; of equal ones the model's order is kept."""
    order = np.argsort(-found.scores, kind="stable")
    return Detections(found.labels[order], found.scores[order], found.boxes[order])


def format_detections(
    found: Detections, labels: Sequence[str], size: Size, *, threshold: float, top_k: int | None
) -> list[dict[str, Any]]:
    """Return detections as TorchServe's object_detector does: `[{label: [x1, y1, x2, y2], "score": score}]`.

    Args:
        found: Boxes are parts of the image.
        labels: Name of each index.
        size: Of the original image, in whose pixels boxes are answered.
        threshold: Smallest score.
        top_k: Most detections; None: all.

    Raises:
        InferenceError: 500, a label that has no name.
    """
    height, width = size
    kept = np.flatnonzero(found.scores >= threshold)[:top_k]
    indices = found.labels[kept]
    if len(indices) and not (indices.min() >= 0 and indices.max() < len(labels)):
        raise InferenceError(
            f"the model found label {indices.max()} and there are names for {len(labels)}; add it to index_to_name.json"
        )
    boxes = found.boxes[kept] * np.array([width, height, width, height], dtype=np.float32)
    return [
        {labels[index]: box, "score": score}
        for index, box, score in zip(indices.tolist(), boxes.tolist(), found.scores[kept].tolist(), strict=True)
    ]
