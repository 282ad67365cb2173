"""Outliers of activations -> weights, in fp32, so that 8 bits are enough for both.

A few channels of a transformer's activations are many times larger than the others and leave them few of the 256 values.
Each channel is divided by a factor of its own, and the weights' row that it is multiplied with is multiplied by it. The
graph computes what it did before.

Source: G. Xiao et al., "SmoothQuant: Accurate and Efficient Post-Training Quantization for Large Language Models",
arXiv:2211.10438, equation 4.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np
import onnx
from onnx import helper, numpy_helper

from ts_handlers.build.quantize.graph import Floats, Weights, products

_SMALLEST = 1e-5
"""Least maximum of a channel: one that is always zero gets no factor without bounds."""

_NORMALIZATIONS = {"LayerNormalization": (1, 2), "EmbedLayerNormalization": (5, 6), "SkipLayerNormalization": (2, 3)}
"""Operator -> which inputs are its scale and its bias."""


def factors(maxima: Floats, weights: Sequence[Floats], alpha: float) -> Floats:
    """Return what each channel is divided by: max|X|^alpha / max|W|^(1 - alpha), with a geometric mean of 1.

    Args:
        maxima: Largest magnitude of each channel.
        weights: All weights that it is multiplied with, `(channels, outputs)` each.
        alpha: How much of the difficulty goes to the weights, from 0 to 1.
    """
    largest = np.max([np.abs(matrix).max(axis=1) for matrix in weights], axis=0)
    logs = alpha * np.log(np.maximum(maxima, _SMALLEST)) - (1 - alpha) * np.log(np.maximum(largest, _SMALLEST))
    return np.asarray(np.exp(logs - logs.mean()), dtype=np.float32)


def smooth(model: onnx.ModelProto, maxima: Mapping[str, Floats], alpha: float) -> tuple[int, int]:
    """Smooth the activations of all products with fixed weights, in place.

    Args:
        model: The graph in fp32, before attention is split.
        maxima: Activation -> largest magnitude of each channel.
        alpha: How much of the difficulty goes to the weights, from 0 to 1.

    Returns:
        How many activations are divided within what makes them, and how many by a Mul of their own: they are also used
        elsewhere (a residual), or a function that is not linear makes them (GELU).
    """
    graph = model.graph
    weights = Weights(graph)
    folder = _Folder(graph, weights)
    inserted: dict[str, onnx.NodeProto] = {}
    found = products(model)
    for activation, nodes in found.items():
        by = factors(maxima[activation], [weights[node.input[1]] for node in nodes], alpha)
        if not folder.divide(activation, by, len(nodes)):
            inserted[nodes[0].name] = _insert(graph, activation, nodes, by)
        for node in nodes:
            weights[node.input[1]] = weights[node.input[1]] * by[:, None]
    _put_before(graph, inserted)
    return len(found) - len(inserted), len(inserted)


class _Folder:
    """Divides the channels of an activation within what makes it, where that is free."""

    def __init__(self, graph: onnx.GraphProto, weights: Weights) -> None:
        self._weights = weights
        self._made_by = {name: node for node in graph.node for name in node.output}
        self._uses = Counter(name for node in graph.node for name in node.input)
        self._uses.update(item.name for item in graph.output)

    def divide(self, activation: str, by: Floats, num_products: int) -> bool:
        """Divide, if only the products use it and it is linear in parameters of its own; say whether it was done."""
        maker = self._made_by.get(activation)
        if maker is None or self._uses[activation] != num_products or activation != maker.output[0]:
            return False
        if maker.op_type in _NORMALIZATIONS:
            return self._scale([maker.input[index] for index in _NORMALIZATIONS[maker.op_type]], by)
        if maker.op_type == "Attention" and not any(maker.input[4:5]):  # values of the past are not divided
            return self._scale(list(maker.input[1:3]), by)
        if maker.op_type == "MatMul":
            return self._scale([maker.input[1]], by)
        if maker.op_type == "Add":
            return self._divide_sum(maker, by)
        return False

    def _divide_sum(self, add: onnx.NodeProto, by: Floats) -> bool:
        """Divide a product plus its bias."""
        for bias, product in (tuple(add.input), tuple(add.input)[::-1]):
            maker = self._made_by.get(product)
            if maker is not None and maker.op_type == "MatMul" and self._uses[product] == 1:
                return self._scale([maker.input[1], bias], by)
        return False

    def _scale(self, parameters: Sequence[str], by: Floats) -> bool:
        """Divide the last columns of parameters, as many as channels: of packed query, key and value, those of the value."""
        present = [name for name in parameters if name]
        for name in present:
            if name not in self._weights or self._uses[name] != 1:
                return False
            if self._weights[name].shape[-1] not in (len(by), 3 * len(by)):
                return False
        for name in present:
            array = self._weights[name].copy()
            array[..., -len(by) :] /= by
            self._weights[name] = array
        return True


def _insert(graph: onnx.GraphProto, activation: str, nodes: Sequence[onnx.NodeProto], by: Floats) -> onnx.NodeProto:
    """Let products take the activation divided; return the node that divides it."""
    inverse, divided = f"{activation}_inverse", f"{activation}_smooth"
    graph.initializer.append(numpy_helper.from_array((1 / by).astype(np.float32), inverse))
    for node in nodes:
        node.input[0] = divided
    return helper.make_node("Mul", [activation, inverse], [divided], name=f"{activation}_smoothing")


def _put_before(graph: onnx.GraphProto, inserted: Mapping[str, onnx.NodeProto]) -> None:
    """Put nodes before those that take what they give: a graph is in order."""
    nodes = [part for node in graph.node for part in (inserted.get(node.name), node) if part is not None]
    ordered = onnx.GraphProto()
    ordered.node.extend(nodes)
    del graph.node[:]
    graph.node.extend(ordered.node)
