"""The ranges of a graph's activations, measured on a stream of samples in bounded memory.

onnxruntime.quantization's calibrators keep what they read until the end of their reader: all activations of all samples
for histograms, two numbers a tensor and sample for the extremes. Their histograms also grow with the ratio of the largest
value to the first sample's. Here a sample is forgotten once it is counted.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import onnx
from onnx import TensorProto, helper

from ts_handlers.batch import Array
from ts_handlers.build.quantize.histogram import Histogram
from ts_handlers.cpu import cpu_budget
from ts_handlers.errors import OperatorError

Feed = Mapping[str, Array]
"""What one run of a graph is fed: input name -> array."""

Feeds = Callable[[], Iterable[Feed]]
"""Reads the samples anew, from the first to the last."""

Ranges = dict[str, tuple[float, float]]
"""Tensor name -> smallest and largest value to represent."""

CalibrationMethod = Literal["minmax", "entropy", "percentile"]

MIN, MAX = "_calibration_min", "_calibration_max"


@dataclass(frozen=True, slots=True)
class Calibration:
    """How ranges are found.

    Attributes:
        method: `minmax` takes the extremes; `percentile` cuts a fixed part of the values, `entropy` what costs least
            information.
        percentile: Percent of the values that `percentile` keeps.
        is_symmetric: Whether ranges are made symmetric around zero.
    """

    method: CalibrationMethod = "minmax"
    percentile: float = 99.999
    is_symmetric: bool = False


@dataclass(frozen=True, slots=True)
class Measured:
    """What was measured.

    Attributes:
        ranges: Range of each tensor.
        num_feeds: Runs of the graph.
    """

    ranges: Ranges
    num_feeds: int


def measure_ranges(
    model: onnx.ModelProto, tensors: Sequence[str], feeds: Feeds, calibration: Calibration, work: Path
) -> Measured:
    """Run a graph on all feeds, once, and return the range of each tensor.

    Args:
        model: The graph, in fp32.
        tensors: Names of float tensors of it.
        feeds: The samples.
        calibration: How ranges are found.
        work: Folder for the graph with these tensors as its outputs.

    Raises:
        OperatorError: There are no samples, or the graph fails or overflows on one.
    """
    if not tensors:
        return Measured({}, 0)
    if calibration.method == "minmax":
        return _extremes(model, tensors, feeds, calibration, work)
    histograms = {name: Histogram() for name in tensors}
    num_feeds = 0
    for outputs in run_graph(with_outputs(model, tensors), feeds, work):
        num_feeds += 1
        for name, histogram in histograms.items():
            _count(histogram, name, outputs[name], num_feeds)
    return Measured({name: _range(histogram, calibration) for name, histogram in histograms.items()}, num_feeds)


def _extremes(
    model: onnx.ModelProto, tensors: Sequence[str], feeds: Feeds, calibration: Calibration, work: Path
) -> Measured:
    """Reduce each tensor within the graph, so that it never leaves it."""
    ranges = dict.fromkeys(tensors, (math.inf, -math.inf))
    num_feeds = 0
    for outputs in run_graph(_with_extremes(model, tensors), feeds, work):
        num_feeds += 1
        for name, (lowest, highest) in ranges.items():
            low, high = float(outputs[name + MIN]), float(outputs[name + MAX])
            if not (math.isfinite(low) and math.isfinite(high)):
                raise _overflow(name, num_feeds)
            ranges[name] = min(lowest, low), max(highest, high)
    if calibration.is_symmetric:
        ranges = {name: _symmetric(*found) for name, found in ranges.items()}
    return Measured(ranges, num_feeds)


def _count(histogram: Histogram, name: str, values: Array, feed: int) -> None:
    try:
        histogram.add(values)
    except ValueError as error:
        raise _overflow(name, feed) from error


def _overflow(name: str, feed: int) -> OperatorError:
    return OperatorError(
        f"calibration: {name} is not finite on feed {feed}: the fp32 model itself overflows; leave that sample out"
    )


def _range(histogram: Histogram, calibration: Calibration) -> tuple[float, float]:
    if calibration.method == "entropy":
        found = histogram.entropy_range()
    else:
        found = histogram.percentile_range(calibration.percentile, is_symmetric=calibration.is_symmetric)
    return _symmetric(*found) if calibration.is_symmetric else found


def _symmetric(low: float, high: float) -> tuple[float, float]:
    magnitude = max(-low, high)
    return -magnitude, magnitude


def with_outputs(model: onnx.ModelProto, tensors: Sequence[str]) -> onnx.ModelProto:
    """Return a copy of a graph whose outputs are these float tensors of it."""
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    del copy.graph.output[:]
    copy.graph.output.extend(helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in tensors)
    return copy


def _with_extremes(model: onnx.ModelProto, tensors: Sequence[str]) -> onnx.ModelProto:
    """Return a copy whose outputs are the smallest and the largest value of each tensor."""
    copy = with_outputs(model, [name + end for name in tensors for end in (MIN, MAX)])
    for name in tensors:
        for operator, end in (("ReduceMin", MIN), ("ReduceMax", MAX)):
            copy.graph.node.append(helper.make_node(operator, [name], [name + end], keepdims=0))
    return copy


def run_graph(model: onnx.ModelProto, feeds: Feeds, work: Path) -> Iterable[dict[str, Array]]:
    """Run a graph on all feeds, unfused, and yield its outputs, one feed at a time.

    Raises:
        OperatorError: There are no samples, or the graph fails on one.
    """
    import onnxruntime as ort

    path = work / "calibration.onnx"
    onnx.save(model, str(path))
    options = ort.SessionOptions()
    options.intra_op_num_threads = max(1, int(cpu_budget().cpus))
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL  # a fused tensor cannot be measured
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.enable_cpu_mem_arena = False  # it would keep the memory of the largest feed for every shape
    session: Any = ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    path.unlink()
    inputs = [item.name for item in session.get_inputs()]
    names = [item.name for item in session.get_outputs()]
    is_fed = False
    for number, feed in enumerate(feeds(), 1):
        try:
            outputs = session.run(names, {name: feed[name] for name in inputs})
        except Exception as error:  # onnxruntime's errors have no common base class
            raise OperatorError(f"calibration: the fp32 model fails on feed {number}: {error}") from error
        is_fed = True
        yield dict(zip(names, outputs, strict=True))
    if not is_fed:
        raise OperatorError("calibration: there are no samples; give some that are like the traffic")
