"""A graph with other names computes the same."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from tests.unit.build.graphs import run
from tests.unit.build.images.served import NAMES, PIXELS, serve
from ts_handlers.build.image_files.onnx_names import rename

WEIGHTS = np.random.default_rng(2).normal(size=(18, 3)).astype(np.float32)


def branch(name: str, factor: str) -> onnx.GraphProto:
    """A body that takes a tensor of the graph around it."""
    value = helper.make_tensor_value_info(name, TensorProto.FLOAT, None)
    return helper.make_graph([helper.make_node("Mul", ["z", factor], [name])], name, [], [value])


def model(weights: str, pooled: str, then: str, otherwise: str) -> onnx.ModelProto:
    """A graph with an If, whose tensors have names that ours may collide with."""
    nodes = [
        helper.make_node("AveragePool", ["x"], [pooled], kernel_shape=[8, 8], strides=[8, 8]),
        helper.make_node("Flatten", [pooled], ["flat"]),
        helper.make_node("MatMul", ["flat", weights], ["z"]),
        helper.make_node("ReduceMean", ["x"], ["mean"], keepdims=0),
        helper.make_node("Greater", ["mean", "limit"], ["is_bright"]),
        helper.make_node(
            "If", ["is_bright"], ["y"], then_branch=branch(then, "two"), else_branch=branch(otherwise, "limit")
        ),
    ]
    values: list[tuple[str, Any]] = [(weights, WEIGHTS), ("two", np.float32(2)), ("limit", np.float32(0.1))]
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 3, 16, 24])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 3])],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in values],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


COLLISIONS = [
    ("w", "p", "t", "e"),
    ("logits", "p", "t", "e"),
    ("pixel_values", "p", "t", "e"),
    ("w", "pixel_values", "logits", "e"),
    ("w", "logits_1", "t", "logits"),
    ("logits", "logits_1", "t", "pixel_values"),
]


@pytest.mark.parametrize("names", COLLISIONS)
def test_the_same_numbers_under_other_names(names: tuple[str, str, str, str], tmp_path: Path) -> None:
    before = model(*names)
    onnx.save(before, str(tmp_path / "before.onnx"))
    expected = run(tmp_path / "before.onnx", x=PIXELS.numpy())
    rename(before.graph, {"x": "pixel_values", "y": "logits", "is_bright": "is_dark"})
    onnx.checker.check_model(before, full_check=True)
    onnx.save(before, str(tmp_path / "after.onnx"))
    np.testing.assert_array_equal(run(tmp_path / "after.onnx", pixel_values=PIXELS.numpy()), expected)
    assert [item.name for item in (*before.graph.input, *before.graph.output)] == ["pixel_values", "logits"]


def test_names_can_be_exchanged(tmp_path: Path) -> None:
    graph = helper.make_graph(
        [helper.make_node("Identity", ["x"], ["a"]), helper.make_node("Neg", ["x"], ["b"])],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1])],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1]) for name in ("b", "a")],
    )
    rename(graph, {"a": "b", "b": "a"})
    onnx.save(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), str(tmp_path / "m.onnx")
    )
    assert [item.name for item in graph.output] == ["a", "b"]
    assert run(tmp_path / "m.onnx", x=np.ones(1, np.float32)).tolist() == [-1]


@pytest.mark.parametrize("names", COLLISIONS)
def test_they_are_served(names: tuple[str, str, str, str], given: Path) -> None:
    path = given / "m.onnx"
    onnx.save(model(*names), str(path))
    logits = run(path, x=PIXELS.numpy())[0]
    powers = np.exp(logits - logits.max())
    right = dict(zip(NAMES, (powers / powers.sum()).tolist(), strict=True))
    assert serve(path, given).answer() == pytest.approx(right, abs=1e-5)
