"""Unpacked archives, made by the build's own steps without the archiver and the fresh process."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tests.image_models import write_image_model
from tests.models import MINILM, write_model
from tests.pictures import encode, scene
from ts_handlers.build import archive, inputs
from ts_handlers.build.engine import Material
from ts_handlers.build.methods.catalogue import candidates
from ts_handlers.build.request import BuildRequest
from ts_handlers.build.samples import SAMPLE_TEXTS
from ts_handlers.build.sections import handler_section, source_section
from ts_handlers.build.target import target_cpu

TASK_OF = {
    "minilm": "feature-extraction",
    "sentiment": "text-classification",
    "topics": "text-classification",
    "entities": "token-classification",
    "answers": "question-answering",
    "tiny-roberta": "token-classification",
    "tiny-roberta-answers": "question-answering",
    "tiny-distilbert": "text-classification",
    "tiny-electra": "text-classification",
    "tiny-mpnet": "feature-extraction",
    "tiny-vit": "image-classification",
    "tiny-resnet": "image-classification",
    "tiny-detr": "object-detection",
    "tiny-yolos": "object-detection",
    "tiny-segformer": "image-segmentation",
}
"""Task of each checkpoint of `tests.models`, and of MiniLM itself."""

KINDS = ("sentiment", "minilm", "entities", "answers")
"""One checkpoint for each task."""

TINY_KINDS = ("tiny-distilbert", "tiny-mpnet", "tiny-roberta", "tiny-roberta-answers")
"""The same at random weights, quick to build, for texts of less than 100 characters."""


IMAGE_KINDS = ("tiny-vit", "tiny-resnet", "tiny-detr", "tiny-yolos", "tiny-segformer")
"""Checkpoints of images."""


class ModelDirs:
    """Checkpoints and unpacked archives by what they are made of, each made once a session."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def checkpoint(self, kind: str) -> Path:
        """Return the Hugging Face folder of a kind."""
        if kind == "minilm":
            return Path(MINILM)
        folder = self._root / "checkpoints" / kind
        if not folder.exists():
            write_image_model(kind, folder) if kind in IMAGE_KINDS else write_model(kind, folder)
        return folder

    def get(
        self,
        kind: str,
        *,
        precision: str = "fp32",
        backend: str = "onnx",
        quantizer: str | None = None,
        form: str | None = None,
        settings: Mapping[str, Any] | None = None,
    ) -> Path:
        """Return the unpacked archive of a kind."""
        folder = self._root / f"{kind}-{backend}-{precision}-{quantizer}-{form}-{len(settings or {})}"
        if folder.exists() and not settings:
            return folder
        folder.mkdir(parents=True, exist_ok=True)
        calibration = _write_calibration(kind, folder)
        request = BuildRequest(
            source=str(self.checkpoint(kind)),
            task=TASK_OF[kind],
            name=kind,
            version="1.0",
            output=folder,
            precision=precision,
            backend=backend,
            quantizer=quantizer,
            form=form,
            calibration=calibration,
            settings=settings or {},
        )
        with tempfile.TemporaryDirectory() as work:
            source = inputs.load(request, Path(work))
            dataset = inputs.open_dataset(source, calibration)
            material = Material(source, Path(work), target_cpu(request.target_cpu), dataset, progress=lambda _: None)
            engine = candidates(request).methods[0].make(material, folder)
        source.write_files(folder)
        archive.write_labels(source, folder)
        archive.write_model_config(handler_section(request, source_section(request, source), engine), folder)
        (folder / "serialized-file.txt").write_text(engine.serialized_file.name, encoding="utf-8")
        return folder


def _write_calibration(kind: str, folder: Path) -> Path:
    if kind not in IMAGE_KINDS:
        file = folder / "calibration.txt"
        is_labelled = TASK_OF[kind] == "text-classification"  # for the methods that want labels; any will do
        lines = [f"{index % 2}\t{text[:100]}" if is_labelled else text[:100] for index, text in enumerate(SAMPLE_TEXTS)]
        file.write_text("\n".join(lines), encoding="utf-8")
        return file
    pictures = folder / "calibration"
    pictures.mkdir(exist_ok=True)
    for seed in range(8):
        (pictures / f"{seed}.png").write_bytes(encode(scene(80 + 8 * seed, 120, seed), "PNG"))
    return pictures


def serialized_file(folder: Path) -> str:
    """Return the name of the model file of an unpacked archive."""
    return (folder / "serialized-file.txt").read_text(encoding="utf-8")
