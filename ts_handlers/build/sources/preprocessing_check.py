"""Our preprocessing beside that of transformers' own image processor, on made pictures of many shapes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ts_handlers.build.image_outputs.made_pictures import made_picture, sample_pictures
from ts_handlers.errors import OperatorError, RequestError, all_lines
from ts_handlers.imaging.decoding import picture_from_pixels
from ts_handlers.imaging.preprocessing import Preprocessing, preprocess

MAX_LEVELS = 3
"""Levels of 256 that a pixel may differ by: some round between two steps."""

_UNUSUAL_SIZES = ((33, 47), (9, 70), (500, 64), (225, 223), (3, 5))
"""Shapes that rules of rounding, bounds and borders show on, beside the usual ones."""

_Reference = Callable[[NDArray[np.uint8]], NDArray[Any]]


def compare(settings: Preprocessing, reference: _Reference, name: str) -> None:
    """Compare with a reference, on pictures of many shapes; what is refused here as too narrow is left out.

    Raises:
        OperatorError: They differ by more than rounding.
    """
    unusual = [made_picture(*size, number) for number, size in enumerate(_UNUSUAL_SIZES, 1)]
    for pixels in (*sample_pictures(), *unusual):
        try:
            ours = preprocess(picture_from_pixels(pixels), settings)
        except RequestError:
            continue
        theirs = reference(pixels)
        level = max(settings.scale)
        if ours.shape == theirs.shape and np.abs(ours - theirs).max() <= MAX_LEVELS * level:
            continue
        what = f"an array of {theirs.shape}, and we one of {ours.shape}"
        if ours.shape == theirs.shape:
            what = f"other values, by up to {np.abs(ours - theirs).max() / level:.0f} of 255 levels"
        raise OperatorError(
            f"{name} makes {what}, of a picture of {pixels.shape[1]} x {pixels.shape[0]}; describe what it does in a file "
            "for --preprocessor that names no class, or let a handler of your own override transform"
        )


def pixel_values(processor: Any, pixels: NDArray[np.uint8]) -> NDArray[Any]:
    """Return what transformers' image processor makes of a picture.

    Raises:
        OperatorError: It makes something else, or cannot use its own settings.
    """
    name = type(processor).__name__
    try:
        found = processor(images=Image.fromarray(pixels), return_tensors="np")
    except Exception as error:
        size = f"{pixels.shape[1]} x {pixels.shape[0]}"
        raise OperatorError(
            f"{name} of transformers fails with these settings on a picture of {size} ({all_lines(error)}); correct them"
        ) from error
    if "pixel_values" not in found:
        raise OperatorError(
            f"{name} makes {', '.join(found)} and no pixel_values; describe what it does in a file for --preprocessor that "
            "names no class, or let a handler of your own override transform"
        )
    return np.asarray(found["pixel_values"][0])
