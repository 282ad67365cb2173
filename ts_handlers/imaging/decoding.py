"""Bytes -> upright RGB pictures. Broken and hostile images are the client's 400, 413 or 415, whatever a decoder does.

Transparency is put on white, as transformers' image processors and every viewer do. Colour profiles are not applied.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ts_handlers.errors import PayloadTooLargeError, RequestError, RuntimeUnavailableError, UnsupportedMediaTypeError
from ts_handlers.imaging.files.formats import TAKEN, formats_of
from ts_handlers.imaging.files.jpeg_segments import without_metadata as jpeg_without_metadata
from ts_handlers.imaging.files.orientation import orientation_in
from ts_handlers.imaging.files.png_chunks import without_metadata as png_without_metadata
from ts_handlers.imaging.files.tiff_tags import find_tag, with_value

try:
    from PIL import (
        BmpImagePlugin,
        GifImagePlugin,
        Image,
        JpegImagePlugin,
        PngImagePlugin,
        TiffImagePlugin,
        UnidentifiedImageError,
        WebPImagePlugin,
    )
except ImportError as error:
    raise RuntimeUnavailableError(
        f"images are decoded with Pillow, which cannot be imported ({error}): pip install 'ts_handlers[vision]'"
    ) from error

from ts_handlers.imaging.colours import heed_depth, to_rgb

Pixels = NDArray[np.uint8]
"""`(height, width, 3)`: red, green, blue."""

Box = tuple[float, float, float, float]

DRAFT_FACTOR = 2
"""A JPEG is decoded at 1/2, 1/4 or 1/8 as long as each side stays so many times what it is resized to. Closer, and the
decoder's own reduction shows; with 2 it moves a pixel by a few of its 256 levels (a test holds the bound)."""

REDUCING_FILTERS = frozenset(
    {Image.Resampling.BILINEAR, Image.Resampling.HAMMING, Image.Resampling.BICUBIC, Image.Resampling.LANCZOS}
)
"""Filters that pictures decoded at a reduced scale are resized with. The others, nearest and box, take whole pixels or none
of them, so that a reduced picture would come out many levels away."""

_PLUGINS = (BmpImagePlugin, GifImagePlugin, JpegImagePlugin, PngImagePlugin, TiffImagePlugin, WebPImagePlugin)
"""Imported so that their formats are registered."""

_TRANSPOSES = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_SIDEWAYS = (5, 6, 7, 8)
_RIGHT_TO_LEFT, _DOWN_TO_UP = (2, 3, 6, 7), (3, 4, 7, 8)
"""Orientations that are flipped so, after those on their side are transposed."""

_PHOTOMETRIC = TiffImagePlugin.PHOTOMETRIC_INTERPRETATION
_WHITE_IS_ZERO, _BLACK_IS_ZERO = 0, 1
"""Photometric interpretations of a grey TIFF."""


@dataclass(frozen=True, slots=True)
class ImageLimits:
    """What one image may be; past it: 413.

    Attributes:
        max_bytes: Of the file.
        max_pixels: Width times height, as the file's header says, checked before a pixel is decoded.
    """

    max_bytes: int
    max_pixels: int


@dataclass(frozen=True, slots=True)
class Picture:
    """A decoded image, upright.

    Attributes:
        image: RGB; a large JPEG may have been decoded at a reduced scale.
        height: Of the original, in pixels.
        width: Of the original, in pixels.
        box: Left, top, right and bottom edge of what the original is in a reduced image, whose last row and column may stand
            for less than those before; None: all of it.
    """

    image: Image.Image
    height: int
    width: int
    box: Box | None = None

    @property
    def is_reduced(self) -> bool:
        """Whether it was decoded at a reduced scale."""
        return self.image.size != (self.width, self.height)

    @property
    def pixels(self) -> Pixels:
        """`(height, width, 3)` uint8, of the decoded scale."""
        return np.asarray(self.image)


@dataclass(frozen=True, slots=True)
class EncodedImage:
    """An image whose header was read and whose pixels were not.

    Attributes:
        content: The file, as far as its pixels depend on it.
        formats: What it can be, by its first bytes.
        height: In pixels, upright.
        width: In pixels, upright.
        orientation: Which way is up in the file, as EXIF numbers it.
        counts_from_white: Whether its lowest level is white, as `to_rgb` has it.
    """

    content: bytes
    formats: tuple[str, ...]
    height: int
    width: int
    orientation: int = 1
    counts_from_white: bool = False


def open_image(content: bytes, limits: ImageLimits) -> EncodedImage:
    """Read an image's header.

    Raises:
        RequestError: 400, it is empty or broken.
        PayloadTooLargeError: 413, too many bytes or pixels.
        UnsupportedMediaTypeError: 415, it is of no format that is taken.
    """
    if not content:
        raise RequestError(f"the image is empty; send {TAKEN}", code="empty_image")
    if len(content) > limits.max_bytes:
        raise PayloadTooLargeError(
            f"the image has {len(content)} bytes; this model takes {limits.max_bytes}: send a smaller one",
            code="image_too_large",
        )
    formats = formats_of(content)
    orientation, counts_from_white = 1, False
    if formats == ("PNG",):
        content = png_without_metadata(content)
    elif formats == ("JPEG",):
        content, orientation = jpeg_without_metadata(content)
    elif formats == ("TIFF",):
        content, counts_from_white = _from_black(content)
    with _decoding(content, formats):
        image = Image.open(io.BytesIO(content), formats=formats)
    if formats in (("PNG",), ("WEBP",)):  # Pillow turns a TIFF itself
        orientation = orientation_in(image.info)
    width, height = image.size
    if width < 1 or height < 1:
        raise RequestError(f"the image is {width} x {height} pixels; send one that has some", code="broken_image")
    if width * height > limits.max_pixels:
        raise PayloadTooLargeError(
            f"the image has {width} x {height} pixels; this model takes {limits.max_pixels} in all: send a smaller one",
            code="image_too_large",
        )
    if orientation in _SIDEWAYS:
        width, height = height, width
    return EncodedImage(content, formats, height, width, orientation, counts_from_white)


