from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import onnx
import pytest

from tests.model_dirs import ModelDirs
from tests.unit.build.graphs import Graph, cosine, product, run
from tests.unit.build.materials import SENTENCES, material
from ts_handlers.build.quantize import graph as module
from ts_handlers.build.quantize.attention import split_attention
from ts_handlers.build.quantize.graph import measure_maxima, measure_moments, products
from ts_handlers.build.quantize.int8 import quantize_dynamic
from ts_handlers.build.quantize.smooth import factors, smooth
from ts_handlers.build.samples import Sample, encode
from ts_handlers.errors import OperatorError
from ts_handlers.shapes import Array

RNG = np.random.default_rng(4)
X = RNG.normal(size=(5, 16)).astype(np.float32)


def feeds(number: int = 3) -> Iterator[dict[str, Array]]:
    rng = np.random.default_rng(5)
    for _ in range(number):
        yield {"x": rng.normal(size=(2, 7, 16)).astype(np.float32) * np.linspace(0.1, 9, 16, dtype=np.float32)}


def normalized(g: Graph) -> str:
    scale, bias = g.weight("scale", np.linspace(0.2, 8, 16)), g.weight("bias", np.linspace(-1, 1, 16))
    return g.node("LayerNormalization", ["x", scale, bias], "normal", axis=-1)


def save(g: Graph, path: Path, outputs: int = 8) -> Path:
    return g.save(path, {"x": ["batch", "length", 16]}, {"y": ["batch", "length", outputs]})


def queries_and_keys(g: Graph, path: Path) -> Path:
    """Write two products that share one normalization."""
    normal = normalized(g)
    parts = [g.node("MatMul", [normal, g.dense(name, 16, 8)], f"{name}_out") for name in ("q", "k")]
    g.node("Add", parts, "y")
    return save(g, path)


def residual(g: Graph, path: Path) -> Path:
    """Write a product of a normalization that is also added."""
    normal = normalized(g)
    g.node("Add", [normal, g.node("MatMul", [normal, g.dense("w", 16, 16)], "out")], "y")
    return save(g, path, 16)


def chain(g: Graph, path: Path) -> Path:
    """Write a product of a product with a bias; what the first takes is an input of the graph."""
    first = g.node("MatMul", ["x", g.dense("first", 16, 12)], "first_out")
    shifted = g.node("Add", [g.weight("shift", np.linspace(-2, 2, 12)), first], "shifted")
    g.node("MatMul", [shifted, g.dense("second", 12, 8)], "y")
    return save(g, path)


def curved(g: Graph, path: Path) -> Path:
    """Write a product of what a curve gives, whose channels cannot be divided before it."""
    first = g.node("MatMul", ["x", g.dense("first", 16, 12)], "first_out")
    g.node("MatMul", [g.node("Tanh", [first], "curve"), g.dense("second", 12, 8)], "y")
    return save(g, path)


@pytest.mark.parametrize(
    ("write", "folded", "inserted"),
    [(queries_and_keys, 1, 0), (residual, 0, 1), (chain, 1, 1), (curved, 0, 2)],
)
def test_the_graph_computes_the_same(
    write: Callable[[Graph, Path], Path], folded: int, inserted: int, tmp_path: Path
) -> None:
    path = write(Graph(), tmp_path / "fp32.onnx")
    model = onnx.load(str(path))
    maxima = measure_maxima(model, feeds, tmp_path)
    before = [onnx.numpy_helper.to_array(item).copy() for item in model.graph.initializer]
    assert smooth(model, maxima, 0.7) == (folded, inserted)
    onnx.checker.check_model(model, full_check=True)
    onnx.save(model, str(tmp_path / "smooth.onnx"))
    [feed] = feeds(1)
    np.testing.assert_allclose(run(tmp_path / "smooth.onnx", **feed), run(path, **feed), rtol=1e-5, atol=1e-5)
    assert any(
        not np.array_equal(onnx.numpy_helper.to_array(item), old)
        for item, old in zip(model.graph.initializer, before, strict=False)
    )


