"""ONNX Runtime, dynamic INT8 of smoothed activations, with weights rounded for the activations they meet.

`mixed` also keeps the worst products nearer to fp32, until the gate's limits hold.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import onnx

from ts_handlers.build.engine import Engine, Material, Method
from ts_handlers.build.held_out import HeldOut, open_on_one_thread
from ts_handlers.build.methods.feeds import feeds
from ts_handlers.build.methods.onnx import int8_engine
from ts_handlers.build.quantize.blocks import quantize_blocks
from ts_handlers.build.quantize.graph import Feeds, Floats, Weights, measure_maxima, measure_moments, products
from ts_handlers.build.quantize.int8 import quantize_dynamic
from ts_handlers.build.quantize.rounding import LEVELS, REDUCED_LEVELS, round_weights
from ts_handlers.build.quantize.sensitivity import Layer, search
from ts_handlers.build.quantize.smooth import smooth
from ts_handlers.build.steps import step
from ts_handlers.errors import OperatorError
from ts_handlers.runtime import Session

ALPHAS = (None, 0.5, 0.6, 0.7, 0.8, 0.9)
"""How much of the activations' difficulty the weights may take; None leaves both as they are."""

KEPT_BLOCK_SIZE = 128
"""Kept products have 8-bit weights in blocks. Measured on MiniLM's widest three: 0.12 ms a sample more than dynamic INT8,
where float took 0.36 ms more; the mean cosine was 0.99925, in float 0.99932; blocks of 32 took 0.16 ms and gave 0.99928."""

BLOCK_COST, FLOAT_COST = 1.0, 3.0
"""What a multiply-add of a kept product costs over one of dynamic INT8; fused attention is kept in float."""


@dataclass(frozen=True, slots=True)
class Smooth:
    """A graph that is ready for dynamic quantization, shared by methods.

    Attributes:
        exact: The smoothed graph in fp32; its weights are as exact as they were.
        rounded: The same with weights on values that INT8 has.
        reduce_range: Whether weights have 7 bits.
        held_out: The samples it was made by, and those to judge by.
        details: What was done, for the build report.
    """

    exact: Path
    rounded: Path
    reduce_range: bool
    held_out: HeldOut
    details: Mapping[str, Any]

    def write(self, path: Path, kept: Collection[str] = (), *, in_blocks: bool = False) -> None:
        """Write the quantized graph.

        Args:
            path: Where to.
            kept: Names of products that are left in float.
            in_blocks: Whether matrix products among them are quantized block by block instead.
        """
        model = onnx.load(str(self.rounded))
        if kept:
            weights, exact = Weights(model.graph), Weights(onnx.load(str(self.exact)).graph)
            for node in model.graph.node:
                if node.name in kept:
                    weights[node.input[1]] = exact[node.input[1]]
        quantize_dynamic(model, path, reduce_range=self.reduce_range, in_float=kept)
        if kept and in_blocks:
            mixed = onnx.load(str(path))
            quantize_blocks(mixed, KEPT_BLOCK_SIZE, kept)
            onnx.save(mixed, str(path))

    def layers(self) -> list[Layer]:
        """Return the graph's products, each with what it costs to keep it from INT8."""
        model = onnx.load(str(self.exact))
        weights = Weights(model.graph)
        return [
            Layer(
                (node.name,), weights[node.input[1]].size * (FLOAT_COST if node.op_type == "Attention" else BLOCK_COST)
            )
            for nodes in products(model).values()
            for node in nodes
        ]


def make_smooth(material: Material, folder: Path) -> Engine:
    """Smooth the fused graph, round its weights and quantize it."""
    prepared = prepare(material)
    model = folder / "model.onnx"
    with step(material.progress, "quantize to INT8"):
        prepared.write(model)
    return int8_engine(material, model, method="smooth", **prepared.details)


