"""Products of a quantized graph that are computed in float after all: their activations are fed as they are.

The weights stay on the values that 8 bits have, a scale for each output channel, and become floats when a graph is compiled.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from ts_handlers.build.quantize.sensitivity import Layer

_QUANTIZER = "FakeQuantize"
_TOKENS = 32
"""Length that a product of two activations is taken to have; it is only weighed against products with weights."""


def quantized_products(model: Any) -> list[Layer]:
    """Return the products that are fed with quantized activations, each with its multiply-adds a token."""
    return [
        Layer((node.friendly_name,), _multiply_adds(node))
        for node in model.get_ordered_ops()
        if _quantized_inputs(node)
    ]


def in_float(model: Any, names: Collection[str]) -> Any:
    """Return a copy of the graph in which these products are computed in float."""
    copy = model.clone()
    for node in copy.get_ordered_ops():
        if node.friendly_name in names:
            for index in _quantized_inputs(node):
                quantizer = node.input_value(index).get_node()
                node.input(index).replace_source_output(quantizer.input_value(0))
    copy.validate_nodes_and_infer_types()
    return copy


def _quantized_inputs(node: Any) -> list[int]:
    if node.get_type_name() not in ("MatMul", "Convolution", "GroupConvolution"):
        return []
    return [index for index in range(2) if node.input_value(index).get_node().get_type_name() == _QUANTIZER]


def _multiply_adds(node: Any) -> float:
    """Return the size of the weights, or, of two activations, what they would be for a usual text."""
    size = 1.0
    for dimension in node.input_value(1).partial_shape:
        size *= dimension.get_length() if dimension.is_static else _TOKENS
    return size
