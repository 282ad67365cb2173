"""Pictures that no file is needed for: gradients with edges in them, of several shapes."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

_SIZES = ((240, 320), (320, 240), (224, 224), (300, 301), (90, 200), (700, 520), (400, 24))


def sample_pictures() -> list[NDArray[np.uint8]]:
    """Return made pictures of several shapes."""
    return [made_picture(*size, number) for number, size in enumerate(_SIZES, 1)]


def made_picture(height: int, width: int, number: int) -> NDArray[np.uint8]:
    """Return gradients with edges in them, `(height, width, 3)`; another number gives others."""
    rows, columns = np.mgrid[0:height, 0:width]
    channels = [
        (columns * 255 // width + 40 * number) % 256,
        (rows * 255 // height) ^ (columns // (8 * number) % 2 * 64),
        ((rows - height // 2) ** 2 + (columns - width // 2) ** 2 < (height // 3) ** 2) * 200,
    ]
    return np.stack(channels, axis=-1).astype(np.uint8)