def make_mixed(material: Material, folder: Path) -> Engine:
    """Smooth, then search which products to keep."""
    prepared = prepare(material)
    held_out, path, model = prepared.held_out, folder / "candidate.onnx", folder / "model.onnx"

    def candidate(kept: Collection[str], *, in_blocks: bool = False) -> Session:
        prepared.write(path, kept, in_blocks=in_blocks)
        return _open_int8(path)

    with step(material.progress, f"search what to keep from INT8, judged on {len(held_out.judged)} samples"):
        kept, quality = search(
            prepared.layers(),
            lambda names: held_out.quality(candidate(names, in_blocks=True)),
            material.limits,
            evaluate_alone=lambda names: held_out.first_impression(candidate(names)),
            progress=material.progress,
        )
    prepared.write(model, kept, in_blocks=True)
    path.unlink()
    found = {"kept": list(kept), "kept_block_size": KEPT_BLOCK_SIZE, "held_out": quality.as_dict()}
    return int8_engine(material, model, method="mixed", **prepared.details, **found)


def prepare(material: Material, graph: Literal["fused", "exported"] = "fused") -> Smooth:
    """Smooth a graph by the best of ALPHAS, and round its weights; once for all methods.

    Args:
        material: What engines are made from.
        graph: Which of its graphs: the fused one for ONNX Runtime, the exported one for other engines.

    Raises:
        OperatorError: No matrix product has fixed weights, or the fp32 model fails or overflows on a sample.
    """
    return material.shared(f"smooth-{graph}", lambda: _prepare(material, graph))


def _prepare(material: Material, graph: Literal["fused", "exported"]) -> Smooth:
    reduce_range = not material.target.has_vnni
    held_out = HeldOut(material)
    model = onnx.load(str(material.fused if graph == "fused" else material.exported))
    num_products = sum(map(len, products(model).values()))
    if not num_products:
        raise OperatorError("there is nothing to quantize: no matrix product has fixed weights")
    folder = material.work / f"smooth-{graph}"
    folder.mkdir(exist_ok=True)
    read: Feeds = partial(feeds, held_out.measured, material.source)
    with step(material.progress, f"measure activations on {len(held_out.measured)} samples and smooth them"):
        maxima = measure_maxima(model, read, folder)
        model, alpha, done = _smoothed(model, maxima, held_out, folder / "candidate.onnx", reduce_range=reduce_range)
    exact, rounded = folder / "exact.onnx", folder / "rounded.onnx"
    onnx.save(model, str(exact))
    with step(material.progress, f"round the weights of {num_products} products"):
        weights, sharing = Weights(model.graph), products(model)
        for activation, moments in measure_moments(onnx.load(str(exact)), read, folder):
            for node in sharing[activation]:
                levels = REDUCED_LEVELS if reduce_range else LEVELS
                weights[node.input[1]] = round_weights(weights[node.input[1]], moments, levels)
    onnx.save(model, str(rounded))
    details = {
        "reduce_range": reduce_range,
        "alpha": alpha,
        **done,
        "rounded_nodes": num_products,
        "calibration_samples": len(held_out.measured),
        "held_out_samples": len(held_out.judged),
    }
    return Smooth(exact, rounded, reduce_range, held_out, details)


def _smoothed(
    model: onnx.ModelProto, maxima: Mapping[str, Floats], held_out: HeldOut, path: Path, *, reduce_range: bool
) -> tuple[onnx.ModelProto, float | None, dict[str, int]]:
    """Return the graph smoothed by the alpha whose dynamic INT8 is nearest to fp32, that alpha, and what was done."""

    def by(alpha: float | None) -> tuple[onnx.ModelProto, dict[str, int]]:
        copy = onnx.ModelProto()
        copy.CopyFrom(model)
        if alpha is None:
            return copy, {}
        num_folded, num_inserted = smooth(copy, maxima, alpha)
        return copy, {"smoothed_for_free": num_folded, "smoothed_by_mul": num_inserted}

    def cosine(alpha: float | None) -> float:
        quantize_dynamic(by(alpha)[0], path, reduce_range=reduce_range)
        return held_out.first_impression(_open_int8(path)).mean_cosine

    best = max(ALPHAS, key=cosine)
    path.unlink()
    smoothed, done = by(best)
    return smoothed, best, done


def _open_int8(path: Path) -> Session:
    """Open a candidate; it is not asked again for each whether this is the CPU that will serve."""
    return open_on_one_thread(path, {"backend": "onnx", "precision": "int8"})


METHODS = (
    Method("onnx", "int8", "smooth", make_smooth, needs_calibration=True),
    Method("onnx", "int8", "mixed", make_mixed, needs_calibration=True),
)
