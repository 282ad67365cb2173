"""Decoded pixels of any kind -> RGB of 8 bits."""

from __future__ import annotations

from typing import Any

import numpy as np
from PIL import Image, ImageChops, ImageFile, TiffImagePlugin

from ts_handlers.errors import UnsupportedMediaTypeError

_DEEP_MODES = ("I;16", "I;16L", "I;16B", "I;16N", "I")
_DEPTH = (16,)
"""Bits of a pixel in those modes, where the file is no TIFF, which says it."""

_FEW_BITS = {"1": 1, "L;2": 2, "L;4": 4}
"""Pillow's names of grey PNGs whose levels it spreads to 256 -> their bits."""

_UNSIGNED = (1, 4)
"""Sample formats of a TIFF whose lowest number is black, or may be."""


def to_rgb(image: Image.Image, *, counts_from_white: bool = False) -> Image.Image:
    """Return a decoded image as RGB: transparency on white, 16 bits scaled to 8, palettes and CMYK converted.

    Args:
        image: Its pixels are loaded.
        counts_from_white: Whether its lowest level is white.

    Raises:
        UnsupportedMediaTypeError: 415, its pixels are of another type.
    """
    if counts_from_white:
        return ImageChops.invert(_on(0, image))
    return _on(255, image)


def _on(background: int, image: Image.Image) -> Image.Image:
    """Return a decoded image as RGB, and what is transparent on this level."""
    if image.mode == "RGB" and "transparency" not in image.info:
        return image
    if image.mode in _DEEP_MODES:
        return _from_16_bits(image)
    try:
        if image.mode in ("LA", "La", "PA", "RGBA", "RGBa") or "transparency" in image.info:
            straight = image.convert("RGBA")
            plain = Image.new("RGBA", image.size, (background, background, background, 255))
            return Image.alpha_composite(plain, straight).convert("RGB")
        if image.mode in ("1", "L", "P", "CMYK", "YCbCr"):
            return image.convert("RGB")
    except ValueError as error:
        raise _no_rgb(image) from error
    raise _no_rgb(image)


def _from_16_bits(image: Image.Image) -> Image.Image:
    tags: Any = getattr(image, "tag_v2", {})  # of a TIFF
    deepest = 2 ** tags.get(TiffImagePlugin.BITSPERSAMPLE, _DEPTH)[0] - 1
    deep = np.asarray(image).astype(np.uint32)
    grey = ((deep * 255 + deepest // 2) // deepest).astype(np.uint8)
    transparent = image.info.get("transparency")
    if isinstance(transparent, int):
        grey[deep == transparent] = 255
    return Image.fromarray(grey).convert("RGB")


def heed_depth(image: ImageFile.ImageFile) -> None:
    """Make a PNG's transparent colour one of the levels that its pixels get; call it before they are loaded.

    Raises:
        UnsupportedMediaTypeError: 415, the levels will be lost: 16 bits a channel; or say nothing of black and white.
    """
    raw = image.tile[0][3] if image.tile else None
    tags: Any = getattr(image, "tag_v2", {})
    if tags and (image.mode == "I" or not set(tags.get(TiffImagePlugin.SAMPLEFORMAT, (1,))) <= set(_UNSIGNED)):
        raise _no_rgb(image)
    transparent = image.info.get("transparency")
    if image.format != "PNG" or transparent is None or isinstance(transparent, bytes):
        return
    if raw == "RGB;16B":
        raise UnsupportedMediaTypeError(
            "the image has 16 bits a channel and a transparent colour; send 8 bits a channel, or an alpha channel",
            code="unsupported_image",
        )
    if raw in _FEW_BITS:
        image.info["transparency"] = transparent * 255 // (2 ** _FEW_BITS[raw] - 1)


def _no_rgb(image: Image.Image) -> UnsupportedMediaTypeError:
    return UnsupportedMediaTypeError(
        f"the image's pixels are of type {image.mode}; send 8 or 16 bits of grey, RGB, CMYK or a palette",
        code="unsupported_image",
    )