def decode_image(
    encoded: EncodedImage, wanted: tuple[int, int] | None = None, *, resample: int = Image.Resampling.NEAREST
) -> Picture:
    """Decode an image's pixels.

    Args:
        encoded: What `open_image` returned.
        wanted: (height, width) that it will be resized to; None: decode it at its full scale.
        resample: Pillow's number of the filter that it will be resized with; of another than `REDUCING_FILTERS` a JPEG is
            decoded at its full scale, too.

    Raises:
        RequestError: 400, its pixels are broken or cut off.
        UnsupportedMediaTypeError: 415, its pixels are of a type that has no RGB.
    """
    content, orientation = encoded.content, encoded.orientation
    box: Box | None = None
    with _decoding(content, encoded.formats):
        image = Image.open(io.BytesIO(content), formats=encoded.formats)
        if wanted is not None and resample in REDUCING_FILTERS and image.format == "JPEG":
            height, width = (DRAFT_FACTOR * side for side in wanted)
            drafted = image.draft(None, (height, width) if orientation in _SIDEWAYS else (width, height))
            box = drafted[1] if drafted else None
    heed_depth(image)
    with _decoding(content, encoded.formats):
        image.decodermaxblock = len(content)  # in one go: Pillow copies what is left of each 64 KiB
        image.load()
    size = image.size
    rgb = to_rgb(image, counts_from_white=encoded.counts_from_white)
    turn = _TRANSPOSES.get(orientation)
    upright = rgb if turn is None else rgb.transpose(turn)
    return Picture(upright, encoded.height, encoded.width, box and _turn(box, size, orientation))


def _turn(box: Box, size: tuple[int, int], orientation: int) -> Box:
    """Return where a part of an image of this (width, height) is when the image is turned upright."""
    left, top, right, bottom = box
    width, height = size
    if orientation in _SIDEWAYS:
        left, top, right, bottom, width, height = top, left, bottom, right, height, width
    if orientation in _RIGHT_TO_LEFT:
        left, right = width - right, width - left
    if orientation in _DOWN_TO_UP:
        top, bottom = height - bottom, height - top
    return left, top, right, bottom


def picture_from_pixels(array: NDArray[Any]) -> Picture:
    """Take pixels a client sent as numbers: `(height, width, 3)` or `(3, height, width)`, integers from 0 to 255.

    Raises:
        RequestError: 400, they are not of that shape or in that range.
    """
    if array.ndim == 3 and array.shape[0] == 3 != array.shape[2]:
        array = array.transpose(1, 2, 0)
    if array.ndim != 3 or array.shape[2] != 3 or not array.size:
        raise RequestError(
            f"the pixels are of shape {list(array.shape)}; send [height, width, 3] or [3, height, width]",
            code="invalid_shape",
        )
    if array.dtype != np.uint8 and (array.min() < 0 or array.max() > 255):
        raise RequestError(
            f"the pixels are from {array.min()} to {array.max()}; integers are pixels from 0 to 255, and a tensor that is "
            "ready for the model is of floats",
            code="invalid_pixels",
        )
    pixels = np.ascontiguousarray(array, dtype=np.uint8)
    return Picture(Image.fromarray(pixels), *pixels.shape[:2])


def allow_pixels(max_pixels: int) -> None:
    """Raise Pillow's own limit for this process where ours is higher; ours is checked as soon as a header is read."""
    if Image.MAX_IMAGE_PIXELS is not None and max_pixels > Image.MAX_IMAGE_PIXELS:
        Image.MAX_IMAGE_PIXELS = max_pixels


def _from_black(content: bytes) -> tuple[bytes, bool]:
    """Return a TIFF that counts from black, and whether it did not: of others Pillow reads some, and 16 bits as they are."""
    tag = find_tag(content, _PHOTOMETRIC)
    if tag is None or tag.value != _WHITE_IS_ZERO:
        return content, False
    return with_value(content, tag, _BLACK_IS_ZERO), True


@contextmanager
def _decoding(content: bytes, formats: tuple[str, ...]) -> Iterator[None]:
    """Make what Pillow raises of a file an answer for the client. Nothing else is done inside: our bugs are no client's."""
    try:
        yield
    except MemoryError:
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise PayloadTooLargeError(
            "the image has more pixels than any model here takes; send a smaller one", code="image_too_large"
        ) from error
    except Exception as error:  # decoders of broken bytes raise errors of a dozen kinds
        if formats == ("TIFF",) and isinstance(error, UnidentifiedImageError) and find_tag(content, _PHOTOMETRIC):
            raise UnsupportedMediaTypeError(
                "the image is a TIFF with pixels of a kind that is not decoded here; send 8 or 16 bits of grey, RGB or CMYK",
                code="unsupported_image",
            ) from error
        raise RequestError(
            f"the image is broken or cut off, or has pixels of a kind that is not decoded here ({formats[0]}); send the "
            f"whole file as {TAKEN}, of 8 bits a channel",
            code="broken_image",
        ) from error