@pytest.mark.parametrize("kind", ["tiny-roberta", "tiny-mpnet"])
def test_a_transformer_computes_the_same(kind: str, model_dirs: ModelDirs, tmp_path: Path) -> None:
    made_of = material(model_dirs, kind, tmp_path)
    encoded = [encode(made_of.source, Sample(sentence)).arrays for sentence in SENTENCES]
    samples = [{name: array[None] for name, array in arrays.items()} for arrays in encoded]
    model = onnx.load(str(made_of.fused))
    expected = len(products(model))
    num_folded, num_inserted = smooth(model, measure_maxima(model, lambda: samples, tmp_path), 0.8)
    assert num_folded + num_inserted == expected
    assert num_folded == (2 if kind == "tiny-roberta" else 0)  # the values of fused attention, a layer each
    onnx.save(model, str(tmp_path / "smooth.onnx"))
    assert split_attention(model) == num_folded
    onnx.save(model, str(tmp_path / "split.onnx"))
    for feed in samples:
        answer = run(made_of.fused, **feed)
        for name in ("smooth.onnx", "split.onnx"):
            error = np.linalg.norm(run(tmp_path / name, **feed) - answer) / np.linalg.norm(answer)
            assert error < 1e-5, (name, error)


def test_weights_and_parameters_that_others_use_stay(tmp_path: Path) -> None:
    g = Graph()
    normal, w = normalized(g), g.dense("w", 16, 16)
    g.node("MatMul", [g.node("MatMul", [normal, w], "once"), w], "y")
    model = onnx.load(str(save(g, tmp_path / "tied.onnx", 16)))
    assert products(model) == {}
    g = Graph()
    scale = g.weight("scale", np.linspace(0.2, 8, 16))
    normal = g.node("LayerNormalization", ["x", scale, scale], "normal", axis=-1)
    g.node("MatMul", [normal, g.dense("w", 16, 8)], "y")
    model = onnx.load(str(save(g, tmp_path / "shared.onnx")))
    assert smooth(model, {"normal": np.ones(16, dtype=np.float32)}, 0.5) == (0, 1)


def test_an_output_of_the_graph_is_not_divided(tmp_path: Path) -> None:
    g = Graph()
    g.node("MatMul", [g.node("MatMul", ["x", g.dense("a", 16, 16)], "y"), g.dense("b", 16, 8)], "z")
    path = g.save(tmp_path / "g.onnx", {"x": ["n", 16]}, {"y": ["n", 16], "z": ["n", 8]})
    model = onnx.load(str(path))
    smooth(model, {name: np.linspace(1, 9, 16, dtype=np.float32) for name in ("x", "y")}, 0.5)
    onnx.save(model, str(tmp_path / "smooth.onnx"))
    np.testing.assert_allclose(run(tmp_path / "smooth.onnx", x=X), run(path, x=X), atol=1e-5)


def test_factors_are_the_source_s_up_to_a_common_one() -> None:
    maxima, weights = np.array([1, 4, 100], dtype=np.float32), np.array([[1, -2], [0.5, 0], [2, 1]], dtype=np.float32)
    found = factors(maxima, [weights, weights * np.float32(0.5)], 0.75)
    expected = maxima**0.75 / np.array([2, 0.5, 2]) ** 0.25
    np.testing.assert_allclose(found / found[0], expected / expected[0], rtol=1e-5)
    assert np.prod(found) == pytest.approx(1, rel=1e-4)


def test_a_channel_that_is_always_zero_has_a_factor_within_bounds() -> None:
    found = factors(np.array([0, 1], dtype=np.float32), [np.array([[0], [1]], dtype=np.float32)], 0.5)
    assert np.isfinite(found).all()
    assert (found > 0).all()


