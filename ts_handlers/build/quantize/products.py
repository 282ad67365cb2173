"""The products of a graph that have fixed weights, and what is multiplied with them, channel by channel."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from ts_handlers.batch import Array
from ts_handlers.build.quantize.calibration import Feeds, run_graph, with_outputs
from ts_handlers.errors import OperatorError

Floats = NDArray[np.float32]

OPERATORS = ("MatMul", "Attention")
"""Products that take an activation first and their weights second, `(inputs, outputs)`."""

MAX_MOMENTS_BYTES = 2**29
"""Most bytes of second moments at a time: those of wide layers take several runs over the samples."""

AXES_AS_INPUT = 18
"""Opset from which ReduceMax takes its axes as an input."""

_LARGEST = "_largest"


class Weights:
    """The float initializers of a graph by name, read and replaced in place."""

    def __init__(self, graph: onnx.GraphProto) -> None:
        self._tensors = {item.name: item for item in graph.initializer if item.data_type == TensorProto.FLOAT}

    def __contains__(self, name: str) -> bool:
        return name in self._tensors

    def __getitem__(self, name: str) -> Floats:
        return np.asarray(numpy_helper.to_array(self._tensors[name]), dtype=np.float32)

    def __setitem__(self, name: str, array: Array) -> None:
        self._tensors[name].CopyFrom(numpy_helper.from_array(array.astype(np.float32), name))

    def has_matrix(self, name: str) -> bool:
        """Say whether there is one of two axes."""
        return name in self._tensors and len(self._tensors[name].dims) == 2


def products(model: onnx.ModelProto) -> dict[str, list[onnx.NodeProto]]:
    """Return the products with fixed weights by the activation they share; those without a name are given one.

    Weights that anything else uses too are left out: they cannot be changed for one product alone.
    """
    weights = Weights(model.graph)
    uses = Counter(name for node in model.graph.node for name in node.input)
    found: dict[str, list[onnx.NodeProto]] = {}
    for index, node in enumerate(model.graph.node):
        if node.op_type in OPERATORS and weights.has_matrix(node.input[1]) and uses[node.input[1]] == 1:
            node.name = node.name or f"{node.op_type}_{index}"
            found.setdefault(node.input[0], []).append(node)
    return found


def measure_maxima(model: onnx.ModelProto, feeds: Feeds, work: Path) -> dict[str, Floats]:
    """Run a graph on all feeds and return the largest magnitude in each channel of what its products take.

    Args:
        model: The graph, in fp32.
        feeds: The samples.
        work: Folder for the graph with these activations as its outputs.

    Returns:
        Activation -> `(channels,)`.

    Raises:
        OperatorError: There are no samples, or the graph fails or overflows on one.
    """
    names = list(products(model))
    maxima: dict[str, Floats] = {}
    for number, outputs in enumerate(run_graph(_with_largest(model, names), feeds, work), 1):
        for name in names:
            largest = outputs[name + _LARGEST]
            if not np.isfinite(largest).all():
                raise OperatorError(
                    f"calibration: {name} is not finite on feed {number}: the fp32 model itself overflows; leave that "
                    "sample out"
                )
            maxima[name] = np.maximum(maxima[name], largest) if name in maxima else largest
    return maxima


def measure_moments(model: onnx.ModelProto, feeds: Feeds, work: Path) -> Iterator[tuple[str, Floats]]:
    """Run a graph on all feeds and yield each activation of its products with its second moments.

    The moments of an activation x are the sum of x.T @ x over all tokens, `(channels, channels)`.

    Args:
        model: The graph, in fp32.
        feeds: The samples, read once for every MAX_MOMENTS_BYTES of moments.
        work: Folder for the graph with these activations as its outputs.
    """
    weights = Weights(model.graph)
    sizes = {name: len(weights[nodes[0].input[1]]) for name, nodes in products(model).items()}
    for names in _portions(sizes):
        moments = {name: np.zeros((sizes[name], sizes[name]), dtype=np.float32) for name in names}
        for outputs in run_graph(with_outputs(model, names), feeds, work):
            for name in names:
                rows = outputs[name].reshape(-1, sizes[name])
                moments[name] += rows.T @ rows
        yield from moments.items()


def _portions(sizes: Mapping[str, int]) -> list[list[str]]:
    """Divide activations so that the moments of each portion fit in MAX_MOMENTS_BYTES; one alone may be larger."""
    portions: list[list[str]] = []
    free = 0
    for name, size in sizes.items():
        needed = 4 * size * size
        if not portions or needed > free:
            portions.append([])
            free = MAX_MOMENTS_BYTES
        portions[-1].append(name)
        free -= needed
    return portions


def _with_largest(model: onnx.ModelProto, names: Sequence[str]) -> onnx.ModelProto:
    """Return a copy that reduces each activation over all but its last axis, so that it never leaves the graph."""
    copy = with_outputs(model, [name + _LARGEST for name in names])
    graph, weights = copy.graph, Weights(model.graph)
    found = products(model)
    opset = next(item.version for item in model.opset_import if not item.domain)
    if opset >= AXES_AS_INPUT:
        graph.initializer.append(numpy_helper.from_array(np.array([0], dtype=np.int64), "_first_axis"))
    for name in names:
        absolute, rows, shape = (f"{name}_{part}" for part in ("absolute", "rows", "shape"))
        sizes = np.array([-1, len(weights[found[name][0].input[1]])], dtype=np.int64)
        graph.initializer.append(numpy_helper.from_array(sizes, shape))
        graph.node.append(helper.make_node("Abs", [name], [absolute]))
        graph.node.append(helper.make_node("Reshape", [absolute, shape], [rows]))
        reduced = {"inputs": [rows, "_first_axis"]} if opset >= AXES_AS_INPUT else {"inputs": [rows], "axes": [0]}
        graph.node.append(helper.make_node("ReduceMax", outputs=[name + _LARGEST], keepdims=0, **reduced))
    return copy
