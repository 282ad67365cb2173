"""ONNX Runtime, fp32: the model as it is, fused."""

from __future__ import annotations

import shutil
from pathlib import Path

from ts_handlers.build import export
from ts_handlers.build.engine import Engine, Material, Method


def make(material: Material, folder: Path) -> Engine:
    """Copy the fused graph."""
    model = folder / "model.onnx"
    shutil.copyfile(material.fused, model)
    return Engine(model, {"backend": "onnx", "precision": "fp32"}, details=graph_details(material))


def graph_details(material: Material) -> dict[str, object]:
    """Say what was made of the model's graph, for the build report."""
    return {"opset": export.OPSET, "fused_operators": dict(material.fused_operators)}


METHODS = (Method("onnx", "fp32", None, make, takes_images=True),)
