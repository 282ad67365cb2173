"""ONNX Runtime: the fused graph in fp32, in fp16 (for GPUs), or with 8-bit weights; `smooth` has the better INT8."""

from __future__ import annotations

import shutil
from functools import partial
from pathlib import Path
from typing import Any

import onnx
from onnxruntime.transformers.float16 import convert_float_to_float16

from ts_handlers.build import export
from ts_handlers.build.engine import Engine, Material, Method
from ts_handlers.build.methods.feeds import feeds
from ts_handlers.build.quantize.attention import split_attention
from ts_handlers.build.quantize.blocks import BLOCK_SIZE, quantize_blocks
from ts_handlers.build.quantize.int8 import CalibrationMethod, quantize_dynamic, quantize_static
from ts_handlers.build.steps import step
from ts_handlers.errors import OperatorError


def make_fp32(material: Material, folder: Path) -> Engine:
    """Copy the fused graph."""
    model = folder / "model.onnx"
    shutil.copyfile(material.fused, model)
    return Engine(model, {"backend": "onnx", "precision": "fp32"}, details=graph_details(material))


def make_fp16(material: Material, folder: Path) -> Engine:
    """Convert the fused graph; inputs and outputs stay fp32. On a CPU it is right, and slower than fp32."""
    fused, model = material.fused, folder / "model.onnx"
    with step(material.progress, "convert to fp16"):
        onnx.save(convert_float_to_float16(onnx.load(str(fused)), keep_io_types=True), str(model))
    return Engine(model, {"backend": "onnx", "precision": "fp16"}, details=graph_details(material))


def make_dynamic(material: Material, folder: Path) -> Engine:
    """Quantize the weights of the fused graph; activations are quantized per call."""
    fused, model = material.fused, folder / "model.onnx"
    reduce_range = not material.target.has_vnni
    with step(material.progress, "quantize to INT8"):
        quantize_dynamic(onnx.load(str(fused)), model, reduce_range=reduce_range)
    return int8_engine(material, model, method="dynamic", reduce_range=reduce_range)


def make_static(material: Material, folder: Path, *, method: CalibrationMethod) -> Engine:
    """Measure the activations of the fused graph and quantize its products, or a network's convolutions."""
    dataset = material.calibrated()
    graph, model = onnx.load(str(material.fused)), folder / "model.onnx"
    split_attention(graph)
    reduce_range, is_signed = not material.target.has_vnni, material.target.is_arm
    with step(material.progress, f"calibrate on {len(dataset)} samples ({method}) and quantize to INT8"):
        read = feeds(dataset, material.model_source)
        done = quantize_static(graph, model, read, method=method, reduce_range=reduce_range, is_signed=is_signed)
    activations = "int8" if is_signed else "uint8"
    calibration = {"calibration": method, "activations": activations, "reduce_range": reduce_range}
    return int8_engine(material, model, method="static", **calibration, **done)


def make_blocks(material: Material, folder: Path) -> Engine:
    """Quantize weights block by block: nearest to fp32 of the INT8 engines, and less fast."""
    graph, model = onnx.load(str(material.fused)), folder / "model.onnx"
    split_attention(graph)
    with step(material.progress, "quantize weights in blocks"):
        num_products = quantize_blocks(graph)
    if not num_products:
        raise OperatorError("there is nothing to quantize: no matrix product has fixed weights")
    onnx.save(graph, str(model))
    return int8_engine(material, model, method="blocks", block_size=BLOCK_SIZE, quantized_nodes=num_products)


def int8_engine(material: Material, model: Path, **quantization: Any) -> Engine:
    """Return the engine of an INT8 graph: the worker compares target_cpu with its own CPU."""
    runtime = {"backend": "onnx", "precision": "int8", "target_cpu": material.target.name}
    return Engine(model, runtime, details=graph_details(material) | {"quantization": quantization})


def graph_details(material: Material) -> dict[str, object]:
    """Say what was made of the model's graph, for the build report."""
    return {"opset": export.OPSET, "fused_operators": dict(material.fused_operators)}


FLOATS = (
    Method("onnx", "fp32", None, make_fp32, takes_images=True),
    Method("onnx", "fp16", None, make_fp16, is_automatic=False, takes_images=True),
)
DYNAMIC = Method("onnx", "int8", "dynamic", make_dynamic, takes_images=True)
BLOCKS = Method("onnx", "int8", "blocks", make_blocks)

_AUTOMATIC: dict[CalibrationMethod, bool] = {"percentile": True, "minmax": False, "entropy": False}
"""Calibration method -> whether `--precision auto` tries it: one of them, or a build would take three times as long."""

STATIC = tuple(
    Method(
        "onnx",
        "int8",
        f"static-{method}",
        partial(make_static, method=method),
        needs_calibration=True,
        takes_images=True,
        is_automatic=is_automatic,
    )
    for method, is_automatic in _AUTOMATIC.items()
)
