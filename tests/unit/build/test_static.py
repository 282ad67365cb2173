from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from tests.model_dirs import ModelDirs
from tests.unit.build.graphs import Graph, cosine, images, operators_run, product, residual_network, run
from tests.unit.build.materials import SENTENCES, material
from ts_handlers.batch import Array
from ts_handlers.build.engine import Material
from ts_handlers.build.methods import onnx_static
from ts_handlers.build.quantize.attention import split_attention
from ts_handlers.build.quantize.calibration import Calibration, CalibrationMethod
from ts_handlers.build.quantize.static import StaticSettings, quantize_static
from ts_handlers.build.samples import Dataset, Sample, encode
from ts_handlers.build.target import TARGETS
from ts_handlers.errors import OperatorError

METHODS = {method.quantizer: method for method in onnx_static.METHODS}


@pytest.fixture
def network(tmp_path: Path) -> Path:
    return residual_network(tmp_path / "fp32.onnx")


@pytest.mark.parametrize("method", ["minmax", "percentile", "entropy"])
def test_a_network_s_answers_stay(method: CalibrationMethod, network: Path, tmp_path: Path) -> None:
    quantized = tmp_path / "int8.onnx"
    done = quantize_static(network, quantized, images, StaticSettings(Calibration(method)))
    assert done["calibration_runs"] == 8
    [new] = images(1, seed=2)
    assert cosine(run(quantized, **new), run(network, **new)) > 0.99


@pytest.mark.parametrize("reduce_range", [True, False])
def test_everything_is_fused_into_int8_operators(reduce_range: bool, network: Path, tmp_path: Path) -> None:
    quantize_static(network, tmp_path / "int8.onnx", images, StaticSettings(reduce_range=reduce_range))
    assert operators_run(tmp_path / "int8.onnx", tmp_path) == {
        "QuantizeLinear": 1,
        "Transpose": 2,  # to channels last, and back once there is one pixel left
        "QLinearConv": 3,
        "NhwcMaxPool": 1,
        "QLinearAdd": 1,
        "QLinearGlobalAveragePool": 1,
        "Flatten": 1,
        "QGemm": 1,  # gives floats
    }


def weights_of(path: Path) -> dict[str, Any]:
    return {
        item.name: onnx.numpy_helper.to_array(item)
        for item in onnx.load(str(path)).graph.initializer
        if item.name.endswith("_quantized") and item.data_type == onnx.TensorProto.INT8
    }


def test_weights_have_7_bits_and_a_scale_for_each_channel(network: Path, tmp_path: Path) -> None:
    quantize_static(network, tmp_path / "int8.onnx", images, StaticSettings())
    weights = weights_of(tmp_path / "int8.onnx")
    assert len(weights) == 4
    for name, array in weights.items():
        axes = tuple(range(1, array.ndim)) if array.ndim == 4 else 0
        assert (np.abs(array.astype(int)).max(axis=axes) == 64).all(), name


def test_weights_of_full_range_and_one_scale(network: Path, tmp_path: Path) -> None:
    settings = StaticSettings(per_channel=False, reduce_range=False)
    quantize_static(network, tmp_path / "int8.onnx", images, settings)
    for array in weights_of(tmp_path / "int8.onnx").values():
        assert np.abs(array.astype(int)).max() == 127


def test_symmetric_activations_have_their_zero_in_the_middle(network: Path, tmp_path: Path) -> None:
    quantize_static(network, tmp_path / "int8.onnx", images, StaticSettings(Calibration(is_symmetric=True)))
    model = onnx.load(str(tmp_path / "int8.onnx"))
    zeros = {
        int(onnx.numpy_helper.to_array(item))
        for item in model.graph.initializer
        if item.name.endswith("_zero_point") and item.data_type == onnx.TensorProto.UINT8
    }
    assert zeros == {128}
    [new] = images(1, seed=2)
    assert cosine(run(tmp_path / "int8.onnx", **new), run(network, **new)) > 0.98


