"""Ranges of activations, measured on a stream."""

from __future__ import annotations

import tracemalloc
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper, numpy_helper

from ts_handlers.build.quantize import calibration as module
from ts_handlers.build.quantize.calibration import Calibration, CalibrationMethod, Feed, measure_ranges
from ts_handlers.build.quantize.histogram import HALF, Histogram
from ts_handlers.cpu import CpuBudget
from ts_handlers.errors import OperatorError

RNG = np.random.default_rng(5)


def counted(*parts: np.ndarray) -> Histogram:
    histogram = Histogram()
    for part in parts:
        histogram.add(part)
    return histogram


def product() -> onnx.ModelProto:
    """Return y = x @ W."""
    weights = np.linspace(-1, 1, 64 * 32, dtype=np.float32).reshape(64, 32)
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["h"], name="product"), helper.make_node("Exp", ["h"], ["y"])],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 64])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", 32])],
        [numpy_helper.from_array(weights, "w")],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def batches(number: int, scale: float = 1.0) -> Iterator[Feed]:
    rng = np.random.default_rng(1)
    for _ in range(number):
        yield {"x": rng.normal(scale=scale, size=(16, 64)).astype(np.float32)}


@pytest.mark.parametrize("first", [1e-30, 1e-3, 1.0])
def test_a_histogram_does_not_depend_on_the_order_of_values(first: float) -> None:
    parts = [RNG.normal(scale=first * 10**power, size=1000).astype(np.float32) for power in range(4)]
    parts.append(np.zeros(7, dtype=np.float32))
    there, back = counted(*parts), counted(*parts[::-1])
    at_once = counted(np.concatenate(parts))
    for percentile in (100.0, 99.0, 90.0):
        expected = at_once.percentile_range(percentile)
        assert there.percentile_range(percentile) == back.percentile_range(percentile) == expected
    assert there.entropy_range() == back.entropy_range() == at_once.entropy_range()


def test_a_percentile_cuts_both_ends() -> None:
    values = np.arange(100_000, dtype=np.float32) - 20_000
    low, high = counted(values).percentile_range(99.0)
    width = 131_072 / HALF
    assert low == pytest.approx(np.percentile(values, 0.5), abs=width)
    assert high == pytest.approx(np.percentile(values, 99.5), abs=width)
    assert counted(values).percentile_range(100.0) == (-20_000, 79_999)


def test_a_symmetric_percentile_cuts_by_magnitude() -> None:
    values = np.append(np.full(999, -2.0, dtype=np.float32), np.float32(50))
    low, high = counted(values).percentile_range(99.0, is_symmetric=True)
    assert low == -2.0
    assert high == pytest.approx(2.0, abs=0.05)


def test_entropy_cuts_what_is_far_off_and_keeps_what_is_even() -> None:
    bell = RNG.normal(size=200_000).astype(np.float32)
    low, high = counted(np.append(bell, np.float32(400))).entropy_range()
    assert low == bell.min()
    assert 3 < high < 40
    even = RNG.uniform(0, 6, size=200_000).astype(np.float32)
    low, high = counted(even).entropy_range()
    assert low == even.min()
    assert high == pytest.approx(even.max(), rel=0.02)


@pytest.mark.parametrize("sign", [1, -1])
def test_zeros_do_not_make_entropy_cut_the_rest(sign: int) -> None:
    after_relu6 = np.clip(RNG.normal(-1, 2, size=200_000), 0, 6).astype(np.float32)  # 69 % zeros, some at 6
    assert counted(sign * after_relu6).entropy_range() == pytest.approx(tuple(sorted((0, sign * 6))), abs=0.1)


@pytest.mark.parametrize("values", [[0.0], [3.0], [-3.0], [1e-20, -1e-20], [3e38, -3e38]])
def test_few_values_are_all_kept(values: list[float]) -> None:
    histogram = counted(np.array(values, dtype=np.float32))
    expected = float(np.float32(min(values))), float(np.float32(max(values)))
    assert histogram.percentile_range(99.999) == expected
    assert histogram.entropy_range() == expected


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_is_not_counted(value: float) -> None:
    with pytest.raises(ValueError, match="cannot be counted"):
        counted(np.array([1.0, value], dtype=np.float32))


