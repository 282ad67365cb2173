"""Unpacked archives, made by the build's own steps without the archiver and the fresh process."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tests.models import MINILM, write_model
from ts_handlers.build import archive
from ts_handlers.build.pipeline import BuildRequest, make_engine, make_handler_section
from ts_handlers.build.source import load_source

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
}
"""Task of each checkpoint of `tests.models`, and of MiniLM itself."""

KINDS = ("sentiment", "minilm", "entities", "answers")
"""One checkpoint for each task."""

TINY_KINDS = ("tiny-distilbert", "tiny-mpnet", "tiny-roberta", "tiny-roberta-answers")
"""The same at random weights, quick to build, for texts of less than 100 characters."""


class ModelDirs:
    """Checkpoints and unpacked archives by what they are made of, each made once a session."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def checkpoint(self, kind: str) -> Path:
        """Return the Hugging Face folder of a kind."""
        if kind == "minilm":
            return Path(MINILM)
        folder = self._root / "checkpoints" / kind
        return folder if folder.exists() else write_model(kind, folder)

    def get(
        self, kind: str, *, precision: str = "fp32", backend: str = "onnx", settings: Mapping[str, Any] | None = None
    ) -> Path:
        """Return the unpacked archive of a kind."""
        folder = self._root / f"{kind}-{backend}-{precision}-{len(settings or {})}"
        if folder.exists() and not settings:
            return folder
        folder.mkdir(parents=True, exist_ok=True)
        request = BuildRequest(
            source=str(self.checkpoint(kind)),
            task=TASK_OF[kind],
            name=kind,
            version="1.0",
            output=folder,
            precision=precision,
            backend=backend,
            settings=settings or {},
        )
        source = load_source(request.source, request.task)
        engine = make_engine(request, source, folder, progress=lambda _: None)
        for file in (engine.serialized_file, *engine.extra_files):
            file.replace(folder / file.name)
        archive.write_tokenizer(source, folder)
        archive.write_labels(source, folder)
        archive.write_model_config(make_handler_section(request, source), folder)
        return folder


def serialized_file(backend: str) -> str:
    """Return the name of the model file of a backend's archive."""
    return "model.onnx" if backend == "onnx" else "model.safetensors"
