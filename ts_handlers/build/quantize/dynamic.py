"""Dynamic INT8 for ONNX Runtime: weights once, here; activations at run time, per call."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import onnx


@dataclass(frozen=True, slots=True)
class DynamicSettings:
    """How weights are quantized.

    Attributes:
        per_channel: One scale for each output channel; with one scale a tensor, sentence embeddings are useless.
        reduce_range: 7-bit weights, for CPUs that sum two 8-bit products in 16 bits (`TargetCpu.has_vnni`); on others they
            cost a little accuracy and no time.
        operators: What is quantized.
        float_nodes: Names of nodes that are left in float.
    """

    per_channel: bool = True
    reduce_range: bool = True
    operators: tuple[str, ...] = ("MatMul", "Attention")
    float_nodes: tuple[str, ...] = ()

    def as_dict(self) -> dict[str, Any]:
        """Return the settings for the build report."""
        return asdict(self)


def quantize_dynamic(path: Path, quantized_path: Path, settings: DynamicSettings) -> None:
    """Quantize the weights of matrix products and fused attention."""
    from onnxruntime import quantization  # a large import, only where it is used

    with _no_advice():
        quantization.quantize_dynamic(
            str(path),
            str(quantized_path),
            op_types_to_quantize=list(settings.operators),
            per_channel=settings.per_channel,
            reduce_range=settings.reduce_range,
            weight_type=quantization.QuantType.QInt8,
            nodes_to_exclude=list(settings.float_nodes),
            extra_options={"DefaultTensorType": onnx.TensorProto.FLOAT, "MatMulConstBOnly": True},
        )


@contextmanager
def _no_advice() -> Iterator[None]:
    logging.getLogger().addFilter(_is_no_advice)
    try:
        yield
    finally:
        logging.getLogger().removeFilter(_is_no_advice)


def _is_no_advice(record: logging.LogRecord) -> bool:
    """Drop the quantizer's advice to run shape inference, which cannot see through fused operators."""
    return "pre-processing before quantization" not in record.getMessage()
