"""Block-wise 8-bit weights for ONNX Runtime: a scale and a zero point for every few weights; activations per call.

onnxruntime.quantization's own quantizer of this kind sets up the root logger when it is imported and needs a package more
(onnx_ir); the arithmetic is a few lines.
"""

from __future__ import annotations

from collections.abc import Container

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from ts_handlers.shapes import Array

INT8_PRODUCTS = 4
"""`accuracy_level` of MatMulNBits at which activations are quantized to INT8 too, block by block."""

BLOCK_SIZE = 32
"""Weights of one output that share a scale; a power of two from 16."""


def quantize_blocks(model: onnx.ModelProto, block_size: int = BLOCK_SIZE, names: Container[str] | None = None) -> int:
    """Quantize the weights of matrix products, in place: of those with these names, or of all.

    Returns:
        How many products were quantized.
    """
    graph = model.graph
    weights = {
        item.name: item for item in graph.initializer if item.data_type == TensorProto.FLOAT and len(item.dims) == 2
    }
    blocks: dict[str, list[str]] = {}
    num_products = 0
    for node in graph.node:
        if node.op_type != "MatMul" or node.input[1] not in weights or (names is not None and node.name not in names):
            continue
        name = node.input[1]
        if name not in blocks:
            arrays = to_blocks(numpy_helper.to_array(weights[name]), block_size)
            blocks[name] = [f"{name}_{part}" for part in ("blocks", "scales", "zero_points")]
            graph.initializer.extend(map(numpy_helper.from_array, arrays, blocks[name]))
        num_inputs, num_outputs = weights[name].dims
        product = helper.make_node(
            "MatMulNBits",
            [node.input[0], *blocks[name]],
            list(node.output),
            name=node.name,
            domain="com.microsoft",
            K=num_inputs,
            N=num_outputs,
            bits=8,
            block_size=block_size,
            accuracy_level=INT8_PRODUCTS,
        )
        node.CopyFrom(product)
        num_products += 1
    used = {name for node in graph.node for name in node.input}  # weights may also be an operand elsewhere
    for name in blocks.keys() - used:
        graph.initializer.remove(weights[name])
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
