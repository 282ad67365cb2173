"""Files of images, and what a model is fed from them; read one by one, however many there are."""

from __future__ import annotations

import base64
import hashlib
import io
from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ts_handlers.batch import Array, ModelInput
from ts_handlers.build.image_source import ImageSource
from ts_handlers.build.onnx_file import PIXEL_MASK, PIXEL_VALUES
from ts_handlers.build.samples import Dataset, Sample
from ts_handlers.errors import OperatorError, RequestError
from ts_handlers.images import ImageLimits, Picture, decode_image, open_image, picture_from_pixels
from ts_handlers.preprocessing import pixel_mask, preprocess

SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff"})

_LIMITS = ImageLimits(max_bytes=100_000_000, max_pixels=100_000_000)

_SAMPLE_SIZES = ((240, 320), (320, 240), (224, 224), (300, 301), (90, 200), (700, 520), (400, 24))

MAX_PIXELS = 2**26
"""Pixels of all samples that engines are compared on: they stay in memory, 12 bytes a pixel."""


class ImageDataset(Dataset):
    """The images of a folder, by name, or of a file of `label<TAB>path` lines (paths from where the file is).

    Args:
        source: Whose preprocessing and labels are used.
        file: The folder or the file.
        part: Which samples, as `Dataset` has it.
        limit: Most samples, spread over all; None: all.
    """

    def __init__(
        self, source: ImageSource, file: Path, part: tuple[int, int] = (0, 1), limit: int | None = None
    ) -> None:
        super().__init__(source, file, part)
        self._images, self._limit = source, limit

    def samples(self) -> Iterator[Sample]:
        """Read the names, and the labels where there are some.

        Raises:
            OperatorError: It cannot be read, or has no sample.
        """
        wanted, every = self._part
        chosen = [
            sample
            for index, sample in enumerate(self._all_samples)
            if every == 1 or (index % every == 0) == (wanted == 0)
        ]
        if self._limit is not None and len(chosen) > self._limit:
            chosen = [chosen[index * len(chosen) // self._limit] for index in range(self._limit)]
        yield from chosen

    @cached_property
    def _all_samples(self) -> Sequence[Sample]:
        found = list(_read_folder(self.file) if self.file.is_dir() else _read_lines(self.file))
        if not found:
            raise OperatorError(f"{self.file} has no image; give a folder of them, or label<TAB>path lines")
        return found

    @cached_property
    def digest(self) -> str:
        """SHA-256 over names, labels and contents."""
        total = hashlib.sha256()
        for sample in self.samples():
            total.update(f"{sample.before_tab}\0{Path(sample.text).name}\0".encode())
            total.update(hashlib.sha256(Path(sample.text).read_bytes()).digest())
        return total.hexdigest()

    def split(self, every: int = 5) -> tuple[ImageDataset, ImageDataset]:
        """Return all but each `every`-th sample, and those."""
        limit = max_samples(self._images)
        return ImageDataset(self._images, self.file, (1, every)), ImageDataset(
            self._images, self.file, (0, every), limit
        )

    def _encode(self, sample: Sample) -> ModelInput:
        return encode_picture(self._images, read_picture(self._images, Path(sample.text)))


def max_samples(source: ImageSource) -> int:
    """Return how many samples fit into MAX_PIXELS."""
    height, width = source.input_size
    return max(1, MAX_PIXELS // (height * width))


def read_picture(source: ImageSource, file: Path) -> Picture:
    """Decode an image file, at the scale that its resizing needs, as a worker does.

    Raises:
        OperatorError: It cannot be read.
    """
    try:
        encoded = open_image(file.read_bytes(), _LIMITS)
        wanted = source.preprocessing.reduced(encoded.height, encoded.width)
        return decode_image(encoded, wanted, resample=source.preprocessing.resample)
    except (OSError, RequestError) as error:
        raise OperatorError(f"{file} cannot be read as an image: {error}") from error


def encode_picture(source: ImageSource, picture: Picture) -> ModelInput:
    """Return a picture as the model takes it."""
    values = preprocess(picture, source.preprocessing)
    size = (values.shape[1], values.shape[2])
    if source.layout == "NHWC":
        values = np.ascontiguousarray(values.transpose(1, 2, 0))
    arrays: dict[str, Array] = {PIXEL_VALUES: values}
    if source.pads_images:
        arrays[PIXEL_MASK] = pixel_mask(source.preprocessing.content_size(picture.height, picture.width), size)
    return ModelInput(arrays, size[0] * size[1], source=(picture.height, picture.width), size=size)


def sample_pictures() -> list[NDArray[np.uint8]]:
    """Return made pictures of several shapes: gradients, with edges in them."""
    return [made_picture(*size, number) for number, size in enumerate(_SAMPLE_SIZES, 1)]


def made_picture(height: int, width: int, number: int) -> NDArray[np.uint8]:
    """Return gradients with edges in them, `(height, width, 3)`; another number gives others."""
    rows, columns = np.mgrid[0:height, 0:width]
    channels = [
        (columns * 255 // width + 40 * number) % 256,
        (rows * 255 // height) ^ (columns // (8 * number) % 2 * 64),
        ((rows - height // 2) ** 2 + (columns - width // 2) ** 2 < (height // 3) ** 2) * 200,
    ]
    return np.stack(channels, axis=-1).astype(np.uint8)


def sample_image_inputs(source: ImageSource, file: Path | None) -> list[ModelInput]:
    """Return what a build is checked on: the images of a folder or file, or made ones."""
    if file is not None:
        return list(ImageDataset(source, file, limit=max_samples(source)))
    return [encode_picture(source, picture_from_pixels(pixels)) for pixels in sample_pictures()]


def sample_image_request() -> dict[str, str]:
    """Return a request with one image."""
    target = io.BytesIO()
    Image.fromarray(sample_pictures()[0]).save(target, "PNG")
    return {"b64": base64.b64encode(target.getvalue()).decode("ascii")}


def _read_folder(folder: Path) -> Iterator[Sample]:
    for file in sorted(folder.rglob("*")):
        if file.is_file() and file.suffix.lower() in SUFFIXES:
            yield Sample(str(file))


def _read_lines(file: Path) -> Iterator[Sample]:
    try:
        lines = file.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise OperatorError(f"{file} cannot be read as UTF-8 text: {error}") from error
    for line in filter(str.strip, lines):
        before, tab, after = line.partition("\t")
        label, name = (before, after) if tab else (None, before)
        path = file.parent / name.strip()
        if not path.is_file():
            raise OperatorError(f"{file} names {name.strip()[:200]}, and there is no {path}; write label<TAB>path")
        yield Sample(str(path), label)
