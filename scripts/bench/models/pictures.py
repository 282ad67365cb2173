"""Variants of real photographs as JPEG files: crops, flips, brightness, sensor noise. Seeded, made once."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from tests.pictures import PHOTOGRAPHS, encode, photograph_pixels

SEED = 7
SIZES = ((500, 375), (375, 500), (500, 333), (480, 360))
"""Width and height in pixels: those of most pictures of ImageNet's validation set."""

LARGE = ((4000, 3000), (3000, 4000))
"""Those of a phone's camera."""

Pixels = NDArray[np.uint8]

_QUALITY = 90
_NOISE = 6.0
_LEAST_SCALE = 0.7
_BRIGHTNESS = (0.75, 1.25)


def make_pictures(
    folder: Path, count: int, *, sizes: Sequence[tuple[int, int]] = SIZES, half: slice = slice(None)
) -> Path:
    """Write `count` pictures of these sizes in turn into a folder, unless they are there, and return it.

    Args:
        folder: The folder.
        count: How many.
        sizes: Width and height of each.
        half: The columns of a photograph that are cropped from, as part of its width in percent.
    """
    if len(list(folder.glob("*.jpg"))) != count:
        folder.mkdir(parents=True, exist_ok=True)
        for number in range(count):
            photograph = photograph_pixels(PHOTOGRAPHS[number % len(PHOTOGRAPHS)])
            width = photograph.shape[1]
            columns = slice(*(part and width * part // 100 for part in (half.start, half.stop)))
            varied = vary(photograph[:, columns], sizes[number % len(sizes)], np.random.default_rng(SEED + number))
            (folder / f"{number:03}.jpg").write_bytes(encode(varied, "JPEG", quality=_QUALITY))
    return folder


def vary(photograph: Pixels, size: tuple[int, int], generator: np.random.Generator) -> Pixels:
    """Return a crop of a photograph in this size (width, height), perhaps mirrored, darker or brighter."""
    height, width, _ = photograph.shape
    scale = min(width / size[0], height / size[1]) * generator.uniform(_LEAST_SCALE, 1.0)
    across, down = size[0] * scale, size[1] * scale
    left, top = generator.uniform(0, width - across), generator.uniform(0, height - down)
    box = (left, top, left + across, top + down)
    crop = Image.fromarray(np.ascontiguousarray(photograph)).resize(size, Image.Resampling.BICUBIC, box=box)
    pixels = np.asarray(crop, dtype=np.float32)[:, :: 1 if generator.random() < 0.5 else -1]
    noisy = pixels * generator.uniform(*_BRIGHTNESS) + generator.normal(0.0, _NOISE, pixels.shape)
    varied: Pixels = np.clip(noisy, 0, 255).astype(np.uint8)
    return varied
