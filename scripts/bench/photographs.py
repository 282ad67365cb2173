"""Real photographs, from packages that ship some, and variants of them: crops, flips, brightness. Seeded."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

Picture = NDArray[np.uint8]
"""`(side, side, 3)`, red, green, blue."""

SEED = 7
SIDE = 224

_SCIKIT_IMAGE = ("astronaut", "chelsea", "coffee", "rocket")
_SCIKIT_LEARN = ("china.jpg", "flower.jpg")
_LEAST_AREA = 0.5
"""Of a crop, as part of the photograph."""

_BRIGHTNESS = (0.75, 1.25)


@dataclass(frozen=True, slots=True)
class Pictures:
    """Variants of photographs: crops of their left halves to calibrate on, and of their right halves to judge by."""

    calibration: Sequence[Picture]
    evaluation: Sequence[Picture]


def load_photographs() -> dict[str, Picture]:
    """Return the photographs by name, of any size."""
    import skimage.data
    from sklearn.datasets import load_sample_image

    found = {name: np.asarray(getattr(skimage.data, name)()) for name in _SCIKIT_IMAGE}
    found["motorcycle"] = np.asarray(skimage.data.stereo_motorcycle()[0])
    found |= {name.partition(".")[0]: np.asarray(load_sample_image(name)) for name in _SCIKIT_LEARN}
    return found


def make_pictures(photographs: Mapping[str, Picture], num_calibration: int, num_evaluation: int) -> Pictures:
    """Make variants, of all photographs in turn."""
    generator = np.random.default_rng(SEED)
    halves = [np.array_split(photographs[name], 2, axis=1) for name in sorted(photographs)]
    calibration = [vary(halves[number % len(halves)][0], generator) for number in range(num_calibration)]
    evaluation = [vary(halves[number % len(halves)][1], generator) for number in range(num_evaluation)]
    return Pictures(calibration, evaluation)


def vary(photograph: Picture, generator: np.random.Generator) -> Picture:
    """Return a square crop of a photograph, perhaps mirrored, darker or brighter."""
    height, width, _ = photograph.shape
    side = min(height, width) * float(np.sqrt(generator.uniform(_LEAST_AREA, 1.0)))
    left, top = generator.uniform(0, width - side), generator.uniform(0, height - side)
    crop = Image.fromarray(photograph).resize(
        (SIDE, SIDE), Image.Resampling.BILINEAR, box=(left, top, left + side, top + side)
    )
    if generator.random() < 0.5:
        crop = crop.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    brighter = np.asarray(crop, dtype=np.float32) * generator.uniform(*_BRIGHTNESS)
    varied: Picture = np.clip(brighter, 0, 255).astype(np.uint8)
    return varied