def test_nothing_is_added_by_an_empty_tensor() -> None:
    assert counted(np.ones(3), np.zeros((0, 4))).percentile_range(100.0) == (1.0, 1.0)


@pytest.mark.parametrize("method", ["minmax", "percentile", "entropy"])
def test_ranges_are_those_of_the_tensors(method: CalibrationMethod, tmp_path: Path) -> None:
    measured = measure_ranges(product(), ["x", "h"], lambda: batches(20), Calibration(method, 99.0), tmp_path)
    assert measured.num_feeds == 20
    x = np.concatenate([feed["x"] for feed in batches(20)])
    low, high = measured.ranges["x"]
    if method == "minmax":
        assert (low, high) == (x.min(), x.max())
    elif method == "percentile":
        assert x.min() < low < -2
        assert 2 < high < x.max()
    else:
        assert x.min() <= low < -2
        assert 2 < high <= x.max()
    assert measured.ranges["h"][1] > high
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("method", ["minmax", "percentile", "entropy"])
def test_symmetric_ranges(method: CalibrationMethod, tmp_path: Path) -> None:
    calibration = Calibration(method, 99.0, is_symmetric=True)
    for low, high in measure_ranges(product(), ["x", "h"], lambda: batches(5), calibration, tmp_path).ranges.values():
        assert low == -high


@pytest.mark.parametrize("method", ["minmax", "percentile", "entropy"])
def test_memory_does_not_grow_with_the_number_of_samples(method: CalibrationMethod, tmp_path: Path) -> None:
    def peak(number: int) -> int:
        tracemalloc.start()
        measure_ranges(product(), ["x", "h"], lambda: batches(number), Calibration(method), tmp_path)
        found = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return found

    peak(2)  # what is imported and cached once
    assert peak(1000) < peak(10) + 20_000  # a feed's activations alone are 6 kB


@pytest.mark.parametrize("method", ["minmax", "percentile"])
def test_samples_that_cannot_be_used(method: CalibrationMethod, tmp_path: Path) -> None:
    calibration = Calibration(method)
    with pytest.raises(OperatorError, match="there are no samples"):
        measure_ranges(product(), ["x"], lambda: iter(()), calibration, tmp_path)
    with pytest.raises(OperatorError, match=r"y is not finite on feed 1: the fp32 model itself overflows"):
        measure_ranges(product(), ["y"], lambda: batches(1, scale=1e4), calibration, tmp_path)
    with pytest.raises(OperatorError, match="the fp32 model fails on feed 1: .*'x'"):
        measure_ranges(product(), ["x"], lambda: iter([{}]), calibration, tmp_path)
    wrong = {"x": np.zeros((1, 3), dtype=np.float32)}
    with pytest.raises(OperatorError, match="the fp32 model fails on feed 2: "):
        measure_ranges(product(), ["x"], lambda: iter([*batches(1), wrong]), calibration, tmp_path)


def test_nothing_to_measure_needs_no_samples(tmp_path: Path) -> None:
    assert measure_ranges(product(), [], lambda: iter(()), Calibration(), tmp_path).ranges == {}


def test_samples_are_run_on_the_cpus_of_the_budget(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []
    session = ort.InferenceSession

    def opened(path: str, options: ort.SessionOptions, **settings: Any) -> Any:
        asked.append(options.intra_op_num_threads)
        return session(path, options, **settings)

    monkeypatch.setattr(ort, "InferenceSession", opened)
    for quota in (2.9, 0.5):
        monkeypatch.setattr(module, "cpu_budget", lambda quota=quota: CpuBudget(tuple(range(64)), quota))
        measure_ranges(product(), ["h"], lambda: batches(1), Calibration("minmax"), tmp_path)
    assert asked == [2, 1]
