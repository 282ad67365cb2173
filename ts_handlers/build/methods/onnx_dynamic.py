"""ONNX Runtime, dynamic INT8: weights quantized once, here; activations at run time, per call."""

from __future__ import annotations

from pathlib import Path

from ts_handlers.build.engine import Engine, Material, Method
from ts_handlers.build.methods.onnx_fp32 import graph_details
from ts_handlers.build.quantize.dynamic import DynamicSettings, quantize_dynamic
from ts_handlers.build.steps import step


def make(material: Material, folder: Path) -> Engine:
    """Quantize the weights of the fused graph."""
    settings = DynamicSettings(reduce_range=not material.target.has_vnni)
    fused, model = material.fused, folder / "model.onnx"
    with step(material.progress, "quantize to INT8"):
        quantize_dynamic(fused, model, settings)
    details = graph_details(material) | {"quantization": {"method": "dynamic", **settings.as_dict()}}
    return Engine(model, int8_runtime(material), details=details)


def int8_runtime(material: Material) -> dict[str, str]:
    """Return `handler.runtime` of an INT8 graph: the worker compares target_cpu with its own CPU."""
    return {"backend": "onnx", "precision": "int8", "target_cpu": material.target.name}


METHODS = (Method("onnx", "int8", "dynamic", make, takes_images=True),)
