"""ONNX Runtime, block-wise 8-bit weights: nearest to fp32 of the INT8 engines, and less fast."""

from __future__ import annotations

from pathlib import Path

from ts_handlers.build.engine import Engine, Material, Method
from ts_handlers.build.methods.onnx_dynamic import int8_runtime
from ts_handlers.build.methods.onnx_fp32 import graph_details
from ts_handlers.build.quantize.blocks import BlockSettings, quantize_blocks
from ts_handlers.build.steps import step


def make(material: Material, folder: Path) -> Engine:
    """Quantize the weights of the fused graph."""
    settings = BlockSettings()
    fused, model = material.fused, folder / "model.onnx"
    with step(material.progress, "quantize weights in blocks"):
        num_products = quantize_blocks(fused, model, settings)
    done = {"method": "blocks", **settings.as_dict(), "quantized_nodes": num_products}
    return Engine(model, int8_runtime(material), details=graph_details(material) | {"quantization": done})


METHODS = (Method("onnx", "int8", "blocks", make),)
