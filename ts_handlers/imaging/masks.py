"""Semantic segmentation: logits -> the label of each pixel -> PNG, runs or rows. Pure functions on arrays."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from ts_handlers.errors import InferenceError
from ts_handlers.outputs import Floats, require_finite, sigmoid, softmax
from ts_handlers.shapes import Size

MaskFormat = Literal["png", "rle", "list"]
Pixels = Literal["labels", "labels_last", "logit", "probability", "index"]
"""What a model gives of a pixel, as `handler.output.pixels` has it."""

MASK_FORMATS: tuple[MaskFormat, ...] = ("png", "rle", "list")

Mask = NDArray[np.uint16]
"""`(height, width)`: index of each pixel's label."""

MAX_LABELS = 2**16

_LEAST: Mapping[str, float] = {"logit": 0.0, "probability": 0.5}
"""What a number must be more than to mean the second label."""

_STRIP_ELEMENTS = 2**21
"""Logits that are interpolated at once: they bound the memory, 8 MB of floats a step."""


def read_mask(values: NDArray[Any], size: Size, pixels: Pixels, num_labels: int) -> Mask:
    """Return the label of each pixel of an image.

    Args:
        values: What the model gave of the image, at its own resolution.
        size: (height, width) of the image.
        pixels: What the values are. Indices are taken from the nearest position, all else is interpolated.
        num_labels: How many labels the model has.

    Raises:
        InferenceError: 500, the values are of another shape or kind.
    """
    if pixels == "index":
        return _nearest(_plane(values), size)
    if pixels in ("logit", "probability"):
        plane = _plane(values).astype(np.float32)
        return label_pixels(np.stack([np.full_like(plane, _LEAST[pixels]), plane]), size)
    if pixels == "labels_last" and values.ndim == 3:
        values = np.moveaxis(values, -1, 0)
    if values.ndim == 3 and len(values) != num_labels:
        raise InferenceError(
            f"the model returned {len(values)} numbers a pixel (shape {values.shape}) and there are {num_labels} labels; "
            "set handler.output.pixels to what it returns, or correct index_to_name.json"
        )
    return label_pixels(values, size)


def pixel_scores(values: NDArray[Any], pixels: Pixels, num_labels: int) -> Floats:
    """Return the score of each label at each position of the model's own resolution, `(positions, labels) float64`."""
    if pixels == "index":
        return np.asarray(np.eye(num_labels)[_plane(values).astype(np.intp).ravel()])
    if pixels in ("logit", "probability"):
        plane = _plane(values).astype(np.float64).ravel()
        scores = sigmoid(plane) if pixels == "logit" else plane
        return np.stack([1 - scores, scores], axis=-1)
    labels_last = values if pixels == "labels_last" else np.moveaxis(values, 0, -1)
    return softmax(labels_last.astype(np.float64).reshape(-1, labels_last.shape[-1]))


def _plane(values: NDArray[Any]) -> NDArray[Any]:
    """Return one number a pixel without an axis of one element before or after height and width."""
    if values.ndim == 3 and 1 in (values.shape[0], values.shape[-1]):
        return values.reshape(values.shape[1:] if values.shape[0] == 1 else values.shape[:-1])
    if values.ndim != 2:
        raise InferenceError(f"the model returned an array of shape {values.shape}; one number a pixel is needed")
    return values


def _nearest(indices: NDArray[Any], size: Size) -> Mask:
    if indices.dtype.kind == "f":
        require_finite(indices)
    if not indices.size or ((indices != np.rint(indices)) | (indices < 0) | (indices >= MAX_LABELS)).any():
        raise InferenceError(
            f"the model returned no indices of labels (shape {indices.shape}); set handler.output.pixels"
        )
    rows, columns = (
        ((np.arange(target) + 0.5) * source / target).astype(np.intp)
        for source, target in zip(indices.shape, size, strict=True)
    )
    mask: Mask = indices.astype(np.uint16)[rows[:, None], columns]
    return mask