def test_nodes_can_be_left_in_float(network: Path, tmp_path: Path) -> None:
    quantize_static(network, tmp_path / "int8.onnx", images, StaticSettings(operators=("Conv", "Relu")))
    operators = operators_run(tmp_path / "int8.onnx", tmp_path)
    assert (operators["QLinearConv"], operators["QLinearAdd"], operators["Add"], operators["Gemm"]) == (3, 0, 1, 1)
    names = [node.name for node in onnx.load(str(tmp_path / "int8.onnx")).graph.node if node.op_type == "Conv"]
    quantize_static(
        network, tmp_path / "mixed.onnx", images, StaticSettings(operators=("Conv", "Relu"), float_nodes=(names[0],))
    )
    assert operators_run(tmp_path / "mixed.onnx", tmp_path)["QLinearConv"] == 2


@pytest.mark.parametrize("closing", ["Softmax", "Sigmoid", "Reshape", "Flatten"])
def test_what_closes_a_graph_is_left_in_float(closing: str, network: Path, tmp_path: Path) -> None:
    model = onnx.load(str(network))
    (output,) = model.graph.output
    model.graph.node[-1].output[0] = "before"
    shape = [onnx.numpy_helper.from_array(np.array([-1, 10]), "shape")] if closing == "Reshape" else []
    model.graph.initializer.extend(shape)
    model.graph.node.append(onnx.helper.make_node(closing, ["before", *(item.name for item in shape)], [output.name]))
    closed = tmp_path / "closed.onnx"
    onnx.save(model, str(closed))
    quantized = tmp_path / "quantized.onnx"
    quantize_static(closed, quantized, images, StaticSettings())
    nodes = {node.output[0]: node for node in onnx.load(str(quantized)).graph.node}
    last = nodes[output.name]
    assert [last.op_type, nodes[last.input[0]].op_type] == [closing, "Gemm"]
    (feed,) = images(1)
    assert cosine(run(quantized, **feed), run(closed, **feed)) > 0.99


def test_a_graph_without_weights_is_refused(tmp_path: Path) -> None:
    g = Graph()
    g.node("Relu", ["x"], "y")
    path = g.save(tmp_path / "fp32.onnx", {"x": [4]}, {"y": [4]})
    with pytest.raises(OperatorError, match="nothing to quantize: no Conv or Gemm or MatMul has fixed weights"):
        quantize_static(path, tmp_path / "int8.onnx", lambda: iter(()), StaticSettings())
    assert not (tmp_path / "int8.onnx").exists()


@pytest.fixture(scope="module")
def minilm(model_dirs: ModelDirs, tmp_path_factory: pytest.TempPathFactory) -> Material:
    made_of = material(model_dirs, "minilm", tmp_path_factory.mktemp("minilm"), num_samples=5)
    assert made_of.fused.exists()
    return made_of


@pytest.mark.parametrize("quantizer", list(METHODS))
def test_a_transformer_s_products_take_integers(quantizer: str, model_dirs: ModelDirs, tmp_path: Path) -> None:
    made_of = material(model_dirs, "tiny-roberta", tmp_path, num_samples=5)
    folder = tmp_path / "engine"
    folder.mkdir()
    engine = METHODS[quantizer].make(made_of, folder)
    assert engine.runtime == {"backend": "onnx", "precision": "int8", "target_cpu": "avx2"}
    assert list(folder.iterdir()) == [engine.serialized_file]
    quantization = engine.details["quantization"]
    assert quantization["calibration"]["method"] == quantizer.removeprefix("static-")
    assert quantization["quantized_nodes"] == quantization["calibrated_tensors"] == 2 * 4 + 1
    operators = operators_run(engine.serialized_file, tmp_path)
    assert operators["MatMulIntegerToFloat"] == operators["QuantizeLinear"] == 2 * 4 + 1
    assert operators["MultiHeadAttention"] == 2
    assert not {"MatMul", "DequantizeLinear", "Attention"} & set(operators)


def test_a_sentence_s_vector_stays(minilm: Material, tmp_path: Path) -> None:
    engine = METHODS["static-percentile"].make(minilm, tmp_path)
    feed = fed(minilm, SENTENCES[1])
    assert cosine(run(engine.serialized_file, **feed), run(minilm.fused, **feed)) > 0.97


def fed(made_of: Material, sentence: str) -> dict[str, Array]:
    return {name: array[None] for name, array in encode(made_of.source, Sample(sentence)).arrays.items()}


def test_it_needs_samples(model_dirs: ModelDirs, tmp_path: Path) -> None:
    assert all(method.needs_calibration for method in onnx_static.METHODS)
    with pytest.raises(OperatorError, match="give --calibration FILE"):
        METHODS["static-minmax"].make(material(model_dirs, "tiny-distilbert", tmp_path), tmp_path)


