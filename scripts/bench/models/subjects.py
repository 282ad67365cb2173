"""The models of these benchmarks, MiniLM for sentiment and ResNet: our archives of them, and what they are sent."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from bench.models.pictures import LARGE, make_pictures
from bench.models.resnet import ResNet, make_resnet
from bench.models.sentences import make_sentiment
from bench.ours import JPEG, TEXT, Archive

SUBJECTS = ("minilm", "resnet")
NUM_PROBES = {TEXT: 60, JPEG: 10}

# Weights are random: INT8 changes answers more than it would a trained model's.
_UNJUDGED = ("--tolerance", "0.5", "--min-mean-cosine", "0", "--min-cosine", "0")
PRECISIONS: Mapping[str, Sequence[str]] = {
    "fp32": ("--precision", "fp32"),
    "bf16": ("--precision", "bf16", "--backend", "torch", "--tolerance", "0.5"),
    "int8": ("--precision", "int8", "--quantizer", "static-percentile", *_UNJUDGED),
}
"""Of the ResNet -> options of its build."""


@dataclass(frozen=True, slots=True)
class Subject:
    """A model.

    Attributes:
        work_dir: Where its archives go.
        name: What it is served by.
        files: What a stock handler serves.
        source: The source and its options, as `ts-handlers build` takes them.
        payloads: What it is sent: a file of texts, or a folder of pictures.
    """

    work_dir: Path
    name: str
    files: Path | ResNet
    source: Sequence[str | Path]
    payloads: Path

    @property
    def probes(self) -> list[tuple[bytes, str]]:
        """Some payloads, as bodies with their type."""
        if self.payloads.is_dir():
            return [(file.read_bytes(), JPEG) for file in sorted(self.payloads.iterdir())[: NUM_PROBES[JPEG]]]
        lines = self.payloads.read_text(encoding="utf-8").split("\n")
        return [(line.encode(), TEXT) for line in lines[: NUM_PROBES[TEXT]]]

    def archive(self, *options: str | Path) -> Archive:
        """Return our archive by these options of `ts-handlers build`; of pictures, an INT8 one is calibrated on some."""
        if self.payloads.is_dir() and "int8" in options:
            options += ("--calibration", make_pictures(self.work_dir / "pictures-calibration", 20))
        words = "-".join(option for option in options[:4] if isinstance(option, str) and option[:2] != "--")
        return Archive(self.work_dir / f"ours-{self.name}-{words}", self.name, (*self.source, *options))


def make_texts(work_dir: Path) -> Subject:
    """Make what the text model needs."""
    data = make_sentiment(work_dir)
    return Subject(work_dir, "minilm", data.model, (data.model, "--task", "text-classification"), data.payloads)


def make_images(work_dir: Path, num_layers: int = 50, *, is_large: bool = False) -> Subject:
    """Make what a ResNet needs; large: it is sent pictures of 12 megapixels."""
    pictures = make_pictures(work_dir / "pictures", 64)
    files = make_resnet(work_dir, pictures, num_layers)
    payloads = make_pictures(work_dir / "pictures-large", 8, sizes=LARGE) if is_large else pictures
    return Subject(work_dir, f"resnet{num_layers}", files, files.build_options(), payloads)


def make_subject(name: str, work_dir: Path, precision: str) -> tuple[Subject, Archive]:
    """Make one of SUBJECTS and our archive of it: MiniLM in a precision, or ResNet-50 in fp32."""
    subject = make_texts(work_dir) if name == "minilm" else make_images(work_dir)
    return subject, subject.archive("--precision", precision if name == "minilm" else "fp32")
