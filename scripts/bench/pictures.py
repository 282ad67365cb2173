"""Photograph-like JPEG files from a seed: what an image model is sent, without a download."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFilter

SEED = 7
NUM_PICTURES = 64
SIZES = ((500, 375), (375, 500), (500, 333), (480, 360))
"""Width and height in pixels: those of most pictures of ImageNet's validation set."""

LARGE = (4000, 3000)
"""Of a phone's camera, and how many of them there are: their making takes a second each."""
NUM_LARGE = 8

JPEG_QUALITY = 90

_NUM_SHAPES = 24
_NOISE = 6.0


def make_pictures(folder: Path, count: int = NUM_PICTURES, *, sizes: Sequence[Sequence[int]] = SIZES) -> Path:
    """Write `count` pictures of these sizes in turn into `folder`, unless they are there, and return it."""
    if len(list(folder.glob("*.jpg"))) != count:
        folder.mkdir(parents=True, exist_ok=True)
        for number in range(count):
            size = sizes[number % len(sizes)]
            (folder / f"{number:03}.jpg").write_bytes(make_jpeg(size, seed=SEED + number))
    return folder


def make_large_pictures(work_dir: Path) -> Path:
    """Write pictures of 12 megapixels into a folder in `work_dir`, unless they are there, and return it."""
    return make_pictures(work_dir / "pictures-large", NUM_LARGE, sizes=(LARGE, LARGE[::-1]))


def make_jpeg(size: Sequence[int], *, seed: int) -> bytes:
    """Return one JPEG of `size` (width, height): soft background, shapes with edges, sensor noise."""
    generator = np.random.default_rng(seed)
    width, height = size
    picture = _background(generator).resize((width, height), Image.Resampling.BICUBIC)
    draw = ImageDraw.Draw(picture)
    for _ in range(_NUM_SHAPES):
        x, y = generator.integers(0, (width, height)).tolist()
        extent_x, extent_y = generator.integers(8, (width // 3, height // 3)).tolist()
        colour = tuple(generator.integers(0, 256, 3).tolist())
        shape = draw.ellipse if generator.random() < 0.5 else draw.rectangle
        shape((x, y, x + extent_x, y + extent_y), fill=colour)
    pixels = np.asarray(picture.filter(ImageFilter.GaussianBlur(0.8)), dtype=np.float32)
    noisy = np.clip(pixels + generator.normal(0.0, _NOISE, pixels.shape), 0, 255).astype(np.uint8)
    encoded = io.BytesIO()
    Image.fromarray(noisy).save(encoded, "JPEG", quality=JPEG_QUALITY)
    return encoded.getvalue()


def _background(generator: np.random.Generator) -> Image.Image:
    coarse: NDArray[np.uint8] = generator.integers(0, 256, (5, 6, 3), dtype=np.uint8)
    return Image.fromarray(coarse)
