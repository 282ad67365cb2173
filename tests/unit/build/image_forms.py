"""A small model of images in every form a user may have it in."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from ts_handlers.build import inputs
from ts_handlers.build.request import BuildRequest
from ts_handlers.build.sources.images import ImageSource

PREPROCESSOR = {
    "size": {"height": 16, "width": 24},
    "image_mean": [0.5, 0.5, 0.5],
    "image_std": [0.5, 0.5, 0.5],
}
LABELS = ("red", "green", "blue", "red")

MODEL_FILE = """
import torch


class Tiny(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = torch.nn.Conv2d(3, 8, 3, stride=2)
        self.head = torch.nn.Linear(8, 4)

    def forward(self, x):
        return self.head(self.conv(x).relu().mean((2, 3)) * 4)
"""


def tiny() -> torch.nn.Module:
    torch.manual_seed(3)
    names: dict[str, Any] = {}
    exec(MODEL_FILE, names)  # noqa: S102  # our own text, above
    module: torch.nn.Module = names["Tiny"]()
    return module.eval()


def write_onnx(path: Path, module: torch.nn.Module, shape: tuple[int, ...], **options: Any) -> Path:
    torch.onnx.export(module, (torch.rand(shape),), str(path), dynamo=False, opset_version=17, **options)
    return path


class Nhwc(torch.nn.Module):
    def __init__(self, module: torch.nn.Module, *, softmax: bool = False) -> None:
        super().__init__()
        self.module, self.softmax = module, softmax

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.module(x.permute(0, 3, 1, 2))
        return torch.softmax(logits, -1) if self.softmax else logits


def make_state_dict(folder: Path) -> Path:
    torch.save(tiny().state_dict(), folder / "tiny.pt")
    return folder / "tiny.pt"


def make_script(folder: Path) -> Path:
    script: Any = torch.jit.trace(tiny(), torch.rand(2, 3, 16, 24))  # type: ignore[no-untyped-call]
    script.save(str(folder / "tiny_script.pt"))
    return folder / "tiny_script.pt"


def make_exported(folder: Path) -> Path:
    batch = torch.export.Dim("batch", min=1, max=64)
    program = torch.export.export(tiny(), (torch.rand(2, 3, 16, 24),), dynamic_shapes={"x": {0: batch}})
    torch.export.save(program, folder / "tiny.pt2")
    return folder / "tiny.pt2"


def make_onnx(folder: Path) -> Path:
    return write_onnx(folder / "tiny.onnx", tiny(), (2, 3, 16, 24), input_names=["x"], dynamic_axes={"x": {0: "n"}})


def make_nhwc(folder: Path) -> Path:
    axes = {"x": {0: "n"}}
    return write_onnx(
        folder / "nhwc.onnx", Nhwc(tiny(), softmax=True), (2, 16, 24, 3), input_names=["x"], dynamic_axes=axes
    )


def make_fixed(folder: Path) -> Path:
    return write_onnx(folder / "fixed.onnx", tiny(), (1, 3, 16, 24))


FORMS: dict[str, Callable[[Path], Path]] = {
    "state_dict": make_state_dict,
    "script": make_script,
    "exported": make_exported,
    "onnx": make_onnx,
    "nhwc": make_nhwc,
    "fixed": make_fixed,
}


def request_for(source: Path, given: Path, task: str = "image-classification", **changes: Any) -> BuildRequest:
    settings = {"labels": given / "labels.txt", "precision": "fp32", "backend": "onnx", **changes}
    if source.name == "tiny.pt":
        settings.setdefault("model_file", given / "model.py")
    return BuildRequest(str(source), task, "m", "1.0", given / "out", **settings)


def load(source: Path, given: Path, task: str = "image-classification", **changes: Any) -> ImageSource:
    work = given / "work"
    work.mkdir(exist_ok=True)
    found = inputs.load(request_for(source, given, task, **changes), work)
    assert isinstance(found, ImageSource)
    return found
