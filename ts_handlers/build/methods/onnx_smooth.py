"""ONNX Runtime, dynamic INT8 of smoothed activations, with weights rounded for the activations they meet."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

import onnx

from ts_handlers.build.engine import Engine, Material, Method
from ts_handlers.build.held_out import HeldOut, open_on_one_thread
from ts_handlers.build.methods.onnx_dynamic import int8_runtime
from ts_handlers.build.methods.onnx_fp32 import graph_details
from ts_handlers.build.methods.onnx_static import feeds
from ts_handlers.build.quantize.blocks import BlockSettings, block_products
from ts_handlers.build.quantize.calibration import Feeds
from ts_handlers.build.quantize.dynamic import DynamicSettings, quantize_dynamic
from ts_handlers.build.quantize.products import Floats, Weights, measure_maxima, measure_moments, products
from ts_handlers.build.quantize.rounding import LEVELS, REDUCED_LEVELS, round_weights
from ts_handlers.build.quantize.smooth import smooth
from ts_handlers.build.steps import step
from ts_handlers.errors import OperatorError
from ts_handlers.runtime import Session

ALPHAS = (None, 0.5, 0.6, 0.7, 0.8, 0.9)
"""How much of the activations' difficulty the weights may take; None leaves both as they are."""


@dataclass(frozen=True, slots=True)
class Smooth:
    """A graph that is ready for dynamic quantization, shared by methods.

    Attributes:
        exact: The smoothed graph in fp32; its weights are as exact as they were.
        rounded: The same with weights on values that INT8 has.
        settings: How weights are quantized.
        held_out: The samples it was made by, and those to judge by.
        details: What was done, for the build report.
    """

    exact: Path
    rounded: Path
    settings: DynamicSettings
    held_out: HeldOut
    details: Mapping[str, Any]

    def write(self, path: Path, kept: Collection[str] = (), blocks: BlockSettings | None = None) -> None:
        """Write the quantized graph.

        Args:
            path: Where to.
            kept: Names of products that are left in float.
            blocks: How matrix products among them are quantized instead, block by block; None: not at all.
        """
        model = onnx.load(str(self.rounded))
        if kept:
            weights, exact = Weights(model.graph), Weights(onnx.load(str(self.exact)).graph)
            for node in model.graph.node:
                if node.name in kept:
                    weights[node.input[1]] = exact[node.input[1]]
        _quantize(model, path, replace(self.settings, float_nodes=tuple(sorted(kept))))
        if kept and blocks is not None:
            mixed = onnx.load(str(path))
            block_products(mixed, blocks, kept)
            onnx.save(mixed, str(path))


def make(material: Material, folder: Path) -> Engine:
    """Smooth the fused graph, round its weights and quantize it."""
    prepared = prepare(material)
    model = folder / "model.onnx"
    with step(material.progress, "quantize to INT8"):
        prepared.write(model)
    quantization = {"method": "smooth", **prepared.settings.as_dict(), **prepared.details}
    return Engine(model, int8_runtime(material), details=graph_details(material) | {"quantization": quantization})


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
    settings = DynamicSettings(reduce_range=not material.target.has_vnni)
    held_out = HeldOut(material)
    model = onnx.load(str(material.fused if graph == "fused" else material.exported))
    num_products = sum(map(len, products(model).values()))
    if not num_products:
        raise OperatorError("there is nothing to quantize: no matrix product has fixed weights")
    folder = material.work / f"smooth-{graph}"
    folder.mkdir(exist_ok=True)
    read: Feeds = partial(feeds, held_out.measured, held_out.pad_token_id)
    with step(material.progress, f"measure activations on {len(held_out.measured)} samples and smooth them"):
        maxima = measure_maxima(model, read, folder)
        alpha, done = _smooth_best(model, maxima, held_out, folder, settings)
    exact, rounded = folder / "exact.onnx", folder / "rounded.onnx"
    onnx.save(model, str(exact))
    with step(material.progress, f"round the weights of {num_products} products"):
        _round(model, read, folder, REDUCED_LEVELS if settings.reduce_range else LEVELS)
    onnx.save(model, str(rounded))
    details = {
        "alpha": alpha,
        **done,
        "rounded_nodes": num_products,
        "calibration_samples": len(held_out.measured),
        "held_out_samples": len(held_out.judged),
    }
    return Smooth(exact, rounded, settings, held_out, details)


def open_int8(path: Path) -> Session:
    """Open a candidate; it is not asked again for each whether this is the CPU that will serve."""
    return open_on_one_thread(path, {"backend": "onnx", "precision": "int8"})


def _smooth_best(
    model: onnx.ModelProto, maxima: Mapping[str, Floats], held_out: HeldOut, folder: Path, settings: DynamicSettings
) -> tuple[float | None, dict[str, int]]:
    """Smooth a graph, in place, by the alpha whose dynamic INT8 is nearest to fp32; return it, and what was done."""
    path = folder / "candidate.onnx"
    found: list[tuple[float, float | None]] = []
    for alpha in ALPHAS:
        candidate = onnx.ModelProto()
        candidate.CopyFrom(model)
        _smooth(candidate, maxima, alpha)
        _quantize(candidate, path, settings)
        found.append((held_out.first_impression(open_int8(path)).mean_cosine, alpha))
    path.unlink()
    best = max(found, key=lambda pair: pair[0])[1]
    return best, _smooth(model, maxima, best)


def _smooth(model: onnx.ModelProto, maxima: Mapping[str, Floats], alpha: float | None) -> dict[str, int]:
    if alpha is None:
        return {}
    done = smooth(model, maxima, alpha, inserts=True)
    return {"smoothed_for_free": done.num_folded, "smoothed_by_mul": done.num_inserted}


def _round(model: onnx.ModelProto, read: Feeds, folder: Path, levels: int) -> None:
    weights, sharing = Weights(model.graph), products(model)
    measured = onnx.ModelProto()
    measured.CopyFrom(model)
    for activation, moments in measure_moments(measured, read, folder):
        for node in sharing[activation]:
            weights[node.input[1]] = round_weights(weights[node.input[1]], moments, levels)


def _quantize(model: onnx.ModelProto, path: Path, settings: DynamicSettings) -> None:
    exact = path.with_suffix(".fp32.onnx")
    onnx.save(model, str(exact))
    quantize_dynamic(exact, path, settings)
    exact.unlink()


METHODS = (Method("onnx", "int8", "smooth", make, needs_calibration=True),)
