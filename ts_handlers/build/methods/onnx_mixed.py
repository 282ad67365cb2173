"""ONNX Runtime, smoothed dynamic INT8 with the worst products kept nearer to fp32, until the gate's limits hold."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import onnx

from ts_handlers.build.engine import Engine, Material, Method
from ts_handlers.build.gate import Quality
from ts_handlers.build.methods.onnx_dynamic import int8_runtime
from ts_handlers.build.methods.onnx_fp32 import graph_details
from ts_handlers.build.methods.onnx_smooth import Smooth, open_int8, prepare
from ts_handlers.build.quantize.blocks import BlockSettings
from ts_handlers.build.quantize.products import Weights, products
from ts_handlers.build.quantize.sensitivity import Layer, search
from ts_handlers.build.steps import step
from ts_handlers.runtime import Session

BLOCKS = BlockSettings(block_size=128)
"""How kept products are computed. Measured on MiniLM's widest three: 0.12 ms a sample more than dynamic INT8, where float
took 0.36 ms more; the mean cosine was 0.99925, in float 0.99932; blocks of 32 took 0.16 ms and gave 0.99928."""

BLOCK_COST, FLOAT_COST = 1.0, 3.0
"""What a multiply-add of a kept product costs over one of dynamic INT8; fused attention is kept in float."""


def make(material: Material, folder: Path) -> Engine:
    """Smooth, then search which products to keep."""
    prepared = prepare(material)
    held_out = prepared.held_out
    path, alone = folder / "candidate.onnx", folder / "alone.onnx"
    with step(material.progress, f"search what to keep from INT8, judged on {len(held_out.judged)} samples"):
        kept = search(
            layers(prepared),
            _judge(path, lambda names: prepared.write(path, names, BLOCKS), held_out.quality),
            material.limits,
            evaluate_alone=_judge(alone, lambda names: prepared.write(alone, names), held_out.first_impression),
            progress=material.progress,
        )
    model = folder / "model.onnx"
    prepared.write(model, kept.names, BLOCKS)
    path.unlink()
    alone.unlink(missing_ok=True)
    quantization = {
        "method": "mixed",
        **prepared.settings.as_dict(),
        **prepared.details,
        "kept": list(kept.names),
        "kept_as": BLOCKS.as_dict(),
        "evaluations": kept.num_evaluations,
        "held_out": kept.quality.as_dict(),
    }
    quantization.pop("float_nodes")
    return Engine(model, int8_runtime(material), details=graph_details(material) | {"quantization": quantization})


def layers(prepared: Smooth) -> list[Layer]:
    """Return the graph's products, each with what it costs to keep it from INT8."""
    model = onnx.load(str(prepared.exact))
    weights = Weights(model.graph)
    return [
        Layer((node.name,), weights[node.input[1]].size * (FLOAT_COST if node.op_type == "Attention" else BLOCK_COST))
        for nodes in products(model).values()
        for node in nodes
    ]


def _judge(
    path: Path, write: Callable[[frozenset[str]], None], judge: Callable[[Session], Quality]
) -> Callable[[frozenset[str]], Quality]:
    """Return what builds and judges a candidate."""

    def evaluate(kept: frozenset[str]) -> Quality:
        write(kept)
        return judge(open_int8(path))

    return evaluate


METHODS = (Method("onnx", "int8", "mixed", make, needs_calibration=True),)
