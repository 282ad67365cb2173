"""Our preprocessing beside that of transformers' own image processor, on made pictures of many shapes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from ts_handlers.build.forms.processor import installed_processor, pixel_values
from ts_handlers.build.image_samples import made_picture, sample_pictures
from ts_handlers.build.image_source import ImageSource
from ts_handlers.build.steps import Progress
from ts_handlers.errors import OperatorError, RequestError, first_line
from ts_handlers.images import picture_from_pixels
from ts_handlers.preprocessing import Preprocessing, preprocess
from ts_handlers.processor_classes import class_name

MAX_LEVELS = 3
"""Levels of 256 that a pixel may differ by: some round between two steps."""

_UNUSUAL_SIZES = ((33, 47), (7, 200), (500, 64), (225, 223), (1, 50))
"""Shapes that rules of rounding, bounds and borders show on, beside the usual ones."""

_TORCH_MODES = {0: "nearest-exact", 2: "bilinear", 3: "bicubic"}
"""Pillow's number of a filter -> torch's name of it."""

_Reference = Callable[[NDArray[np.uint8]], NDArray[Any]]


def check_preprocessing(source: ImageSource, progress: Progress) -> None:
    """Compare our preprocessing with transformers' processor of the class that the source's settings name.

    One that needs torchvision, where that is not installed, is compared with torch's interpolation instead.

    Raises:
        OperatorError: They differ by more than rounding.
    """
    name = class_name(source.preprocessor)
    if not name:
        if source.form == "folder":
            progress("  note: preprocessing was not compared: its settings name no class of transformers")
        return
    try:
        processor = installed_processor(source.preprocessor)
    except Exception as error:  # noqa: BLE001  # it needs torchvision
        progress(
            f"  note: {name} cannot be loaded here; resizing is compared with torch's instead: {first_line(error)}"
        )
        if source.preprocessing.resample in _TORCH_MODES:
            compare(source.preprocessing, lambda pixels: by_torch(pixels, source.preprocessing), f"torch for {name}")
        return
    compare(source.preprocessing, lambda pixels: pixel_values(processor, pixels), type(processor).__name__)


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


def by_torch(pixels: NDArray[np.uint8], settings: Preprocessing) -> NDArray[np.float32]:
    """Return a model input that torch's interpolation made, `(3, height, width) float32`, resized to our size."""
    size = settings.resized(*pixels.shape[:2])
    tensor = torch.from_numpy(pixels.transpose(2, 0, 1).copy())[None].float()
    mode = _TORCH_MODES[settings.resample]
    if tuple(tensor.shape[2:]) != size:
        smooth = {} if mode == "nearest-exact" else {"antialias": settings.antialias, "align_corners": False}
        tensor = torch.nn.functional.interpolate(tensor, size=size, mode=mode, **smooth).clamp(0, 255)
    resized = picture_from_pixels(tensor[0].round().to(torch.uint8).numpy().transpose(1, 2, 0).copy())
    unscaled = Preprocessing(
        None,
        crop=settings.crop,
        scale=settings.scale,
        shift=settings.shift,
        is_bgr=settings.is_bgr,
        pad_size=settings.pad_size,
        pad_multiple=settings.pad_multiple,
    )
    return preprocess(resized, unscaled)
