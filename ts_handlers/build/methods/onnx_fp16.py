"""ONNX Runtime, fp16: for GPUs. On a CPU such a graph is right, and slower than fp32."""

from __future__ import annotations

from pathlib import Path

import onnx
from onnxruntime.transformers.float16 import convert_float_to_float16

from ts_handlers.build.engine import Engine, Material, Method
from ts_handlers.build.methods.onnx_fp32 import graph_details
from ts_handlers.build.steps import step


def make(material: Material, folder: Path) -> Engine:
    """Convert the fused graph; inputs and outputs stay fp32."""
    fused, model = material.fused, folder / "model.onnx"
    with step(material.progress, "convert to fp16"):
        onnx.save(convert_float_to_float16(onnx.load(str(fused)), keep_io_types=True), str(model))
    return Engine(model, {"backend": "onnx", "precision": "fp16"}, details=graph_details(material))


METHODS = (Method("onnx", "fp16", None, make, is_automatic=False, takes_images=True),)
