"""Block-wise 8-bit weights for ONNX Runtime: a scale and a zero point for every few weights; activations per call.

onnxruntime.quantization's own quantizer of this kind sets up the root logger when it is imported and needs a package more
(onnx_ir); the arithmetic is a few lines.
"""

from __future__ import annotations

from collections.abc import Container
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from ts_handlers.batch import Array
from ts_handlers.build.quantize.attention import split_attention
from ts_handlers.errors import OperatorError

INT8_PRODUCTS = 4
"""`accuracy_level` of MatMulNBits at which activations are quantized to INT8 too, block by block."""


@dataclass(frozen=True, slots=True)
class BlockSettings:
    """How weights are quantized.

    Attributes:
        block_size: Weights of one output that share a scale; a power of two from 16.
        accuracy_level: MatMulNBits' own: 1 multiplies floats, 4 integers.
    """

    block_size: int = 32
    accuracy_level: int = INT8_PRODUCTS

    def as_dict(self) -> dict[str, Any]:
        """Return the settings for the build report."""
        return asdict(self)


def quantize_blocks(path: Path, quantized_path: Path, settings: BlockSettings) -> int:
    """Quantize the weights of matrix products, those of fused attention among them.

    Returns:
        How many products were quantized.

    Raises:
        OperatorError: There is none.
    """
    model = onnx.load(str(path))
    split_attention(model)
    num_products = block_products(model, settings)
    if not num_products:
        raise OperatorError("there is nothing to quantize: no matrix product has fixed weights")
    onnx.save(model, str(quantized_path))
    return num_products


def block_products(model: onnx.ModelProto, settings: BlockSettings, names: Container[str] | None = None) -> int:
    """Quantize the weights of matrix products, in place: of those with these names, or of all.

    Returns:
        How many products were quantized.
    """
    graph = model.graph
    weights = {
        item.name: item for item in graph.initializer if item.data_type == TensorProto.FLOAT and len(item.dims) == 2
    }
    done: dict[str, list[str]] = {}
    num_products = 0
    for node in graph.node:
        if node.op_type != "MatMul" or node.input[1] not in weights or (names is not None and node.name not in names):
            continue
        name = node.input[1]
        if name not in done:
            done[name] = _add_blocks(graph, weights[name], settings.block_size)
        node.CopyFrom(_product(node, done[name], weights[name].dims, settings))
        num_products += 1
    _drop_unused(graph, set(done))
    if num_products and not any(item.domain == "com.microsoft" for item in model.opset_import):
        model.opset_import.append(helper.make_opsetid("com.microsoft", 1))
    return num_products


def to_blocks(weights: Array, block_size: int) -> tuple[NDArray[np.uint8], NDArray[np.float32], NDArray[np.uint8]]:
    """Quantize weights: w is about (q - zero_point) * scale within each block.

    Args:
        weights: `(inputs, outputs)` float32.
        block_size: Weights of one output that share a scale.

    Returns:
        q `(outputs, blocks, block_size)`, scales and zero points `(outputs, blocks)`, as MatMulNBits takes them.
    """
    num_inputs, num_outputs = weights.shape
    num_blocks = -(-num_inputs // block_size)
    padded = np.zeros((num_outputs, num_blocks * block_size), dtype=np.float32)
    padded[:, :num_inputs] = weights.T
    blocks = padded.reshape(num_outputs, num_blocks, block_size)
    low, high = np.minimum(blocks.min(axis=-1), 0), np.maximum(blocks.max(axis=-1), 0)
    scales = ((high - low) / 255).astype(np.float32)
    scales[scales == 0] = 1  # a block of zeros
    zero_points = np.clip(np.rint(-low / scales), 0, 255)
    quantized = np.clip(np.rint(blocks / scales[..., None]) + zero_points[..., None], 0, 255)
    return quantized.astype(np.uint8), scales, zero_points.astype(np.uint8)


def _add_blocks(graph: onnx.GraphProto, weights: onnx.TensorProto, block_size: int) -> list[str]:
    arrays = to_blocks(numpy_helper.to_array(weights), block_size)
    names = [f"{weights.name}_{part}" for part in ("blocks", "scales", "zero_points")]
    graph.initializer.extend(numpy_helper.from_array(array, name) for array, name in zip(arrays, names, strict=True))
    return names


def _product(node: onnx.NodeProto, blocks: list[str], dims: Any, settings: BlockSettings) -> onnx.NodeProto:
    return helper.make_node(
        "MatMulNBits",
        [node.input[0], *blocks],
        list(node.output),
        name=node.name,
        domain="com.microsoft",
        K=dims[0],
        N=dims[1],
        bits=8,
        block_size=settings.block_size,
        accuracy_level=settings.accuracy_level,
    )


def _drop_unused(graph: onnx.GraphProto, names: set[str]) -> None:
    """Drop weights that nothing takes any more; one may also be an operand elsewhere."""
    used = {name for node in graph.node for name in node.input}
    kept = [item for item in graph.initializer if item.name not in names or item.name in used]
    del graph.initializer[:]
    graph.initializer.extend(kept)
