from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest

from tests.model_dirs import ModelDirs
from tests.unit.build.graphs import Graph, cosine, product, residual_network, run
from tests.unit.build.materials import SENTENCES, material
from ts_handlers.build.methods.catalogue import find_method
from ts_handlers.build.quantize.blocks import quantize_blocks, to_blocks
from ts_handlers.build.samples import Sample, encode
from ts_handlers.errors import OperatorError

RNG = np.random.default_rng(9)


@pytest.mark.parametrize("shape", [(64, 8), (40, 3), (16, 1), (1, 5)])
def test_weights_are_within_half_a_step(shape: tuple[int, int]) -> None:
    weights = RNG.normal(size=shape).astype(np.float32)
    quantized, scales, zero_points = to_blocks(weights, 16)
    assert quantized.shape == (shape[1], -(-shape[0] // 16), 16)
    restored = (quantized.astype(np.float32) - zero_points[..., None]) * scales[..., None]
    restored = restored.reshape(shape[1], -1)[:, : shape[0]].T
    step = np.repeat(scales, 16, axis=1)[:, : shape[0]].T
    assert (np.abs(restored - weights) <= step * 1.001).all()
    assert np.abs(restored - weights).mean() < step.mean() / 3


def test_a_block_of_zeros_and_one_of_a_sign() -> None:
    weights = np.zeros((32, 2), dtype=np.float32)
    weights[16:, 1] = np.linspace(5, 6, 16)
    quantized, scales, zero_points = to_blocks(weights, 16)
    restored = (quantized.astype(np.float32) - zero_points[..., None]) * scales[..., None]
    assert (restored[0] == 0).all()
    assert restored[1, 1] == pytest.approx(weights[16:, 1], abs=6 / 255)


def quantized(path: Path) -> tuple[int, Path]:
    model = onnx.load(str(path))
    number = quantize_blocks(model)
    onnx.save(model, str(path.with_name("int8.onnx")))
    return number, path.with_name("int8.onnx")


def test_a_product_with_blocks_is_the_product(tmp_path: Path) -> None:
    weights = RNG.normal(size=(100, 24))
    weights[:, 3] *= 50
    path = product(tmp_path / "fp32.onnx", weights)
    number, int8 = quantized(path)
    assert number == 1
    x = RNG.normal(size=(5, 100)).astype(np.float32)
    expected, actual = run(path, x=x), run(int8, x=x)
    assert cosine(actual, expected) > 0.9999
    for column in range(24):
        assert cosine(actual[:, column], expected[:, column]) > 0.999


def test_weights_that_two_nodes_take_are_quantized_once_and_kept_where_they_are_needed(tmp_path: Path) -> None:
    g = Graph()
    w = g.dense("w", 32, 32)
    h = g.node("MatMul", ["x", w], "h")
    g.node("Add", [g.node("MatMul", [h, w], "hh"), g.node("MatMul", [w, "x"], "wx")], "y")
    path = g.save(tmp_path / "fp32.onnx", {"x": [32, 32]}, {"y": [32, 32]})
    number, int8 = quantized(path)
    assert number == 2
    model = onnx.load(str(int8))
    assert [item.name for item in model.graph.initializer] == ["w", "w_blocks", "w_scales", "w_zero_points"]
    x = RNG.normal(size=(32, 32)).astype(np.float32)
    assert cosine(run(int8, x=x), run(path, x=x)) > 0.999


def test_a_graph_without_matrix_products_is_refused(model_dirs: ModelDirs, tmp_path: Path) -> None:
    made_of = material(model_dirs, "tiny-roberta", tmp_path)
    made_of.__dict__["fused"] = residual_network(tmp_path / "fp32.onnx")
    with pytest.raises(OperatorError, match="no matrix product has fixed weights"):
        find_method("onnx", "int8", "blocks").make(made_of, tmp_path)


def test_all_products_of_a_transformer_are_quantized(model_dirs: ModelDirs, tmp_path: Path) -> None:
    made_of = material(model_dirs, "tiny-roberta", tmp_path)
    engine = find_method("onnx", "int8", "blocks").make(made_of, tmp_path)
    assert engine.details["quantization"]["quantized_nodes"] == 2 * 4 + 1  # the head's too
    assert engine.runtime == {"backend": "onnx", "precision": "int8", "target_cpu": "avx2"}
    for sentence in SENTENCES:
        item = encode(made_of.source, Sample(sentence))
        feed = {name: array[None] for name, array in item.arrays.items()}
        assert cosine(run(engine.serialized_file, **feed), run(made_of.fused, **feed)) > 0.99
