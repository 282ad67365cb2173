"""Fused attention -> a product with weights, which can be quantized as any other, and attention without weights."""

from __future__ import annotations

import onnx
from onnx import helper

_KEPT = frozenset({"num_heads", "unidirectional", "mask_filter_value", "scale"})
"""Attributes that both operators have, with the same meaning."""


def split_attention(model: onnx.ModelProto) -> int:
    """Replace each Attention by MatMul, Split and MultiHeadAttention, in place, where that is the same.

    Attention holds the weights of query, key and value as one matrix, which only dynamic quantization (QAttention) can
    take as integers. See com.microsoft's Attention and MultiHeadAttention in ONNX Runtime's ContribOperators.md.

    Returns:
        How many were replaced.
    """
    nodes = []
    num_split = 0
    opset = next(item.version for item in model.opset_import if not item.domain)
    for node in model.graph.node:
        if node.op_type == "Attention" and node.domain == "com.microsoft" and _is_plain(node):
            nodes.extend(_parts(node, opset))
            num_split += 1
        else:
            nodes.append(node)
    if num_split:
        del model.graph.node[:]
        model.graph.node.extend(nodes)
    return num_split


def _is_plain(node: onnx.NodeProto) -> bool:
    """Say whether it has no past, no bias of its own for scores, no rotation and no other sizes, but weights and a bias."""
    has = [bool(name) for name in node.input] + [False] * 7
    return (
        has[1] and has[2] and not any(has[4:]) and len(node.output) == 1 and {a.name for a in node.attribute} <= _KEPT
    )


def _parts(node: onnx.NodeProto, opset: int) -> list[onnx.NodeProto]:
    name = node.name or node.output[0]
    packed, parts = f"{name}_qkv", [f"{name}_{part}" for part in ("query", "key", "value")]
    hidden, weights, bias, mask = (*node.input, "")[:4]
    attention = helper.make_node(
        "MultiHeadAttention",
        [*parts, bias, mask] if mask else [*parts, bias],
        list(node.output),
        name=f"{name}_heads",
        domain="com.microsoft",
    )
    attention.attribute.extend(node.attribute)
    thirds = {"num_outputs": 3} if opset >= 18 else {}
    return [
        helper.make_node("MatMul", [hidden, weights], [packed], name=f"{name}_projection"),
        helper.make_node("Split", [packed], parts, name=f"{name}_split", axis=-1, **thirds),
        attention,
    ]
