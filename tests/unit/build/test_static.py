from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import tracemalloc
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest

from tests.model_dirs import ModelDirs
from tests.unit.build.graphs import Graph, cosine, images, operators_run, product, residual_network, run
from tests.unit.build.materials import SENTENCES, material
from ts_handlers.build.engine import Engine, Material
from ts_handlers.build.methods import feeds as feeds_module
from ts_handlers.build.methods.catalogue import METHODS, find_method
from ts_handlers.build.quantize import graph as graph_module
from ts_handlers.build.quantize.attention import split_attention
from ts_handlers.build.quantize.graph import Feed
from ts_handlers.build.quantize.int8 import CalibrationMethod, quantize_static
from ts_handlers.build.samples import Dataset, Sample, encode
from ts_handlers.build.target import TARGETS
from ts_handlers.errors import OperatorError
from ts_handlers.machine import CpuBudget
from ts_handlers.shapes import Array

ALL: tuple[CalibrationMethod, ...] = ("minmax", "percentile", "entropy")


@pytest.fixture
def network(tmp_path: Path) -> Path:
    return residual_network(tmp_path / "fp32.onnx")


def quantize(path: Path, *, method: CalibrationMethod = "minmax", reduce_range: bool = True, fed: Any = None) -> Path:
    """Quantize a file; return the quantized one beside it."""
    quantized = path.with_name("int8.onnx")
    feeds = images() if fed is None else fed
    quantize_static(onnx.load(str(path)), quantized, feeds, method=method, reduce_range=reduce_range)
    return quantized


def make(quantizer: str, made_of: Material, folder: Path) -> Engine:
    folder.mkdir(exist_ok=True)
    return find_method("onnx", "int8", quantizer).make(made_of, folder)


@pytest.mark.parametrize("method", ALL)
def test_a_network_s_answers_stay(method: CalibrationMethod, network: Path) -> None:
    [new] = images(1, seed=2)
    assert cosine(run(quantize(network, method=method), **new), run(network, **new)) > 0.99


@pytest.mark.parametrize("reduce_range", [True, False])
def test_a_network_is_fused_into_int8_operators(reduce_range: bool, network: Path, tmp_path: Path) -> None:
    assert operators_run(quantize(network, reduce_range=reduce_range), tmp_path) == {
        "QuantizeLinear": 1,
        "Transpose": 2,  # to channels last, and back once there is one pixel left
        "QLinearConv": 3,
        "NhwcMaxPool": 1,
        "QLinearAdd": 1,
        "QLinearGlobalAveragePool": 1,
        "Flatten": 1,
        "DequantizeLinear": 1,
        "Gemm": 1,  # 8 bits are few for scores
    }


@pytest.mark.parametrize(("reduce_range", "largest"), [(True, 64), (False, 127)])
def test_weights_have_7_or_8_bits_and_a_scale_for_each_channel(reduce_range: bool, largest: int, network: Path) -> None:
    weights = {
        item.name: onnx.numpy_helper.to_array(item).astype(int)
        for item in onnx.load(str(quantize(network, reduce_range=reduce_range))).graph.initializer
        if item.name.endswith("_quantized") and item.data_type == onnx.TensorProto.INT8
    }
    assert len(weights) == 3
    for name, array in weights.items():
        assert (np.abs(array).max(axis=(1, 2, 3)) == largest).all(), name


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
    quantized = quantize(closed)
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
        quantize(path)
    assert not (tmp_path / "int8.onnx").exists()


def test_a_product_without_a_name_is_quantized(tmp_path: Path) -> None:
    path = product(tmp_path / "fp32.onnx", np.ones((8, 8)))
    model = onnx.load(str(path))
    model.graph.node[0].name = ""
    feeds = [{"x": np.ones((1, 8), dtype=np.float32)}]
    done = quantize_static(model, tmp_path / "int8.onnx", feeds, method="minmax", reduce_range=True)
    assert done == {"quantized_nodes": 1, "calibration_runs": 1}


def batches(number: int, scale: float = 1.0) -> Iterator[Feed]:
    rng = np.random.default_rng(1)
    for _ in range(number):
        yield {"x": rng.normal(scale=scale, size=(16, 64)).astype(np.float32)}


@pytest.fixture
def exponent(tmp_path: Path) -> Path:
    """A product of what overflows where x is large."""
    g = Graph()
    exponent = g.node("Exp", ["x"], "exponent")
    g.node("MatMul", [exponent, g.dense("w", 64, 32)], "y")
    return g.save(tmp_path / "fp32.onnx", {"x": ["batch", 64]}, {"y": ["batch", 32]})


@pytest.mark.parametrize("method", ALL)
def test_samples_that_cannot_be_used(method: CalibrationMethod, exponent: Path) -> None:
    with pytest.raises(OperatorError, match="there are no samples"):
        quantize(exponent, method=method, fed=[])
    with pytest.raises(OperatorError, match="overflows on"):
        quantize(exponent, method=method, fed=batches(1, scale=1e4))
    wrong = {"x": np.zeros((1, 3), dtype=np.float32)}
    with pytest.raises(OperatorError, match="the fp32 model fails or overflows on feed 2: "):
        quantize(exponent, method=method, fed=[*batches(1), wrong])


