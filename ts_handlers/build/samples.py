"""Files of texts and of images, and what a model is fed from them: encoded one by one, however many there are."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import NamedTuple, TypeVar

import numpy as np

from ts_handlers.batching.padding import ModelInput
from ts_handlers.build.image_files.onnx_file import PIXEL_MASK, PIXEL_VALUES
from ts_handlers.build.sources.images import ImageSource
from ts_handlers.build.sources.model import ModelSource, file_digest, read_lines
from ts_handlers.build.sources.texts import Source
from ts_handlers.errors import OperatorError, RequestError
from ts_handlers.imaging.decoding import ImageLimits, Picture, decode_image, open_image
from ts_handlers.imaging.preprocessing import pixel_mask, preprocess
from ts_handlers.shapes import Array

MAX_LENGTH = 384
"""Longest sequence of a sample, in tokens: longer ones are cut, as question-answering's windows are."""

SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff"})

MAX_PIXELS = 2**26
"""Pixels of all images that engines are compared on: they stay in memory, 12 bytes a pixel."""

_LIMITS = ImageLimits(max_bytes=100_000_000, max_pixels=100_000_000)

SAMPLE_TEXTS = (
    "The delivery came two days early, and the driver was kind enough to carry it upstairs.",
    "Terrible.",
    "I have mixed feelings: the screen is gorgeous, but the battery barely lasts until noon.",
    "In 2019, Maria Gonzalez moved from Buenos Aires to Toronto to work for the Royal Ontario Museum.",
    "Ça coûte 12,50 € - c'est trop cher! 😀",
    "The committee, which had met in secret for the better part of a year, published its findings on Thursday: the bridge "
    "had been inspected by people who had never seen a bridge of that kind, and the cables had been painted rather than "
    "replaced.",
    "What time does the museum open on Sundays?",
    "ok",
)
SAMPLE_QUESTIONS = (
    "Who moved to Toronto?",
    "When were the findings published?",
    "What had been painted?",
)

T = TypeVar("T")


class Sample(NamedTuple):
    """One line: `text`, `label<TAB>text`, or, for question-answering, `question<TAB>context`; for images text is a path."""

    text: str
    before_tab: str | None = None


class Dataset:
    """The samples of a file as model inputs, in its order; each iteration encodes them anew.

    Args:
        source: The model that takes them.
        file: Of texts UTF-8, one a line; of images a folder, or a file of paths from where it is. Empty lines are left out.
        samples: Some of its samples; None: all.

    Raises:
        OperatorError: The file cannot be read, or has no sample.
    """

    def __init__(self, source: ModelSource, file: Path, samples: Sequence[Sample] | None = None) -> None:
        self.file, self._source = file, source
        self.samples = tuple(read_samples(source, file) if samples is None else samples)

    def __iter__(self) -> Iterator[ModelInput]:
        for sample in self.samples:
            yield encode(self._source, sample)

    def __len__(self) -> int:
        return len(self.samples)

    @cached_property
    def digest(self) -> str:
        """SHA-256 of the file; of images over names, labels and contents."""
        if not isinstance(self._source, ImageSource):
            return file_digest(self.file)
        total = hashlib.sha256()
        for sample in self.samples:
            total.update(f"{sample.before_tab}\0{Path(sample.text).name}\0".encode())
            total.update(bytes.fromhex(file_digest(Path(sample.text))))
        return total.hexdigest()

    @cached_property
    def labels(self) -> tuple[int, ...]:
        """Index of each sample's label.

        Raises:
            OperatorError: A line has none, or one that the model does not know.
        """
        return tuple(self._label(number, sample) for number, sample in enumerate(self.samples, 1))

    def spread(self, number: int) -> list[ModelInput]:
        """Return up to `number` samples, evenly spread over the file."""
        return [encode(self._source, sample) for sample in spread_over(self.samples, number)]

    def split(self, every: int = 5) -> tuple[Dataset, Dataset]:
        """Return all but each `every`-th sample, and those: what is measured on is not what was calibrated on."""
        measured = [sample for index, sample in enumerate(self.samples) if index % every]
        return (
            Dataset(self._source, self.file, measured),
            Dataset(self._source, self.file, self.samples[::every]).in_memory(),
        )

    def in_memory(self) -> Dataset:
        """Return as many of the samples, evenly spread, as may be held in memory; texts are small."""
        if not isinstance(self._source, ImageSource):
            return self
        height, width = self._source.input_size
        return Dataset(self._source, self.file, spread_over(self.samples, max(1, MAX_PIXELS // (height * width))))

    def _label(self, number: int, sample: Sample) -> int:
        labels: Sequence[str] = self._source.labels
        if sample.before_tab is None:
            raise OperatorError(f"{self.file}: sample {number} has no label; write label<TAB>text")
        if sample.before_tab in labels:
            return labels.index(sample.before_tab)
        if sample.before_tab.isdecimal() and int(sample.before_tab) < len(labels):
            return int(sample.before_tab)
        raise OperatorError(
            f"{self.file}: sample {number} has the label {sample.before_tab[:50]!r}; known: {', '.join(labels[:20])}"
        )


def spread_over(items: Sequence[T], number: int) -> Sequence[T]:
    """Return up to `number` of them, evenly spread."""
    return items if len(items) <= number else [items[index * len(items) // number] for index in range(number)]


def read_samples(source: ModelSource, file: Path) -> list[Sample]:
    """Read what the samples of a file are; images are not opened yet.

    Raises:
        OperatorError: It cannot be read, has no sample, or names a file that there is none of.
    """
    is_image = isinstance(source, ImageSource)
    if is_image and file.is_dir():
        files = sorted(path for path in file.rglob("*") if path.is_file() and path.suffix.lower() in SUFFIXES)
        found = [Sample(str(path)) for path in files]
    else:
        found = [_sample(line) for line in read_lines(file)]
        found = [_with_path(file, sample) for sample in found] if is_image else found
    if not found:
        needed = "image; give a folder of them, or label<TAB>path lines" if is_image else "text; give one a line"
        raise OperatorError(f"{file} has no {needed}")
    return found


def _sample(line: str) -> Sample:
    before, tab, after = line.partition("\t")
    return Sample(after, before) if tab else Sample(before)


def _with_path(file: Path, sample: Sample) -> Sample:
    path = file.parent / sample.text.strip()
    if not path.is_file():
        raise OperatorError(f"{file} names {sample.text.strip()[:200]}, and there is no {path}; write label<TAB>path")
    return sample._replace(text=str(path))


def encode(source: ModelSource, sample: Sample, max_length: int = MAX_LENGTH) -> ModelInput:
    """Return a sample as the model takes it; a text is cut at so many tokens, or fewer where the model takes fewer."""
    if isinstance(source, ImageSource):
        return encode_picture(source, read_picture(source, Path(sample.text)))
    if not isinstance(source, Source):
        raise OperatorError(f"{type(source).__name__} takes neither texts nor images")
    is_pair = source.is_pair and sample.before_tab is not None
    first, second = (sample.before_tab, sample.text) if is_pair else (sample.text, None)
    limit = min(source.max_length, max_length)
    encoded = source.tokenizer(first, second, truncation=True, max_length=limit, return_tensors="np")
    arrays = {name: np.asarray(encoded[name][0], dtype=np.int64) for name in source.input_names}
    return ModelInput(arrays, len(arrays["input_ids"]))


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
    return ModelInput(arrays, source=(picture.height, picture.width), size=size)
