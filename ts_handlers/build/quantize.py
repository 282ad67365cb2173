"""Dynamic INT8 for ONNX Runtime: weights once, here; activations at run time, per call."""

from __future__ import annotations

import logging
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import onnx

from ts_handlers.cpu import VNNI_FLAGS


@dataclass(frozen=True, slots=True)
class Int8Settings:
    """How weights are quantized.

    Attributes:
        per_channel: One scale for each output channel; with one scale a tensor, sentence embeddings are useless.
        reduce_range: 7-bit weights. Without VNNI, AVX2 adds pairs of 8-bit products in 16 bits and saturates.
        operators: What is quantized.
    """

    per_channel: bool = True
    reduce_range: bool = False
    operators: tuple[str, ...] = ("MatMul", "Attention")

    def as_dict(self) -> dict[str, Any]:
        """Return the settings for the build report."""
        return asdict(self)


def settings_for(cpu_flags: frozenset[str]) -> Int8Settings:
    """Choose settings for a CPU by its flags, as /proc/cpuinfo names them; an unknown one is treated with care."""
    return Int8Settings(reduce_range=not (VNNI_FLAGS | {"asimd"}) & cpu_flags)


def quantize_int8(path: Path, quantized_path: Path, settings: Int8Settings) -> None:
    """Quantize the weights of matrix products and fused attention."""
    from onnxruntime.quantization import QuantType, quantize_dynamic  # a large import, only where it is used

    logging.getLogger().addFilter(_no_preprocessing_hint)
    try:
        quantize_dynamic(
            str(path),
            str(quantized_path),
            op_types_to_quantize=list(settings.operators),
            per_channel=settings.per_channel,
            reduce_range=settings.reduce_range,
            weight_type=QuantType.QInt8,
            extra_options={"DefaultTensorType": onnx.TensorProto.FLOAT, "MatMulConstBOnly": True},
        )
    finally:
        logging.getLogger().removeFilter(_no_preprocessing_hint)


def _no_preprocessing_hint(record: logging.LogRecord) -> bool:
    """Drop the quantizer's advice to run shape inference, which cannot see through fused operators."""
    return "pre-processing before quantization" not in record.getMessage()