@pytest.mark.parametrize("method", ALL)
def test_memory_does_not_grow_with_the_number_of_samples(method: CalibrationMethod, exponent: Path) -> None:
    def peak(number: int) -> int:
        tracemalloc.start()
        quantize(exponent, method=method, fed=batches(number))
        found = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return found

    peak(2)  # what is imported and cached once
    assert peak(300) < peak(10) + 290 * 1000  # a feed's activations alone are 6 kB


def test_samples_are_run_on_the_cpus_of_the_budget(exponent: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []
    session = ort.InferenceSession

    def opened(path: str, options: ort.SessionOptions, **settings: Any) -> Any:
        asked.append(options.intra_op_num_threads)
        return session(path, options, **settings)

    monkeypatch.setattr(ort, "InferenceSession", opened)
    for quota in (2.9, 0.5):
        monkeypatch.setattr(graph_module, "cpu_budget", lambda quota=quota: CpuBudget(tuple(range(64)), quota))
        graph_module.open_unfused(exponent)
    assert asked == [2, 1]


@pytest.fixture(scope="module")
def minilm(model_dirs: ModelDirs, tmp_path_factory: pytest.TempPathFactory) -> Material:
    made_of = material(model_dirs, "minilm", tmp_path_factory.mktemp("minilm"), num_samples=5)
    assert made_of.fused.exists()
    return made_of


@pytest.mark.parametrize("method", ALL)
def test_a_transformer_s_products_take_integers(
    method: CalibrationMethod, model_dirs: ModelDirs, tmp_path: Path
) -> None:
    made_of = material(model_dirs, "tiny-roberta", tmp_path, num_samples=5)
    folder = tmp_path / "engine"
    engine = make(f"static-{method}", made_of, folder)
    assert engine.runtime == {"backend": "onnx", "precision": "int8", "target_cpu": "avx2"}
    assert list(folder.iterdir()) == [engine.serialized_file]
    quantization = engine.details["quantization"]
    assert quantization["calibration"] == method
    assert quantization["quantized_nodes"] == 2 * 4 + 1
    operators = operators_run(engine.serialized_file, tmp_path)
    assert operators["MatMulIntegerToFloat"] == operators["QuantizeLinear"] == 2 * 4 + 1
    assert operators["MultiHeadAttention"] == 2
    assert not {"MatMul", "DequantizeLinear", "Attention"} & set(operators)


def test_a_sentence_s_vector_stays(minilm: Material, tmp_path: Path) -> None:
    engine = make("static-percentile", minilm, tmp_path)
    feed = fed(minilm, SENTENCES[1])
    assert cosine(run(engine.serialized_file, **feed), run(minilm.fused, **feed)) > 0.97


def fed(made_of: Material, sentence: str) -> dict[str, Array]:
    return {name: array[None] for name, array in encode(made_of.source, Sample(sentence)).arrays.items()}


def test_it_needs_samples(model_dirs: ModelDirs, tmp_path: Path) -> None:
    static = [method for method in METHODS if str(method.quantizer).startswith("static-")]
    assert [method.needs_calibration for method in static] == [True] * 3
    with pytest.raises(OperatorError, match="give --calibration FILE"):
        make("static-minmax", material(model_dirs, "tiny-distilbert", tmp_path), tmp_path)


def test_an_unfused_architecture_is_quantized_too(model_dirs: ModelDirs, tmp_path: Path) -> None:
    made_of = material(model_dirs, "tiny-mpnet", tmp_path, TARGETS["neon-dotprod"], num_samples=3)
    engine = make("static-minmax", made_of, tmp_path)
    assert engine.details["quantization"]["activations"] == "int8"
    assert engine.details["quantization"]["quantized_nodes"] == 2 * 6


def test_feeds_are_small_batches_of_like_lengths(model_dirs: ModelDirs, tmp_path: Path) -> None:
    made_of = material(model_dirs, "tiny-distilbert", tmp_path, num_samples=100)
    assert isinstance(made_of.calibration, Dataset)
    feeds = list(feeds_module.feeds(made_of.calibration, made_of.source))
    assert sum(len(feed["input_ids"]) for feed in feeds) == 100
    for feed in feeds:
        assert feed["input_ids"].shape == feed["attention_mask"].shape
        assert len(feed["input_ids"]) <= feeds_module.MAX_BATCH_SIZE
        assert feed["input_ids"].size <= feeds_module.MAX_PADDED_TOKENS
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
import onnx
from tests.unit.build.graphs import images
from ts_handlers.build.quantize.blocks import quantize_blocks
from ts_handlers.build.quantize.int8 import quantize_dynamic, quantize_static

folder, network, transformer = map(Path, sys.argv[1:])
quantize_static(onnx.load(network), folder / "static.onnx", images(), method="entropy", reduce_range=True)
quantize_dynamic(onnx.load(transformer), folder / "dynamic.onnx", reduce_range=True)
model = onnx.load(transformer)
quantize_blocks(model)
onnx.save(model, folder / "blocks.onnx")
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
