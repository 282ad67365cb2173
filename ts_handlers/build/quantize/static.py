"""Static INT8 for ONNX Runtime: weights and activations get their integers here, from measured ranges (QDQ).

The function knows nothing of texts or images: it takes a graph and what to feed it.
"""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Container, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import onnx
from onnx import TensorProto, helper

from ts_handlers.build.quantize.calibration import Calibration, Feeds, Ranges, measure_ranges
from ts_handlers.errors import OperatorError

IMAGE_OPERATORS = (
    "Add",
    "AveragePool",
    "Clip",
    "Concat",
    "Conv",
    "Flatten",
    "Gemm",
    "GlobalAveragePool",
    "MatMul",
    "MaxPool",
    "Mul",
    "Relu",
    "Reshape",
    "Sigmoid",
)
"""What convolutional networks are made of, each with an INT8 kernel: one left out in the middle costs two conversions."""

TEXT_OPERATORS = ("MatMul",)
"""Of a transformer the products with weights, which are most of the time; attention, GELU and normalization have no INT8
kernels of their own, and converting around them costs more than it gains."""

_CLOSING = frozenset({"Cast", "Flatten", "Identity", "LogSoftmax", "Reshape", "Sigmoid", "Softmax", "Squeeze"})
"""What may stand between the last product and an answer: it is left in float, for 8 bits are few for scores."""

_WITH_WEIGHTS = frozenset({"Conv", "Gemm", "MatMul"})


@dataclass(frozen=True, slots=True)
class StaticSettings:
    """How a graph is quantized.

    Attributes:
        calibration: How the ranges of activations are found.
        operators: What is quantized.
        per_channel: One scale for each output channel of a weight, not one for all.
        reduce_range: 7-bit weights, for CPUs that sum two 8-bit products in 16 bits (`TargetCpu.has_vnni`).
        activations: Their integers; x86 multiplies unsigned by signed, ARM signed by signed.
        has_float_outputs: Whether products give floats at once, where nothing quantized follows them.
        float_nodes: Names of nodes that are left in float.
        fold: Whether batch normalization is folded and shapes are inferred first.
    """

    calibration: Calibration = field(default_factory=Calibration)
    operators: tuple[str, ...] = IMAGE_OPERATORS
    per_channel: bool = True
    reduce_range: bool = True
    activations: Literal["uint8", "int8"] = "uint8"
    has_float_outputs: bool = False
    float_nodes: tuple[str, ...] = ()
    fold: bool = True

    def as_dict(self) -> dict[str, Any]:
        """Return the settings for the build report."""
        return asdict(self)


def quantize_static(path: Path, quantized_path: Path, feeds: Feeds, settings: StaticSettings) -> dict[str, Any]:
    """Quantize a graph by the ranges of its activations on some samples.

    Args:
        path: The model in fp32, below 2 GiB.
        quantized_path: Where the quantized one is written; the same inputs give the same bytes.
        feeds: The samples, read once and forgotten one by one.
        settings: How.

    Returns:
        What was done, for the build report.

    Raises:
        OperatorError: There is nothing to quantize, there are no samples, or the model fails or overflows on one.
    """
    with tempfile.TemporaryDirectory(prefix="ts-handlers-quantize-") as folder:
        model = _fold(path, Path(folder)) if settings.fold else onnx.load(str(path))
        nodes = _chosen(model, settings)
        if not any(node.op_type in _WITH_WEIGHTS for node in nodes):
            raise OperatorError(
                f"there is nothing to quantize: no {' or '.join(sorted(_WITH_WEIGHTS))} has fixed weights"
            )
        tensors = _activations(model, nodes, settings)
        measured = measure_ranges(model, tensors, feeds, settings.calibration, Path(folder))
    onnx.save(_quantized(model, [node.name for node in nodes], measured.ranges, settings), str(quantized_path))
    return {
        "quantized_nodes": len(nodes),
        "calibrated_tensors": len(tensors),
        "calibration_runs": measured.num_feeds,
    }


def _fold(path: Path, work: Path) -> onnx.ModelProto:
    from onnxruntime.quantization.shape_inference import quant_pre_process  # a large import, only where it is used

    prepared = work / "prepared.onnx"
    quant_pre_process(str(path), str(prepared), skip_symbolic_shape=True)
    return onnx.load(str(prepared))


def _chosen(model: onnx.ModelProto, settings: StaticSettings) -> list[onnx.NodeProto]:
    """Return the nodes to quantize; nodes without a name are given one."""
    fixed = {item.name for item in model.graph.initializer}
    closing = set(_closing_tensors(model.graph))
    chosen = []
    for index, node in enumerate(model.graph.node):
        node.name = node.name or f"{node.op_type}_{index}"
        if node.op_type not in settings.operators or node.name in settings.float_nodes:
            continue
        if node.op_type in _CLOSING and node.output[0] in closing:
            continue
        if node.op_type not in _WITH_WEIGHTS or node.input[1] in fixed:
            chosen.append(node)
    return chosen


