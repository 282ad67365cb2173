"""ONNX Runtime, static INT8: the integers of activations are chosen here, from their ranges on calibration samples."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from functools import partial
from itertools import islice
from pathlib import Path

import onnx

from ts_handlers.batch import ModelInput, pad_batch
from ts_handlers.bucketing import plan_batches, plan_images
from ts_handlers.build.engine import Engine, Material, Method
from ts_handlers.build.methods.onnx_dynamic import int8_runtime
from ts_handlers.build.methods.onnx_fp32 import graph_details
from ts_handlers.build.quantize.attention import split_attention
from ts_handlers.build.quantize.calibration import Calibration, CalibrationMethod, Feed
from ts_handlers.build.quantize.static import IMAGE_OPERATORS, TEXT_OPERATORS, StaticSettings, quantize_static
from ts_handlers.build.samples import Dataset
from ts_handlers.build.sources.images import ImageSource
from ts_handlers.build.steps import step
from ts_handlers.errors import OperatorError

GROUP = 64
"""Samples that are sorted by length together, so that little of a feed is padding."""

MAX_BATCH_SIZE, MAX_PADDED_TOKENS, MAX_PADDED_PIXELS = 8, 1024, 2**21
"""Most of one feed: they bound the memory that calibration takes."""

CALL_OVERHEAD_TOKENS = 64.0
"""What a feed costs beside its tokens: reading out and counting activations."""


def make(material: Material, folder: Path, *, method: CalibrationMethod) -> Engine:
    """Measure the activations of the fused graph and quantize its products."""
    dataset = material.calibration
    if dataset is None:
        raise OperatorError("static INT8 measures activations; give --calibration FILE")
    if isinstance(material.model_source, ImageSource):
        return _make_of_images(material, dataset, folder, method=method)
    settings = StaticSettings(
        calibration=Calibration(method),
        operators=TEXT_OPERATORS,
        reduce_range=not material.target.has_vnni,
        activations="int8" if material.target.is_arm else "uint8",
        has_float_outputs=True,
        fold=False,
    )
    fused, split, model = material.fused, folder / "split.onnx", folder / "model.onnx"
    graph = onnx.load(str(fused))
    split_attention(graph)
    onnx.save(graph, str(split))
    pad_token_id = material.source.tokenizer.pad_token_id or 0
    with step(material.progress, f"calibrate on {len(dataset)} samples ({method}) and quantize to INT8"):
        done = quantize_static(split, model, partial(feeds, dataset, pad_token_id), settings)
    split.unlink()
    quantization = {"method": "static", **settings.as_dict(), **done}
    return Engine(model, int8_runtime(material), details=graph_details(material) | {"quantization": quantization})


def _make_of_images(material: Material, dataset: Dataset, folder: Path, *, method: CalibrationMethod) -> Engine:
    """Quantize convolutions and what lies between them; of a vision transformer the products alone."""
    model = folder / "model.onnx"
    is_convolutional = _is_convolutional(material.fused)
    settings = StaticSettings(
        calibration=Calibration(method),
        operators=IMAGE_OPERATORS if is_convolutional else TEXT_OPERATORS,
        reduce_range=not material.target.has_vnni,
        activations="int8" if material.target.is_arm else "uint8",
        has_float_outputs=not is_convolutional,
        fold=True,
    )
    max_batch_size = material.model_source.max_batch_size or MAX_BATCH_SIZE
    with step(material.progress, f"calibrate on {len(dataset)} samples ({method}) and quantize to INT8"):
        done = quantize_static(material.fused, model, partial(image_feeds, dataset, max_batch_size), settings)
    quantization = {"method": "static", **settings.as_dict(), **done}
    return Engine(model, int8_runtime(material), details=graph_details(material) | {"quantization": quantization})


def _is_convolutional(path: Path) -> bool:
    graph = onnx.load(str(path), load_external_data=False).graph
    count = Counter(node.op_type for node in graph.node)
    return count["Conv"] > count["MatMul"]


def image_feeds(dataset: Dataset, max_batch_size: int) -> Iterator[Feed]:
    """Read images in small batches of one size each."""
    samples = iter(dataset)
    while group := list(islice(samples, MAX_BATCH_SIZE)):
        sizes = [item.size or (0, 0) for item in group]
        for plan in plan_images(sizes, max_batch_size=max_batch_size, max_padded_pixels=MAX_PADDED_PIXELS):
            yield pad_batch(group, plan, {}).arrays


def feeds(dataset: Iterable[ModelInput], pad_token_id: int) -> Iterator[Feed]:
    """Read samples in small padded batches."""
    samples = iter(dataset)
    while group := list(islice(samples, GROUP)):
        yield from _batches(group, pad_token_id)


def _batches(inputs: list[ModelInput], pad_token_id: int) -> Iterator[Feed]:
    plans = plan_batches(
        [item.length for item in inputs],
        max_batch_size=MAX_BATCH_SIZE,
        max_padded_tokens=MAX_PADDED_TOKENS,
        call_overhead_tokens=CALL_OVERHEAD_TOKENS,
    )
    for plan in plans:
        yield pad_batch(inputs, plan, {"input_ids": pad_token_id}).arrays


_AUTOMATIC: dict[CalibrationMethod, bool] = {"percentile": True, "minmax": False, "entropy": False}
"""Calibration method -> whether `--precision auto` tries it: one of them, or a build would take three times as long."""

METHODS = tuple(
    Method(
        "onnx",
        "int8",
        f"static-{method}",
        partial(make, method=method),
        needs_calibration=True,
        takes_images=True,
        is_automatic=is_automatic,
    )
    for method, is_automatic in _AUTOMATIC.items()
)
