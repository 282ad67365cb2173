"""From a file with a model to a handler that answers, by the build's own steps without the archiver."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch

import ts_handlers
from tests.pictures import encode
from tests.unit.build.image_forms import request_for
from ts_handlers.build import archive, inputs
from ts_handlers.build.engine import Material
from ts_handlers.build.methods.catalogue import find_method
from ts_handlers.build.sections import handler_section, source_section
from ts_handlers.build.target import TARGETS
from ts_handlers.config.tasks import TASKS
from ts_handlers.testing import load_handler, predict

HEIGHT, WIDTH = 16, 24
PLAIN = {"size": {"height": HEIGHT, "width": WIDTH}, "do_normalize": False}
LEVELS = np.random.default_rng(4).integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8)
PICTURE = encode(LEVELS, "PNG")
PIXELS = torch.from_numpy(LEVELS.transpose(2, 0, 1)[None].astype(np.float32) / 255)
NAMES = ("a", "b", "c")


class Served(NamedTuple):
    """A handler, and what the build said of its model."""

    handler: Any
    said: list[str]

    def ask(self, *contents: bytes) -> list[Any]:
        """Return the responses to pictures; by default to one."""
        return predict(self.handler, *(contents or (PICTURE,)))

    def answer(self, content: bytes = PICTURE) -> Any:
        """Return the answer to a picture, which is 200, alone and beside another."""
        responses = predict(self.handler, content, content)
        assert [response.status for response in responses] == [200, 200]
        first, second = (response.json() for response in responses)
        are_scores = isinstance(first, dict) and "mask" not in first
        assert second == (pytest.approx(first, abs=1e-5) if are_scores else first)
        return first


def serve(
    path: Path,
    given: Path,
    task: str = "image-classification",
    *,
    names: tuple[str, ...] | None = NAMES,
    **changes: Any,
) -> Served:
    """Build a model, and load its handler."""
    (given / "preprocessor_config.json").write_text(json.dumps(changes.pop("preprocessor_config", PLAIN)))
    labels = given / "names.txt"
    labels.write_text("\n".join(names or ()))
    request = request_for(path, given, task, labels=labels if names else None, **changes)
    said: list[str] = []
    work = given / "work"
    shutil.rmtree(work, ignore_errors=True)
    folder = work / "archive"
    folder.mkdir(parents=True)
    source = inputs.load(request, work, said.append)
    material = Material(source, work, TARGETS["avx2"], progress=lambda _: None)
    engine = find_method(request.backend, request.precision, request.quantizer).make(material, folder)
    section = handler_section(request, source_section(request, source), engine)
    source.write_files(folder)
    archive.write_labels(source, folder)
    model = {"modelName": "m", "serializedFile": engine.serialized_file.name}
    if engine.model_file is not None:
        model["modelFile"] = engine.model_file.name
    (folder / "MAR-INF").mkdir()
    (folder / "MAR-INF" / "MANIFEST.json").write_text(json.dumps({"model": model}))
    handler_class = getattr(ts_handlers, TASKS[task].handler)
    return Served(load_handler(handler_class, folder, {"handler": {**section, "cpu": {"threads": 1}}}), said)


class Classifier(torch.nn.Module):
    """Three numbers of a picture, and what is made of them."""

    def __init__(self, tail: Callable[[torch.Tensor], Any] = lambda logits: logits, labels: int = 3) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.head = torch.nn.Linear(18, labels)
        self.head.weight.data *= 8
        self.tail = tail

    def logits(self, x: torch.Tensor) -> torch.Tensor:
        found: torch.Tensor = self.head(torch.nn.functional.avg_pool2d(x, 8).flatten(1))
        return found

    def forward(self, x: torch.Tensor) -> Any:
        return self.tail(self.logits(x))


class Segmenter(torch.nn.Module):
    """A number of each label for each pixel, and what is made of them."""

    def __init__(self, tail: Callable[[torch.Tensor], Any] = lambda logits: logits, labels: int = 3) -> None:
        super().__init__()
        torch.manual_seed(2)
        self.conv = torch.nn.Conv2d(3, labels, 3, padding=1)
        self.conv.weight.data *= 3
        self.tail = tail

    def forward(self, x: torch.Tensor) -> Any:
        return self.tail(self.conv(x))


def write_onnx(folder: Path, module: torch.nn.Module, example: torch.Tensor | None = None, **options: Any) -> Path:
    """Export a module with a dynamic batch."""
    path = folder / "model.onnx"
    options = {"dynamic_axes": {"x": {0: "n"}}, **options}
    given = PIXELS.repeat(2, 1, 1, 1) if example is None else example
    torch.onnx.export(module.eval(), (given,), str(path), dynamo=False, opset_version=17, input_names=["x"], **options)
    return path


def write_script(folder: Path, module: torch.nn.Module, example: torch.Tensor | None = None) -> Path:
    """Trace a module."""
    path = folder / "model.pt"
    given = PIXELS.repeat(2, 1, 1, 1) if example is None else example
    script: Any = torch.jit.trace(module.eval(), given, strict=False)  # type: ignore[no-untyped-call]
    script.save(str(path))
    return path


def write_exported(folder: Path, module: torch.nn.Module, example: torch.Tensor | None = None) -> Path:
    """Export a module by torch.export; with an example of one row for one row alone."""
    path = folder / "model.pt2"
    given = PIXELS.repeat(2, 1, 1, 1) if example is None else example
    shapes = ({0: torch.export.Dim("batch", min=1, max=64)},) if len(given) > 1 else None
    torch.export.save(torch.export.export(module.eval(), (given,), dynamic_shapes=shapes), path)
    return path


WRITERS: dict[str, tuple[Callable[..., Path], str]] = {
    "onnx": (write_onnx, "onnx"),
    "script": (write_script, "onnx"),
    "script in torch": (write_script, "torch"),
    "exported": (write_exported, "onnx"),
    "exported in torch": (write_exported, "torch"),
}
"""Form -> what writes a module so, and the backend that serves it."""