def _closing_tensors(graph: onnx.GraphProto) -> Iterator[str]:
    """Give the graph's outputs, and what only becomes one of them, by nodes that close the graph."""
    made_by = {name: node for node in graph.node for name in node.output}
    taken = Counter(name for node in graph.node for name in node.input)
    for output in graph.output:
        name, most = output.name, 0
        while taken[name] <= most:
            yield name
            node = made_by.get(name)
            if node is None or node.op_type not in _CLOSING:
                break
            name, most = node.input[0], 1


def _activations(model: onnx.ModelProto, nodes: Sequence[onnx.NodeProto], settings: StaticSettings) -> list[str]:
    """Return the float tensors that the nodes take and give, each once."""
    fixed = {item.name for item in model.graph.initializer}
    graph = model.graph
    types = {item.name: item.type.tensor_type.elem_type for item in (*graph.value_info, *graph.input, *graph.output)}
    found: dict[str, None] = {}
    for node in nodes:
        if node.op_type in _WITH_WEIGHTS and node.input[0] not in types:
            # Shape inference does not see through ONNX Runtime's own operators; a product with floats is one of floats.
            types[node.input[0]] = TensorProto.FLOAT
            graph.value_info.append(helper.make_tensor_value_info(node.input[0], TensorProto.FLOAT, None))
        names = list(node.input) if settings.has_float_outputs else [*node.input, *node.output]
        found.update(
            dict.fromkeys(name for name in names if name not in fixed and types.get(name) == TensorProto.FLOAT)
        )
    return list(found)


def _quantized(
    model: onnx.ModelProto, nodes: Sequence[str], ranges: Ranges, settings: StaticSettings
) -> onnx.ModelProto:
    """Put QuantizeLinear and DequantizeLinear around the nodes; ONNX Runtime fuses them when it loads the file."""
    from onnxruntime.quantization import CalibrationMethod, QuantType
    from onnxruntime.quantization.calibrate import TensorData, TensorsData
    from onnxruntime.quantization.qdq_quantizer import QDQQuantizer

    data = {
        name: TensorData(lowest=np.array(low, np.float32), highest=np.array(high, np.float32))
        for name, (low, high) in ranges.items()
    }
    quantizer = QDQQuantizer(
        model,
        settings.per_channel,
        settings.reduce_range,
        QuantType.QInt8,
        QuantType.QUInt8 if settings.activations == "uint8" else QuantType.QInt8,
        TensorsData(CalibrationMethod.MinMax, data),
        list(nodes),
        [],
        sorted(settings.operators),
        {
            "ActivationSymmetric": settings.calibration.is_symmetric,
            "OpTypesToExcludeOutputQuantization": sorted(settings.operators) if settings.has_float_outputs else [],
        },
    )
    quantizer.quantize_model()
    quantizer.model.topological_sort()
    quantized: onnx.ModelProto = quantizer.model.model
    _leave_floats_to_floats(quantized.graph, frozenset(nodes))
    _leave_answers_in_float(quantized.graph)
    return quantized


def _leave_floats_to_floats(graph: onnx.GraphProto, quantized: Container[str]) -> None:
    """Let a float node take what another float node gives as it is; the library has it read the 8 bits made for a third.

    So the sums along a transformer's residuals stay exact.
    """
    made_by = {name: node for node in graph.node for name in node.output}
    for node in graph.node:
        if node.name in quantized or node.op_type in ("QuantizeLinear", "DequantizeLinear"):
            continue
        for index, name in enumerate(node.input):
            quantize = _quantizer_of(name, made_by)
            maker = made_by.get(quantize.input[0]) if quantize is not None else None
            if quantize is not None and (maker is None or maker.name not in quantized):
                node.input[index] = quantize.input[0]


def _leave_answers_in_float(graph: onnx.GraphProto) -> None:
    """Let a product that gives an output of the graph, or what closes it, give it in float, at no cost."""
    made_by = {name: node for node in graph.node for name in node.output}
    for name in list(_closing_tensors(graph)):
        quantize = _quantizer_of(name, made_by)
        product = made_by.get(quantize.input[0]) if quantize is not None else None
        if quantize is not None and product is not None and product.op_type in ("Gemm", "MatMul"):
            product.output[0] = name
            graph.node.remove(made_by[name])
            graph.node.remove(quantize)
    used = {name for node in graph.node for name in node.input}
    for item in [item for item in graph.initializer if item.name not in used]:  # else each worker's log says so
        graph.initializer.remove(item)


def _quantizer_of(name: str, made_by: Mapping[str, onnx.NodeProto]) -> onnx.NodeProto | None:
    """Return the QuantizeLinear of a tensor that a DequantizeLinear gives; None of any other tensor."""
    dequantize = made_by.get(name)
    if dequantize is None or dequantize.op_type != "DequantizeLinear":
        return None
    return made_by.get(dequantize.input[0])  # none where the integers are weights