def test_outliers_leave_room_for_the_other_channels(tmp_path: Path) -> None:
    path = product(tmp_path / "fp32.onnx", RNG.normal(size=(16, 8)))
    x = X * np.where(np.arange(16) == 3, 500, 1).astype(np.float32)
    model = onnx.load(str(path))
    smooth(model, measure_maxima(model, lambda: [{"x": x}], tmp_path), 0.5)
    onnx.save(model, str(tmp_path / "smooth.onnx"))
    errors = []
    for name in ("fp32", "smooth"):
        quantize_dynamic(onnx.load(str(tmp_path / f"{name}.onnx")), tmp_path / "int8.onnx", reduce_range=True)
        others = x * (np.arange(16) != 3) + x[:1] * (np.arange(16) == 3)
        difference = run(tmp_path / "int8.onnx", x=others) - run(path, x=others)
        errors.append(np.linalg.norm(difference - difference.mean(axis=0)))
    assert errors[1] < errors[0] / 3


def test_maxima_and_moments_are_numpy_s(tmp_path: Path) -> None:
    model = onnx.load(str(curved(Graph(), tmp_path / "fp32.onnx")))
    rows = np.concatenate([feed["x"].reshape(-1, 16) for feed in feeds()])
    maxima = measure_maxima(model, feeds, tmp_path)
    assert list(maxima) == ["x", "curve"]
    np.testing.assert_allclose(maxima["x"], np.abs(rows).max(axis=0), rtol=1e-6)
    moments = dict(measure_moments(model, feeds, tmp_path))
    np.testing.assert_allclose(moments["x"], rows.T @ rows, rtol=1e-4, atol=1e-3)
    assert moments["curve"].shape == (12, 12)


def test_moments_of_wide_layers_take_several_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = onnx.load(str(curved(Graph(), tmp_path / "fp32.onnx")))
    together = dict(measure_moments(model, feeds, tmp_path))
    monkeypatch.setattr(module, "MAX_MOMENTS_BYTES", 4 * 16 * 16)
    num_runs = []

    def counted() -> Iterator[dict[str, Array]]:
        num_runs.append(1)
        return feeds()

    apart = dict(measure_moments(model, counted, tmp_path))
    assert len(num_runs) == 2
    for name, array in together.items():
        np.testing.assert_allclose(apart[name], array, rtol=1e-5)


def test_a_model_that_overflows_is_said(tmp_path: Path) -> None:
    model = onnx.load(str(product(tmp_path / "fp32.onnx", np.ones((4, 2)))))
    bad = np.full((1, 4), np.inf, dtype=np.float32)
    with pytest.raises(OperatorError, match="x is not finite on feed 2"):
        measure_maxima(model, lambda: [{"x": np.ones_like(bad)}, {"x": bad}], tmp_path)


def test_samples_that_cannot_be_used(tmp_path: Path) -> None:
    model = onnx.load(str(product(tmp_path / "fp32.onnx", np.ones((4, 2)))))
    with pytest.raises(OperatorError, match="there are no samples"):
        measure_maxima(model, lambda: iter(()), tmp_path)
    wrong = {"x": np.zeros((1, 3), dtype=np.float32)}
    with pytest.raises(OperatorError, match="the fp32 model fails on feed 1: "):
        measure_maxima(model, lambda: [wrong], tmp_path)
    assert not (tmp_path / "calibration.onnx").exists()


def test_smoothing_keeps_the_direction_of_answers(tmp_path: Path) -> None:
    path = queries_and_keys(Graph(), tmp_path / "fp32.onnx")
    model = onnx.load(str(path))
    smooth(model, measure_maxima(model, feeds, tmp_path), 1.0)
    onnx.save(model, str(tmp_path / "smooth.onnx"))
    quantize_dynamic(model, tmp_path / "int8.onnx", reduce_range=True)
    [feed] = feeds(1)
    assert cosine(run(tmp_path / "int8.onnx", **feed), run(path, **feed)) > 0.999
