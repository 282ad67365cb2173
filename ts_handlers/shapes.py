"""Names of arrays and of their shapes."""

from __future__ import annotations

from typing import Any

from numpy.typing import NDArray

Array = NDArray[Any]

Size = tuple[int, int]
"""(height, width) of an image, in pixels."""

Shape = tuple[int, int]
"""Rows of a call, and the length each is padded to."""
