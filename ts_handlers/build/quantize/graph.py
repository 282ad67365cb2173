"""The products of a graph that have fixed weights, and what is multiplied with them, channel by channel."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from ts_handlers.errors import OperatorError
from ts_handlers.machine import cpu_budget
from ts_handlers.shapes import Array

Feed = Mapping[str, Array]
"""What one run of a graph is fed: input name -> array."""

Feeds = Callable[[], Iterable[Feed]]
"""Reads the samples anew, from the first to the last."""

Floats = NDArray[np.float32]

OPERATORS = ("MatMul", "Attention")
"""Products that take an activation first and their weights second, `(inputs, outputs)`."""

MAX_MOMENTS_BYTES = 2**29
"""Most bytes of second moments at a time: those of wide layers take several runs over the samples."""


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
    sizes = _sizes(model)
    maxima = {name: np.zeros(size, dtype=np.float32) for name, size in sizes.items()}
    for number, outputs in enumerate(_run(model, list(sizes), feeds, work), 1):
        for name, size in sizes.items():
            np.maximum(maxima[name], np.abs(outputs[name].reshape(-1, size)).max(axis=0), out=maxima[name])
            if not np.isfinite(maxima[name]).all():
                raise OperatorError(
                    f"calibration: {name} is not finite on feed {number}: the fp32 model itself overflows; leave that "
                    "sample out"
                )
    return maxima


def measure_moments(model: onnx.ModelProto, feeds: Feeds, work: Path) -> Iterator[tuple[str, Floats]]:
    """Run a graph on all feeds and yield each activation of its products with its second moments.

    The moments of an activation x are the sum of x.T @ x over all tokens, `(channels, channels)`.

    Args:
        model: The graph, in fp32.
        feeds: The samples, read once for every MAX_MOMENTS_BYTES of moments.
        work: Folder for the graph with these activations as its outputs.
    """
    sizes = _sizes(model)
    waiting = list(sizes)
    while waiting:
        moments: dict[str, Floats] = {}
        while waiting and (not moments or 4 * sizes[waiting[0]] ** 2 <= _free(moments)):
            name = waiting.pop(0)
            moments[name] = np.zeros((sizes[name], sizes[name]), dtype=np.float32)
        for outputs in _run(model, list(moments), feeds, work):
            for name, total in moments.items():
                rows = outputs[name].reshape(-1, sizes[name])
                total += rows.T @ rows
        yield from moments.items()


def _free(moments: Mapping[str, Floats]) -> int:
    return MAX_MOMENTS_BYTES - sum(array.nbytes for array in moments.values())


def _sizes(model: onnx.ModelProto) -> dict[str, int]:
    """Return the number of channels of each activation of the products."""
    weights = Weights(model.graph)
    return {name: len(weights[nodes[0].input[1]]) for name, nodes in products(model).items()}


def open_unfused(path: Path) -> Any:
    """Open a graph whose every tensor can be measured, on the CPUs of this machine's budget."""
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.intra_op_num_threads = max(1, int(cpu_budget().cpus))
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL  # a fused tensor cannot be measured
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.enable_cpu_mem_arena = False  # it would keep the memory of the largest feed for every shape
    return ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def _run(model: onnx.ModelProto, tensors: Sequence[str], feeds: Feeds, work: Path) -> Iterator[dict[str, Array]]:
    """Run a graph on all feeds, unfused, and yield these float tensors of it, one feed at a time."""
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    del copy.graph.output[:]
    copy.graph.output.extend(helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in tensors)
    path = work / "calibration.onnx"
    onnx.save(copy, str(path))
    session = open_unfused(path)
    path.unlink()
    inputs = [item.name for item in session.get_inputs()]
    number = 0
    for number, feed in enumerate(feeds(), 1):
        try:
            outputs = session.run(list(tensors), {name: feed[name] for name in inputs})
        except Exception as error:  # onnxruntime's errors have no common base class
            raise OperatorError(f"calibration: the fp32 model fails on feed {number}: {error}") from error
        yield dict(zip(tensors, outputs, strict=True))
    if not number:
        raise OperatorError("calibration: there are no samples; give some that are like the traffic")
