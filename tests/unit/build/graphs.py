"""Small ONNX graphs with seeded weights, and what ONNX Runtime makes of a file when it loads it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
from onnx import TensorProto, helper, numpy_helper

from ts_handlers.shapes import Array


class Graph:
    """Collects nodes and weights."""

    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.weights: list[onnx.TensorProto] = []
        self._rng = np.random.default_rng(3)

    def node(self, operator: str, inputs: list[str], output: str, **attributes: object) -> str:
        self.nodes.append(helper.make_node(operator, inputs, [output], **attributes))
        return output

    def weight(self, name: str, array: Array) -> str:
        self.weights.append(numpy_helper.from_array(array.astype(np.float32), name))
        return name

    def convolution(self, x: str, name: str, channels: tuple[int, int], kernel: int) -> str:
        """Add a convolution and a batch normalization."""
        taken, given = channels
        scale = 1 / np.sqrt(taken * kernel * kernel)
        w = self.weight(f"{name}_w", self._rng.normal(scale=scale, size=(given, taken, kernel, kernel)))
        y = self.node("Conv", [x, w], f"{name}_conv", pads=[kernel // 2] * 4)
        parts = [
            self.weight(f"{name}_{part}", self._rng.uniform(0.5, 1.5, size=given)) for part in ("s", "b", "mean", "var")
        ]
        return self.node("BatchNormalization", [y, *parts], f"{name}_norm")

    def dense(self, name: str, taken: int, given: int) -> str:
        return self.weight(name, self._rng.normal(scale=taken**-0.5, size=(taken, given)))

    def save(self, path: Path, inputs: dict[str, list[object]], outputs: dict[str, list[object]]) -> Path:
        graph = helper.make_graph(
            self.nodes,
            "graph",
            [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in inputs.items()],
            [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in outputs.items()],
            self.weights,
        )
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
        onnx.checker.check_model(model, full_check=True)
        onnx.save(model, str(path))
        return path


def residual_network(path: Path) -> Path:
    """Write a residual network in small: normalized convolutions, an addition, pooling and a head."""
    g = Graph()
    stem = g.node("Relu", [g.convolution("pixels", "stem", (3, 16), 3)], "stem_out")
    pooled = g.node("MaxPool", [stem], "pooled", kernel_shape=[2, 2], strides=[2, 2])
    inner = g.node("Relu", [g.convolution(pooled, "inner", (16, 16), 3)], "inner_out")
    added = g.node("Add", [g.convolution(inner, "outer", (16, 16), 1), pooled], "added")
    final = g.node("GlobalAveragePool", [g.node("Relu", [added], "block_out")], "average")
    flat = g.node("Flatten", [final], "flat")
    bias = g.weight("head_b", np.linspace(-1, 1, 10))
    g.node("Gemm", [flat, g.dense("head_w", 16, 10), bias], "logits")
    return g.save(path, {"pixels": ["batch", 3, 16, 16]}, {"logits": ["batch", 10]})


def images(number: int = 8, seed: int = 1) -> Iterator[dict[str, Array]]:
    """Make what a residual network is fed."""
    rng = np.random.default_rng(seed)
    for _ in range(number):
        yield {"pixels": rng.normal(size=(2, 3, 16, 16)).astype(np.float32)}


def product(path: Path, weights: Array) -> Path:
    """Write y = x @ weights."""
    g = Graph()
    g.node("MatMul", ["x", g.weight("w", weights)], "y", name="product")
    return g.save(path, {"x": ["batch", len(weights)]}, {"y": ["batch", weights.shape[1]]})


def run(path: Path, **feed: Array) -> Array:
    """Return a file's first output."""
    return run_with({}, path, **feed)


def run_with(entries: Mapping[str, str], path: Path, **feed: Array) -> Array:
    """Return a file's first output, with configuration entries of the session."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    for name, value in entries.items():
        options.add_session_config_entry(name, value)
    session = ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    return np.asarray(session.run(None, feed)[0])


def operators_run(path: Path, work: Path) -> Counter[str]:
    """Count the operators that are left of a file once ONNX Runtime has loaded and fused it."""
    options = ort.SessionOptions()
    options.optimized_model_filepath = str(work / "optimized.onnx")
    options.log_severity_level = 3  # that such a file is for this machine only
    ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    return Counter(node.op_type for node in onnx.load(str(work / "optimized.onnx")).graph.node)


def cosine(left: Array, right: Array) -> float:
    """Return the cosine of two arrays as vectors."""
    return float((left * right).sum() / np.linalg.norm(left) / np.linalg.norm(right))
