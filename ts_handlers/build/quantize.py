"""Dynamic INT8 for ONNX Runtime: weights once, here; activations at run time, per call."""

from __future__ import annotations

import logging
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import onnx


@dataclass(frozen=True, slots=True)
class Int8Settings:
    """How weights are quantized.

    Attributes:
        per_channel: One scale for each output channel; with one scale a tensor, sentence embeddings are useless.
        reduce_range: 7-bit weights. Without VNNI, AVX2 adds pairs of 8-bit products in 16 bits and saturates. The build
            machine is not the serving one, so this is the default: on VNNI it costs a little accuracy and no time.
        operators: What is quantized.
    """

    per_channel: bool = True
    reduce_range: bool = True
    operators: tuple[str, ...] = ("MatMul", "Attention")

    def as_dict(self) -> dict[str, Any]:
        """Return the settings for the build report."""
        return asdict(self)


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
