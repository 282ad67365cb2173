"""The models of these benchmarks: MiniLM for sentiment, and ResNet, as our archive, and with what it is sent."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from bench.pictures import LARGE, make_pictures
from bench.resnet import ResNet, make_resnet
from bench.sentences import Sentiment, make_sentiment
from bench.sides import JPEG, TEXT, Archive

NUM_PICTURES = 64
NUM_LARGE = 8

_NUM_CALIBRATION = 20
"""Pictures that INT8 is calibrated on: four of five of them, and compared on the others."""

# Weights are random: INT8 changes answers more than it would a trained model's.
_UNJUDGED = ("--tolerance", "0.5", "--min-mean-cosine", "0", "--min-cosine", "0")
PRECISIONS: Mapping[str, Sequence[str]] = {
    "fp32": ("--precision", "fp32"),
    "bf16": ("--precision", "bf16", "--backend", "torch", "--tolerance", "0.5"),
    "int8": ("--precision", "int8", "--quantizer", "static-percentile", *_UNJUDGED),
}
"""Of the ResNet -> options of its build."""


@dataclass(frozen=True, slots=True)
class Texts:
    """MiniLM for sentiment.

    Attributes:
        work_dir: Where its files go.
        model: The model and its data.
    """

    work_dir: Path
    model: Sentiment

    @property
    def payloads(self) -> Path:
        """What it is sent."""
        return self.model.payloads

    @property
    def probes(self) -> list[tuple[bytes, str]]:
        """Some of them, as bodies."""
        return [(line.encode(), TEXT) for line in self.payloads.read_text(encoding="utf-8").split("\n")[:60]]

    def archive(self, name: str, *options: str | Path) -> Archive:
        """Return our archive of it, by these options of `ts-handlers build`."""
        words = (self.model.model, "--task", "text-classification", *options)
        return Archive(self.work_dir / f"ours-{name}", name, words)


@dataclass(frozen=True, slots=True)
class Images:
    """A ResNet.

    Attributes:
        work_dir: Where its files go.
        files: The model.
        pictures: Of usual size: INT8 is calibrated on them.
        payloads: What it is sent.
    """

    work_dir: Path
    files: ResNet
    pictures: Path
    payloads: Path

    @property
    def probes(self) -> list[tuple[bytes, str]]:
        """Some pictures, as bodies."""
        return [(file.read_bytes(), JPEG) for file in sorted(self.pictures.iterdir())[:10]]

    def archive(self, precision: str) -> Archive:
        """Return our archive of it."""
        files, name = self.files, f"{self.files.weights.parent.name}-{precision}"
        words: list[str | Path] = [files.weights, "--model-file", files.model_file, "--labels", files.labels]
        words += ["--preprocessor", files.preprocessor, "--task", "image-classification", *PRECISIONS[precision]]
        if precision == "int8":
            words += ["--calibration", make_pictures(self.work_dir / "pictures-calibration", _NUM_CALIBRATION)]
        return Archive(self.work_dir / f"ours-{name}", "resnet", words)


def make_texts(work_dir: Path) -> Texts:
    """Make what the text model needs."""
    return Texts(work_dir, make_sentiment(work_dir))


def make_images(work_dir: Path, num_layers: int, *, is_large: bool = False) -> Images:
    """Make what a ResNet needs; large: it is sent pictures of 12 megapixels."""
    pictures = make_pictures(work_dir / "pictures", NUM_PICTURES)
    large = make_pictures(work_dir / "pictures-large", NUM_LARGE, sizes=LARGE) if is_large else pictures
    return Images(work_dir, make_resnet(work_dir, pictures, num_layers), pictures, large)


@dataclass(frozen=True, slots=True)
class Subject:
    """A model of the benchmarks that take both: MiniLM, or ResNet-50 in fp32.

    Attributes:
        archive: Ours.
        payloads: What it is sent.
        files: What a stock handler serves.
    """

    archive: Archive
    payloads: Path
    files: Path | ResNet


SUBJECTS = ("minilm", "resnet")


def make_subject(name: str, work_dir: Path, precision: str) -> Subject:
    """Make one of SUBJECTS; the precision is MiniLM's."""
    if name == "minilm":
        texts = make_texts(work_dir)
        return Subject(texts.archive("minilm", "--precision", precision), texts.payloads, texts.model.model)
    images = make_images(work_dir, 50)
    return Subject(images.archive("fp32"), images.payloads, images.files)
