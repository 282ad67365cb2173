"""Pictures -> model inputs: resize, center crop, scale and shift each channel. `preprocessor_config` reads how."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ts_handlers.errors import RequestError
from ts_handlers.imaging.decoding import REDUCING_FILTERS, Box, Picture
from ts_handlers.shapes import Size

Channels = tuple[float, float, float]


@dataclass(frozen=True, slots=True)
class Resize:
    """How large a picture is made.

    Attributes:
        mode: `exact`: height and width; `shortest_edge`: that edge becomes `height`; `rounded_edge`: the same, the other
            edge rounded to the nearest and not down; `bounded`: as `shortest_edge`, and no edge is longer than `width`;
            `fit`: as large as height and width allow; `nearest_edge`: the edge that is nearer to its size gets it, and the
            other keeps the shape; `multiple`: as it is, but for `multiple`.
        height: In pixels, or the shortest edge.
        width: In pixels, or the longest edge; without meaning for `shortest_edge`.
        multiple: Both edges become multiples of it: cut (`bounded`, `multiple`), the next larger (`shortest_edge`,
            `rounded_edge`), or the nearest (`nearest_edge`).
    """

    mode: Literal["exact", "shortest_edge", "rounded_edge", "bounded", "fit", "nearest_edge", "multiple"]
    height: int
    width: int = 0
    multiple: int = 1

    def target(self, height: int, width: int) -> Size:
        """Return the size of a picture of this height and width, as transformers computes it; an edge may be 0."""
        if self.mode == "exact":
            return self.height, self.width
        if self.mode == "shortest_edge":
            return _next_multiple(_shortest_edge(height, width, self.height), self.multiple)
        if self.mode == "rounded_edge":
            factor = self.height / min(height, width)
            return _next_multiple((round(height * factor), round(width * factor)), self.multiple)
        if self.mode in ("bounded", "multiple"):
            size = (height, width)
            if self.mode == "bounded":
                size = _bounded(height, width, self.height, self.width, keeps_tall=self.multiple == 1)
            return size[0] - size[0] % self.multiple, size[1] - size[1] % self.multiple
        down, across = self.height / height, self.width / width
        if self.mode == "nearest_edge":
            factor = across if abs(1 - across) < abs(1 - down) else down
            rows, columns = (round(factor * edge / self.multiple) * self.multiple for edge in (height, width))
            return rows, columns
        factor = min(down, across)
        return int(height * factor), int(width * factor)


@dataclass(frozen=True, slots=True)
class Preprocessing:
    """What is done to a picture.

    Attributes:
        resize: How large it is made; None: as it is.
        resample: Pillow's number of the filter.
        crop: What is cut out of its middle; a smaller picture gets a black border.
        rounds_crop: Whether half a pixel beside the crop is rounded to even, as in torchvision, or down.
        larger_below: Whether a border of an odd number of pixels has the larger half below and on the right, as in
            torchvision, or above and on the left, as transformers has it with Pillow.
        scale: Factor of each channel's 0 to 255.
        shift: What is added to it then.
        is_bgr: Whether the model takes blue first.
        pads: Whether pictures of one call are padded to the largest.
        antialias: Whether what is made smaller is averaged; if not, each pixel is mixed of four of the picture's.
        middle: Height and width, as parts of the shorter edge, of what is cut out before it is resized.
        pad_size: What zeros fill it up to on the right and below, when all else is done.
        pad_multiple: Zeros on all sides make both edges a multiple of it.
    """

    resize: Resize | None
    resample: int = 2
    crop: Size | None = None
    rounds_crop: bool = False
    larger_below: bool = False
    scale: Channels = (1 / 255, 1 / 255, 1 / 255)
    shift: Channels = (0.0, 0.0, 0.0)
    is_bgr: bool = False
    pads: bool = False
    antialias: bool = True
    middle: tuple[float, float] | None = None
    pad_size: Size | None = None
    pad_multiple: int = 1

    def resized(self, height: int, width: int) -> Size:
        """Return the size that a picture of this size is resized to.

        Raises:
            RequestError: 400, nothing is left of it, or it does not fit into `pad_size`.
        """
        size = self.cut(height, width)
        if min(size) > 0 and self.resize is not None:
            size = self.resize.target(*size)
        if min(size) < 1:
            raise RequestError(
                f"the image has {width} x {height} pixels, and nothing is left of its shorter edge when it is resized as "
                "the model needs it; send one of another shape",
                code="image_too_narrow",
            )
        kept, most = self.crop or size, self.pad_size
        if most is not None and (kept[0] > most[0] or kept[1] > most[1]):
            raise RequestError(
                f"the image has {kept[1]} x {kept[0]} pixels; this model takes {most[1]} x {most[0]}: send a smaller one",
                code="image_too_large",
            )
        return size

    def reduced(self, height: int, width: int) -> Size | None:
        """Return the size down to which pixels of such a picture are averaged; None where single ones count."""
        averages = self.resample in REDUCING_FILTERS and self.antialias
        return self.resized(height, width) if self.resize and averages and self.middle is None else None

    def cut(self, height: int, width: int) -> Size:
        """Return the size of what is resized of such a picture."""
        if self.middle is None:
            return height, width
        shorter = min(height, width)
        return int(self.middle[0] * shorter), int(self.middle[1] * shorter)

    def content_size(self, height: int, width: int) -> Size:
        """Return the size of what the model sees of such a picture, without zeros beside it."""
        return self.crop or self.resized(height, width)

    def input_size(self, height: int, width: int) -> Size:
        """Return the size of the model input that such a picture becomes."""
        return self.pad_size or _next_multiple(self.content_size(height, width), self.pad_multiple)

    @property
    def fixed_size(self) -> Size | None:
        """Size of every model input; None where it depends on the picture."""
        known = self.crop
        if known is None and self.resize is not None and self.resize.mode == "exact":
            known = self.resize.height, self.resize.width
        return self.pad_size or (None if known is None else _next_multiple(known, self.pad_multiple))


def preprocess(picture: Picture, settings: Preprocessing) -> NDArray[np.float32]:
    """Return a picture as model input, `(3, height, width) float32`.

    Raises:
        RequestError: 400, nothing is left of it, or it does not fit.
    """
    size = settings.resized(picture.height, picture.width)
    image = picture.image
    if settings.middle is not None:
        cut = center_crop(np.asarray(image), settings.cut(picture.height, picture.width))
        image = Image.fromarray(np.ascontiguousarray(cut))
    if picture.is_reduced and settings.crop is not None:
        pixels = _resize_middle(image, size, settings.crop, settings, picture.box)
    else:
        pixels = _resize(image, size, settings, picture.box)
    if settings.crop is not None:
        pixels = center_crop(pixels, settings.crop, rounds=settings.rounds_crop, larger_below=settings.larger_below)
    channels = pixels.transpose(2, 0, 1)
    if settings.is_bgr:
        channels = channels[::-1]
    values: NDArray[np.float32] = np.multiply(channels, _by_channel(settings.scale), dtype=np.float32, order="C")
    values += _by_channel(settings.shift)
    wanted = settings.input_size(picture.height, picture.width)
    return values if values.shape[1:] == wanted else _pad(values, wanted, is_centered=settings.pad_size is None)


def pixel_mask(content: Size, size: Size) -> NDArray[np.int64]:
    """Return 1 where a model input of this size shows the picture, and 0 where it is padding, `(height, width) int64`."""
    mask = np.zeros(size, dtype=np.int64)
    mask[: content[0], : content[1]] = 1
    return mask


def center_crop(pixels: NDArray[Any], size: Size, *, rounds: bool = False, larger_below: bool = False) -> NDArray[Any]:
    """Cut `size` out of the middle of `(height, width, channels)`; what is smaller gets a border of zeros first."""
    margins = [wanted - given for wanted, given in zip(size, pixels.shape, strict=False)]
    if max(margins) > 0:
        odd = 0 if larger_below else 1
        border = [((max(0, margin) + odd) // 2, (max(0, margin) + 1 - odd) // 2) for margin in margins]
        pixels = np.pad(pixels, [*border, (0, 0)])
    height, width = pixels.shape[:2]
    top, left = _margin(height, size[0], rounds=rounds), _margin(width, size[1], rounds=rounds)
    return pixels[top : top + size[0], left : left + size[1]]


def _resize(image: Image.Image, size: Size, settings: Preprocessing, box: Box | None) -> NDArray[np.uint8]:
    height, width = size
    if image.size == (width, height):
        return np.asarray(image)
    if settings.antialias:
        return np.asarray(image.resize((width, height), Image.Resampling(settings.resample), box=box))
    across, down = image.width / width, image.height / height
    affine = (across, 0, 0, 0, down, 0)
    return np.asarray(
        image.transform((width, height), Image.Transform.AFFINE, affine, Image.Resampling(settings.resample))
    )


def _resize_middle(
    image: Image.Image, size: Size, crop: Size, settings: Preprocessing, box: Box | None
) -> NDArray[np.uint8]:
    """Return the part of `_resize` that `crop` keeps, without the rest, a third of a usual picture.

    Pillow keeps the box in single precision: a value halfway between two of the 256 levels may be rounded to the other.
    """
    height, width = size
    rows, columns = min(crop[0], height), min(crop[1], width)
    top, left = _margin(height, rows, rounds=settings.rounds_crop), _margin(width, columns, rounds=settings.rounds_crop)
    start, above, end, below = box or (0, 0, image.width, image.height)
    down, across = (below - above) / height, (end - start) / width
    part = (start + left * across, above + top * down, start + (left + columns) * across, above + (top + rows) * down)
    return np.asarray(image.resize((columns, rows), Image.Resampling(settings.resample), box=part))


def _margin(length: int, kept: int, *, rounds: bool) -> int:
    """Return how much of `length` is before its middle part of length `kept`; 0 where all of it is kept."""
    surplus = max(0, length - kept)
    return round(surplus / 2) if rounds else surplus // 2


def _pad(values: NDArray[np.float32], size: Size, *, is_centered: bool) -> NDArray[np.float32]:
    """Put zeros beside `(channels, height, width)`: on all sides, or below and on the right."""
    height, width = values.shape[1:]
    top, left = ((size[0] - height) // 2, (size[1] - width) // 2) if is_centered else (0, 0)
    padded = np.zeros((values.shape[0], *size), dtype=np.float32)
    padded[:, top : top + height, left : left + width] = values
    return padded


def _shortest_edge(height: int, width: int, edge: int) -> Size:
    if width <= height:
        return int(edge * height / width), edge
    return edge, int(edge * width / height)


def _bounded(height: int, width: int, shortest: int, longest: int, *, keeps_tall: bool) -> Size:
    """Compute as transformers does, rounding included; YOLOS's does not keep a tall picture that is of that size already."""
    low, high = min(height, width), max(height, width)
    exact: float = shortest
    if high / low * shortest > longest:
        exact = longest * low / high
        shortest = round(exact)
    if low == shortest and (width >= height or keeps_tall):
        return height, width
    if width < height:
        return int(exact * height / width), shortest
    return shortest, int(exact * width / height)


def _next_multiple(size: Size, multiple: int) -> Size:
    return size[0] + -size[0] % multiple, size[1] + -size[1] % multiple


def _by_channel(values: Channels) -> NDArray[np.float32]:
    return np.asarray(values, dtype=np.float32)[:, None, None]
