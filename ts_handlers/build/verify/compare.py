"""What an archive is asked, and how far its answers are from those of the source's own library."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

APART = math.inf
"""Distance of answers of another form, or with other objects in them."""


@dataclass(frozen=True, slots=True)
class Expected:
    """One request and its right answer.

    Attributes:
        payload: The request: a str, or anything JSON.
        answer: What the source answers, in the form that the archive has.
        length: Tokens of a text, or pixels of a picture.
        shown: The request in a few words, for errors.
    """

    payload: Any
    answer: Any
    length: int
    shown: str


def distance(task: str, got: Any, want: Any) -> float:
    """Return the largest difference of a score, or of a vector the length of the difference over the vector's own.

    Answers of a form that differs (other labels, other spans) are infinitely far apart.
    """
    if task == "feature-extraction":
        return _of_vectors(got, want)
    if task in ("text-classification", "image-classification"):
        return _of_scores(got, want)
    if task == "image-segmentation":
        return _of_masks(got.get("mask"), want) if isinstance(got, Mapping) else APART
    if task == "object-detection":
        return _of_detections(got, want)
    if task == "token-classification":
        return _of_lists(got, want)
    if isinstance(got, list) != isinstance(want, list):
        return APART
    return _of_lists(got if isinstance(got, list) else [got], want if isinstance(want, list) else [want])


def _of_vectors(got: Any, want: Sequence[float]) -> float:
    if not isinstance(got, list) or len(got) != len(want):
        return APART
    ours, theirs = np.asarray(got, dtype=np.float64), np.asarray(want, dtype=np.float64)
    return float(np.linalg.norm(ours - theirs) / max(np.linalg.norm(theirs), 1e-12))


def _of_scores(got: Any, want: Mapping[str, float]) -> float:
    """Compare the labels that are answered: fewer are, where top_k or a threshold is set."""
    if not isinstance(got, Mapping) or not set(got) <= set(want):
        return APART
    return max((_relative(got[label], want[label]) for label in got), default=0.0)


def _of_masks(got: Any, want: Sequence[Sequence[int]]) -> float:
    """Return the part of the pixels with another label; masks are runs of [label, number of pixels]."""
    if not isinstance(got, list) or sum(run[1] for run in got) != sum(run[1] for run in want):
        return APART
    ours, theirs = (np.repeat(*np.asarray(runs, dtype=np.int64).T) for runs in (got, want))
    return float(np.mean(ours != theirs))


def _of_detections(got: Any, want: Sequence[Mapping[str, Any]]) -> float:
    """Compare objects one by one, best first; of two that score alike either may come first."""
    if not isinstance(got, list) or len(got) != len(want):
        return APART
    left, far = [_as_object(item) for item in want], 0.0
    for label, score, box in map(_as_object, got):
        near = [
            (max(abs(score - other[1]), float(np.abs(box - other[2]).max() / max(1.0, np.abs(other[2]).max()))), index)
            for index, other in enumerate(left)
            if other[0] == label
        ]
        if not near:
            return APART
        apart, index = min(near)
        far = max(far, apart)
        del left[index]
    return far


def _as_object(item: Mapping[str, Any]) -> tuple[str, float, Any]:
    [(label, box)] = [(key, value) for key, value in item.items() if key != "score"]
    return label, float(item["score"]), np.asarray(box, dtype=np.float64)


def _of_lists(got: Any, want: Sequence[Mapping[str, Any]]) -> float:
    """Compare entities, or spans, one by one; of two spans that score alike either may come first."""
    if not isinstance(got, list) or len(got) != len(want):
        return APART
    far = 0.0
    for ours, theirs in zip(got, want, strict=True):
        far = max(far, _relative(ours["score"], theirs["score"]))
        is_same = all(ours.get(name) == value for name, value in theirs.items() if name != "score")
        if not is_same and "answer" not in theirs:
            return APART
    return far


def _relative(ours: float, theirs: float) -> float:
    return abs(ours - theirs) / max(1.0, abs(theirs))