def test_an_unfused_architecture_is_quantized_too(model_dirs: ModelDirs, tmp_path: Path) -> None:
    made_of = material(model_dirs, "tiny-mpnet", tmp_path, TARGETS["neon-dotprod"], num_samples=3)
    engine = METHODS["static-minmax"].make(made_of, tmp_path)
    assert engine.details["quantization"]["activations"] == "int8"
    assert engine.details["quantization"]["quantized_nodes"] == 2 * 6


def test_feeds_are_small_batches_of_like_lengths(model_dirs: ModelDirs, tmp_path: Path) -> None:
    made_of = material(model_dirs, "tiny-distilbert", tmp_path, num_samples=100)
    assert isinstance(made_of.calibration, Dataset)
    feeds = list(onnx_static.feeds(made_of.calibration, 1))
    assert sum(len(feed["input_ids"]) for feed in feeds) == 100
    for feed in feeds:
        assert feed["input_ids"].shape == feed["attention_mask"].shape
        assert len(feed["input_ids"]) <= onnx_static.MAX_BATCH_SIZE
        assert feed["input_ids"].size <= onnx_static.MAX_PADDED_TOKENS
    assert len(feeds) < 25
    padding = sum(int((feed["attention_mask"] == 0).sum()) for feed in feeds)
    assert padding < 0.15 * sum(feed["input_ids"].size for feed in feeds)


def test_split_attention_gives_the_same_answers(minilm: Material, tmp_path: Path) -> None:
    model = onnx.load(str(minilm.fused))
    assert split_attention(model) == 6
    onnx.save(model, str(tmp_path / "split.onnx"))
    left, right = (fed(minilm, sentence) for sentence in SENTENCES[:2])
    short, long = left["input_ids"].shape[1], right["input_ids"].shape[1]
    feed = {name: np.zeros((3, long + 2), dtype=np.int64) for name in left}
    for name, array in feed.items():
        array[0, :short], array[1, -short:], array[2, 1:-1] = left[name][0], left[name][0], right[name][0]
    expected, actual = run(minilm.fused, **feed), run(tmp_path / "split.onnx", **feed)
    mask = feed["attention_mask"].astype(bool)
    assert np.abs(actual[mask] - expected[mask]).max() < 2e-5


TWICE = """
import sys
from pathlib import Path
from tests.unit.build.graphs import images
from ts_handlers.build.quantize.blocks import BlockSettings, quantize_blocks
from ts_handlers.build.quantize.calibration import Calibration
from ts_handlers.build.quantize.dynamic import DynamicSettings, quantize_dynamic
from ts_handlers.build.quantize.static import StaticSettings, quantize_static

folder, network, transformer = map(Path, sys.argv[1:])
quantize_static(network, folder / "static.onnx", images, StaticSettings(Calibration("entropy")))
quantize_dynamic(transformer, folder / "dynamic.onnx", DynamicSettings())
quantize_blocks(transformer, folder / "blocks.onnx", BlockSettings())
"""


def test_the_same_inputs_give_the_same_bytes(network: Path, model_dirs: ModelDirs, tmp_path: Path) -> None:
    """In processes whose sets have other orders."""
    transformer = material(model_dirs, "tiny-distilbert", tmp_path).fused
    digests = []
    for seed in ("1", "2"):
        folder = tmp_path / seed
        folder.mkdir()
        environ = os.environ | {"PYTHONHASHSEED": seed, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
        subprocess.run(
            [sys.executable, "-c", TWICE, str(folder), str(network), str(transformer)],
            check=True,
            env=environ,
            timeout=120,
        )
        digests.append({file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in folder.iterdir()})
    assert len(digests[0]) == 3
    assert digests[0] == digests[1]


def test_a_product_without_a_name_is_quantized(tmp_path: Path) -> None:
    path = product(tmp_path / "fp32.onnx", np.ones((8, 8)))
    model = onnx.load(str(path))
    model.graph.node[0].name = ""
    onnx.save(model, str(path))
    feeds = [{"x": np.ones((1, 8), dtype=np.float32)}]
    done = quantize_static(path, tmp_path / "int8.onnx", lambda: feeds, StaticSettings(has_float_outputs=True))
    assert done["quantized_nodes"] == 1