def label_pixels(logits: Floats, size: Size) -> Mask:
    """Return the best label of each pixel of an image, as transformers' processors do.

    Logits are interpolated to the image's size (bilinear, corners not aligned), then compared. It is done strip by strip,
    and only for labels that can win somewhere in a strip: an interpolated logit lies between its neighbours, so a label
    whose largest neighbour is below another's smallest, everywhere, cannot.

    Args:
        logits: `(num_labels, height, width)` at the model's own resolution.
        size: (height, width) of the image.

    Raises:
        InferenceError: 500, the logits are of another shape, or not finite.
    """
    if logits.ndim != 3 or not 0 < len(logits) <= MAX_LABELS or not logits.size:
        raise InferenceError(f"the model returned logits of shape {logits.shape}; (labels, height, width) is needed")
    require_finite(logits)
    logits = logits.astype(np.float32, copy=False)
    height, width = size
    rows, columns = _neighbours(logits.shape[1], height), _neighbours(logits.shape[2], width)
    mask = np.empty(size, dtype=np.uint16)
    step = max(1, _STRIP_ELEMENTS // (width * len(logits)))
    for top in range(0, height, step):
        lower, upper, weight = rows[0][top : top + step], rows[1][top : top + step], rows[2][top : top + step]
        first = int(lower[0])
        near = logits[:, first : int(upper[-1]) + 1]
        labels = possible_labels(near)
        between_rows = _blend(near[labels], (lower - first, upper - first, weight), axis=1)
        mask[top : top + step] = labels[_blend(between_rows, columns, axis=2).argmax(axis=0)]
    return mask


def encode_mask(mask: Mask, format_: MaskFormat) -> Any:
    """Return a mask as base64 of a grey PNG (8 bits, 16 where an index needs them), as runs, or as rows of indices.

    Runs are `[[label index, number of pixels], ...]` from the top left, row after row.
    """
    if format_ == "list":
        return mask
    if format_ == "rle":
        return run_lengths(mask)
    from PIL import Image

    target = io.BytesIO()
    pixels = mask if mask.max() > 255 else mask.astype(np.uint8)
    Image.fromarray(pixels).save(target, "PNG")
    return base64.b64encode(target.getvalue()).decode("ascii")


def run_lengths(mask: Mask) -> list[list[int]]:
    """Return `[[label index, number of pixels], ...]`, row after row."""
    flat = mask.ravel()
    starts = np.concatenate([[0], np.flatnonzero(flat[1:] != flat[:-1]) + 1])
    lengths = np.diff(np.append(starts, flat.size))
    return [list(run) for run in zip(flat[starts].tolist(), lengths.tolist(), strict=True)]


def format_mask(mask: Mask, labels: Sequence[str], format_: MaskFormat) -> dict[str, Any]:
    """Return `{"height", "width", "mask", "segments"}`, the segments with the most pixels first.

    Raises:
        InferenceError: 500, a label that has no name.
    """
    indices, counts = np.unique(mask, return_counts=True)
    if indices[-1] >= len(labels):
        raise InferenceError(
            f"the model found label {indices[-1]} and there are names for {len(labels)}; add it to index_to_name.json"
        )
    order = np.argsort(-counts, kind="stable")
    segments = [
        {"label": labels[index], "index": index, "pixels": pixels}
        for index, pixels in zip(indices[order].tolist(), counts[order].tolist(), strict=True)
    ]
    height, width = mask.shape
    return {"height": height, "width": width, "mask": encode_mask(mask, format_), "segments": segments}


Neighbours = tuple[NDArray[np.intp], NDArray[np.intp], Floats]
"""Of each target position: the two source positions beside it, and the weight of the second."""


def _neighbours(source: int, target: int) -> Neighbours:
    """Return what each of `target` positions is interpolated from, as torch.nn.functional.interpolate has it."""
    scale = np.float32(source) / np.float32(target)
    position = np.maximum((np.arange(target, dtype=np.float32) + np.float32(0.5)) * scale - np.float32(0.5), 0)
    lower = np.minimum(position.astype(np.intp), source - 1)
    upper = np.minimum(lower + 1, source - 1)
    return lower, upper, (position - lower).astype(np.float32)


def _blend(values: Floats, neighbours: Neighbours, axis: int) -> Floats:
    lower, upper, weight = neighbours
    shape = [1, 1, 1]
    shape[axis] = -1
    first = np.take(values, lower, axis=axis)
    second = np.take(values, upper, axis=axis)
    second -= first
    second *= weight.reshape(shape)
    second += first
    return second


def possible_labels(near: Floats) -> NDArray[np.intp]:
    """Return the labels that can be the best of some position between those of `near` (labels, rows, columns)."""
    largest, smallest = _corners(near, np.maximum), _corners(near, np.minimum)
    can_win = largest >= smallest.max(axis=0)
    return np.flatnonzero(can_win.any(axis=(1, 2)))


def _corners(values: Floats, choose: Any) -> Floats:
    """Return the extreme of each 2 x 2 cell; of a single row or column of itself."""
    if values.shape[1] > 1:
        values = choose(values[:, 1:], values[:, :-1])
    return choose(values[:, :, 1:], values[:, :, :-1]) if values.shape[2] > 1 else values
