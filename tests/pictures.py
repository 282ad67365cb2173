"""Images for the tests: real photographs, made ones in every format, and broken ones."""

from __future__ import annotations

import importlib.util
import io
import struct
import zlib
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

PHOTOGRAPHS = ("chelsea.png", "rocket.jpg", "coffee.png", "astronaut.png")


def photograph(name: str) -> bytes:
    """Return a file of scikit-image's data, which is installed for it and never imported."""
    spec = importlib.util.find_spec("skimage")
    if spec is None or spec.origin is None:
        raise FileNotFoundError("scikit-image is not installed beside the environment; run scripts/test")
    return (Path(spec.origin).parent / "data" / name).read_bytes()


@lru_cache
def photograph_pixels(name: str) -> NDArray[np.uint8]:
    """Return a photograph as `(height, width, 3)`."""
    return np.asarray(Image.open(io.BytesIO(photograph(name))).convert("RGB"))


def encode(picture: Image.Image | NDArray[Any], format_: str, **options: Any) -> bytes:
    """Return an image as a file."""
    image = picture if isinstance(picture, Image.Image) else Image.fromarray(picture)
    target = io.BytesIO()
    image.save(target, format_, **options)
    return target.getvalue()


def scene(height: int, width: int, seed: int = 0) -> NDArray[np.uint8]:
    """Return smooth shapes with edges in them, `(height, width, 3)`; another seed gives others."""
    dice = np.random.default_rng(seed)
    rows, columns = np.mgrid[0:height, 0:width].astype(np.float32)
    picture = np.zeros((height, width, 3), np.float32)
    for channel in range(3):
        fx, fy, phase = dice.uniform(0.5, 4, 3)
        picture[..., channel] = 128 + 100 * np.sin(fx * columns / width * 6 + phase) * np.cos(fy * rows / height * 6)
    top, left = int(dice.integers(0, max(1, height // 2))), int(dice.integers(0, max(1, width // 2)))
    picture[top : top + height // 3, left : left + width // 3] = dice.uniform(0, 255, 3)
    return np.clip(picture, 0, 255).astype(np.uint8)


def png_header(width: int, height: int) -> bytes:
    """Return a PNG that says it is of this size and has next to no pixels."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0" * 64)) + chunk(b"IEND", b"")
    )


def broken_images() -> dict[str, tuple[bytes, int, str]]:
    """Return bodies that are no image -> the status and code they get."""
    small = scene(48, 64)
    jpeg, png = encode(small, "JPEG"), encode(small, "PNG")
    return {
        "zero bytes": (b"", 400, "empty_request"),
        "truncated JPEG": (jpeg[: len(jpeg) // 2], 400, "broken_image"),
        "truncated PNG": (png[: len(png) // 2], 400, "broken_image"),
        "truncated GIF": (encode(small, "GIF")[:40], 400, "broken_image"),
        "truncated WebP": (encode(small, "WEBP")[:60], 400, "broken_image"),
        "truncated BMP": (encode(small, "BMP")[:200], 400, "broken_image"),
        "truncated TIFF": (encode(small, "TIFF")[:200], 400, "broken_image"),
        "a JPEG's first bytes": (jpeg[:3], 400, "broken_image"),
        "PNG whose header has a wrong sum": (png[:20] + b"\x7f" + png[21:], 400, "broken_image"),
        "decompression bomb": (png_header(60_000, 60_000), 413, "image_too_large"),
        "huge dimensions": (png_header(2**31 - 1, 2**31 - 1), 413, "image_too_large"),
        "a little too large": (png_header(12_000, 9_000), 413, "image_too_large"),
        "no pixels": (png_header(0, 5), 400, "broken_image"),
        "one long line": (encode(np.zeros((1, 60_000, 3), np.uint8), "PNG"), 413, "image_too_large"),
        "SVG": (b'<svg xmlns="http://www.w3.org/2000/svg"><rect/></svg>', 415, "unsupported_image"),
        "HEIC": (b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(64), 415, "unsupported_image"),
        "PDF": (b"%PDF-1.7\n", 415, "unsupported_image"),
        "text": (b"this is no image", 415, "unsupported_image"),
        "noise": (bytes(range(128, 256)), 415, "unsupported_image"),
        "floating point TIFF": (encode(np.ones((8, 8), np.float32), "TIFF"), 415, "unsupported_image"),
    }
