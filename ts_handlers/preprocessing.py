"""Pictures -> model inputs: resize, center crop, scale and shift each channel. `preprocessor_config` reads how."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ts_handlers.images import Picture

Size = tuple[int, int]
"""(height, width) in pixels."""

Channels = tuple[float, float, float]


@dataclass(frozen=True, slots=True)
class Resize:
    """How large a picture is made.

    Attributes:
        mode: `exact`: height and width; `shortest_edge`: that edge becomes `height`; `bounded`: the same, and no edge is
            longer than `width`; `fit`: as large as height and width allow; `nearest_edge`: the edge that is nearer to its
            size gets it, and the other keeps the shape.
        height: In pixels, or the shortest edge.
        width: In pixels, or the longest edge; without meaning for `shortest_edge`.
        multiple: Both edges become multiples of it: cut (`bounded`), the next larger (`shortest_edge`), or the nearest
            (`nearest_edge`).
    """

    mode: Literal["exact", "shortest_edge", "bounded", "fit", "nearest_edge"]
    height: int
    width: int = 0
    multiple: int = 1

    def target(self, height: int, width: int) -> Size:
        """Return the size of a picture of this height and width, as transformers computes it."""
        if self.mode == "exact":
            return self.height, self.width
        if self.mode == "shortest_edge":
            edges = _shortest_edge(height, width, self.height)
            return _at_least_one(*(edge + -edge % self.multiple for edge in edges))
        if self.mode == "bounded":
            bounded = _bounded(height, width, self.height, self.width)
            return _at_least_one(*(edge - edge % self.multiple for edge in bounded))
        down, across = self.height / height, self.width / width
        if self.mode == "nearest_edge":
            factor = across if abs(1 - across) < abs(1 - down) else down
            return _at_least_one(*(round(factor * edge / self.multiple) * self.multiple for edge in (height, width)))
        factor = min(down, across)
        return _at_least_one(int(height * factor), int(width * factor))


@dataclass(frozen=True, slots=True)
class Preprocessing:
    """What is done to a picture.

    Attributes:
        resize: How large it is made; None: as it is.
        resample: Pillow's number of the filter.
        crop: What is cut out of its middle; a smaller picture gets a black border.
        rounds_crop: Whether half a pixel beside the crop is rounded to even, as in torchvision, or down.
        scale: Factor of each channel's 0 to 255.
        shift: What is added to it then.
        is_bgr: Whether the model takes blue first.
        pads: Whether pictures of one call are padded to the largest.
    """

    resize: Resize | None
    resample: int = 2
    crop: Size | None = None
    rounds_crop: bool = False
    scale: Channels = (1 / 255, 1 / 255, 1 / 255)
    shift: Channels = (0.0, 0.0, 0.0)
    is_bgr: bool = False
    pads: bool = False

    def resized(self, height: int, width: int) -> Size:
        """Return the size that a picture of this size is resized to."""
        return (height, width) if self.resize is None else self.resize.target(height, width)

    @property
    def fixed_size(self) -> Size | None:
        """Size of every model input; None where it depends on the picture."""
        if self.crop is not None:
            return self.crop
        if self.resize is not None and self.resize.mode == "exact":
            return self.resize.height, self.resize.width
        return None


def preprocess(picture: Picture, settings: Preprocessing) -> NDArray[np.float32]:
    """Return a picture as model input, `(3, height, width) float32`."""
    size = settings.resized(picture.height, picture.width)
    if picture.is_reduced and settings.crop is not None:
        pixels = _resize_middle(picture.image, size, settings.crop, settings)
    else:
        pixels = _resize(picture.image, size, settings)
    if settings.crop is not None:
        pixels = center_crop(pixels, settings.crop, rounds=settings.rounds_crop)
    channels = pixels.transpose(2, 0, 1)
    if settings.is_bgr:
        channels = channels[::-1]
    values: NDArray[np.float32] = np.multiply(channels, _by_channel(settings.scale), dtype=np.float32, order="C")
    values += _by_channel(settings.shift)
    return values


def center_crop(pixels: NDArray[Any], size: Size, *, rounds: bool = False) -> NDArray[Any]:
    """Cut `size` out of the middle of `(height, width, channels)`; what is smaller gets a border of zeros first."""
    margins = [wanted - given for wanted, given in zip(size, pixels.shape, strict=False)]
    if max(margins) > 0:
        border = [(max(0, margin) // 2, (max(0, margin) + 1) // 2) for margin in margins]
        pixels = np.pad(pixels, [*border, (0, 0)])
    height, width = pixels.shape[:2]
    top, left = _margin(height, size[0], rounds=rounds), _margin(width, size[1], rounds=rounds)
    return pixels[top : top + size[0], left : left + size[1]]


def _resize(image: Image.Image, size: Size, settings: Preprocessing) -> NDArray[np.uint8]:
    height, width = size
    if image.size != (width, height):
        image = image.resize((width, height), Image.Resampling(settings.resample))
    return np.asarray(image)


def _resize_middle(image: Image.Image, size: Size, crop: Size, settings: Preprocessing) -> NDArray[np.uint8]:
    """Return the part of `_resize` that `crop` keeps, without the rest, a third of a usual picture.

    Pillow keeps the box in single precision: a value halfway between two of the 256 levels may be rounded to the other.
    """
    height, width = size
    rows, columns = min(crop[0], height), min(crop[1], width)
    top, left = _margin(height, rows, rounds=settings.rounds_crop), _margin(width, columns, rounds=settings.rounds_crop)
    down, across = image.height / height, image.width / width
    box = (left * across, top * down, (left + columns) * across, (top + rows) * down)
    return np.asarray(image.resize((columns, rows), Image.Resampling(settings.resample), box=box))


def _margin(length: int, kept: int, *, rounds: bool) -> int:
    """Return how much of `length` is before its middle part of length `kept`; 0 where all of it is kept."""
    surplus = max(0, length - kept)
    return round(surplus / 2) if rounds else surplus // 2


def _shortest_edge(height: int, width: int, edge: int) -> Size:
    if width <= height:
        return int(edge * height / width), edge
    return edge, int(edge * width / height)


def _bounded(height: int, width: int, shortest: int, longest: int) -> Size:
    """Compute as transformers does, rounding included."""
    low, high = min(height, width), max(height, width)
    exact: float = shortest
    if high / low * shortest > longest:
        exact = longest * low / high
        shortest = round(exact)
    if low == shortest:
        return height, width
    if width < height:
        return int(exact * height / width), shortest
    return shortest, int(exact * width / height)


def _at_least_one(height: int, width: int) -> Size:
    return max(1, height), max(1, width)


def _by_channel(values: Channels) -> NDArray[np.float32]:
    return np.asarray(values, dtype=np.float32)[:, None, None]
