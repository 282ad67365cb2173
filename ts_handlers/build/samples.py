"""Files of texts, and what the model is fed from them. Read line by line: a file may be larger than memory."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

import numpy as np

from ts_handlers.batch import ModelInput
from ts_handlers.build.model_source import ModelSource
from ts_handlers.build.source import Source
from ts_handlers.errors import OperatorError

MAX_LENGTH = 384
"""Longest sequence of a sample, in tokens: longer ones are cut, as question-answering's windows are."""


class Sample(NamedTuple):
    """One line: `text`, `label<TAB>text`, or, for question-answering, `question<TAB>context`."""

    text: str
    before_tab: str | None = None


class Dataset:
    """The samples of a file as model inputs, in its order; each iteration reads and tokenizes the file anew.

    Args:
        source: Whose tokenizer and labels are used.
        file: UTF-8, one sample a line; empty lines are left out.
        part: Which samples: (0, 1) all, (0, 5) the first of every five, (1, 5) the other four.
    """

    def __init__(self, source: ModelSource, file: Path, part: tuple[int, int] = (0, 1)) -> None:
        self._source, self.file, self._part = source, file, part

    def __iter__(self) -> Iterator[ModelInput]:
        for sample in self.samples():
            yield self._encode(sample)

    def __len__(self) -> int:
        return self._length

    @cached_property
    def _length(self) -> int:
        return sum(1 for _ in self.samples())

    @cached_property
    def digest(self) -> str:
        """SHA-256 of the file."""
        total = hashlib.sha256()
        with self.file.open("rb") as stream:
            while block := stream.read(2**20):
                total.update(block)
        return total.hexdigest()

    @cached_property
    def labels(self) -> tuple[int, ...]:
        """Index of each sample's label.

        Raises:
            OperatorError: A line has none, or one that the model does not know.
        """
        return tuple(self._label(number, sample) for number, sample in enumerate(self.samples(), 1))

    def samples(self) -> Iterator[Sample]:
        """Read the file.

        Raises:
            OperatorError: It cannot be read, or has no sample.
        """
        wanted, every = self._part
        index = -1
        try:
            with self.file.open(encoding="utf-8") as stream:
                for index, line in enumerate(filter(str.strip, stream)):
                    if every == 1 or (index % every == 0) == (wanted == 0):
                        before, tab, after = line.rstrip("\r\n").partition("\t")
                        yield Sample(after, before) if tab else Sample(before)
        except (OSError, UnicodeDecodeError) as error:
            raise OperatorError(f"{self.file} cannot be read as UTF-8 text: {error}") from error
        if index < 0:
            raise OperatorError(f"{self.file} has no text; give one a line")

    def spread(self, number: int) -> list[ModelInput]:
        """Return up to `number` samples, evenly spread over the file."""
        chosen = {index * len(self) // number for index in range(number)} if len(self) > number else None
        samples = (sample for index, sample in enumerate(self.samples()) if chosen is None or index in chosen)
        return [self._encode(sample) for sample in samples]

    def split(self, every: int = 5) -> tuple[Dataset, Dataset]:
        """Return all but each `every`-th sample, and those: what is measured on is not what was calibrated on."""
        return Dataset(self._source, self.file, (1, every)), Dataset(self._source, self.file, (0, every))

    def _encode(self, sample: Sample) -> ModelInput:
        if not isinstance(self._source, Source):
            raise OperatorError(f"{self.file} is read as texts, and the model takes none")
        return encode(self._source, sample)

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


def encode(source: Source, sample: Sample) -> ModelInput:
    """Tokenize one sample, cut at MAX_LENGTH tokens."""
    is_pair = source.task == "question-answering" and sample.before_tab is not None
    first, second = (sample.before_tab, sample.text) if is_pair else (sample.text, None)
    encoded = source.tokenizer(
        first, second, truncation=True, max_length=min(source.max_length, MAX_LENGTH), return_tensors="np"
    )
    arrays = {name: np.asarray(encoded[name][0], dtype=np.int64) for name in source.input_names}
    return ModelInput(arrays, len(arrays["input_ids"]))
