"""One file of patches of an overlay, and what its operations are written with."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

NAME = "torchserve"
"""Of the Deployment, the InferenceService and what scales them."""


@dataclass(frozen=True, slots=True)
class Patch:
    """One file of patches.

    Attributes:
        file_name: Its name.
        content: A part of an object, or a list of JSON patch operations.
        reasons: Why its numbers are what they are, one line each.
        target: The object, where the content does not name it.
    """

    file_name: str
    content: Any
    reasons: tuple[str, ...] = ()
    target: Mapping[str, str] = field(default_factory=dict)


def replace(path: str, value: Any) -> dict[str, Any]:
    """Return the operation of a JSON patch (RFC 6902) that changes a value which is there."""
    return {"op": "replace", "path": path, "value": value}


def target(kind: str) -> dict[str, str]:
    """Return what says which object a JSON patch is for."""
    return {"kind": kind, "name": NAME}
