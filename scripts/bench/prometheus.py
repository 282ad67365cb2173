"""The text a Prometheus endpoint answers with, read: https://prometheus.io/docs/instrumenting/exposition_formats/."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from bench.process import BenchError

_SAMPLE = re.compile(r"(?P<name>[a-zA-Z_:][\w:]*)(?:\{(?P<labels>.*)\})?\s+(?P<value>\S+)(?:\s+-?\d+)?")
_LABEL = re.compile(r'([a-zA-Z_]\w*)="((?:[^"\\]|\\.)*)"')
_ESCAPES = {"\\\\": "\\", '\\"': '"', "\\n": "\n"}


@dataclass(frozen=True, slots=True)
class Sample:
    """One line: a value of one time series."""

    name: str
    labels: tuple[tuple[str, str], ...]
    value: float


def parse_samples(text: str) -> list[Sample]:
    """Return the samples; comments and blank lines are skipped.

    Raises:
        BenchError: A line is of another form.
    """
    samples = []
    for line in text.splitlines():
        if not line.strip() or line.startswith("#"):
            continue
        match = _SAMPLE.fullmatch(line.strip())
        if match is None:
            raise BenchError(f"{line!r} is no line of Prometheus' text format; is this the address of the metrics?")
        labels = tuple((name, _unescape(value)) for name, value in _LABEL.findall(match["labels"] or ""))
        samples.append(Sample(match["name"], labels, float(match["value"])))
    return samples


def total(samples: Iterable[Sample], name: str) -> float:
    """Return the sum of a metric over all its time series; 0 where there is none yet."""
    return sum(sample.value for sample in samples if sample.name == name)


def _unescape(value: str) -> str:
    return re.sub(r"\\.", lambda match: _ESCAPES.get(match[0], match[0]), value)
