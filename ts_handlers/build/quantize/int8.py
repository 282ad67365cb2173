"""INT8 by onnxruntime.quantization: dynamic (activations per call), and static (from their ranges on samples, QDQ)."""

from __future__ import annotations

import io
import logging
import tempfile
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from typing import Any, Literal

import numpy as np
import onnx
from onnx import TensorProto, helper

from ts_handlers.build.quantize.graph import Feed, open_unfused
from ts_handlers.errors import OperatorError

CalibrationMethod = Literal["minmax", "entropy", "percentile"]
"""How ranges are found: the extremes; what costs least information; 99.999 % of the values."""

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


def quantize_dynamic(model: onnx.ModelProto, path: Path, *, reduce_range: bool, in_float: Collection[str] = ()) -> None:
    """Quantize the weights of matrix products and fused attention, with a scale for each output channel.

    Args:
        model: The model in fp32; with one scale a tensor, sentence embeddings would be useless.
        path: Where the quantized one is written.
        reduce_range: 7-bit weights, for CPUs that sum two 8-bit products in 16 bits (`TargetCpu.has_vnni`); on others they
            cost a little accuracy and no time.
        in_float: Names of nodes that are left in float.
    """
    from onnxruntime import quantization  # a large import, only where it is used

    with _quiet():
        quantization.quantize_dynamic(
            model,
            str(path),
            op_types_to_quantize=["MatMul", "Attention"],
            per_channel=True,
            reduce_range=reduce_range,
            weight_type=quantization.QuantType.QInt8,
            nodes_to_exclude=sorted(in_float),
            extra_options={"DefaultTensorType": TensorProto.FLOAT, "MatMulConstBOnly": True},
        )


def quantize_static(
    model: onnx.ModelProto,
    path: Path,
    feeds: Iterable[Feed],
    *,
    method: CalibrationMethod,
    reduce_range: bool,
    is_signed: bool = False,
) -> dict[str, Any]:
    """Quantize a graph by the ranges of its activations on some samples.

    Of a convolutional network all of IMAGE_OPERATORS take and give integers but those that give the answers; of any other
    the products with weights take them and give floats.

    Args:
        model: The model in fp32, below 2 GiB.
        path: Where the quantized one is written; the same inputs give the same bytes.
        feeds: The samples, read once and forgotten one by one.
        method: How ranges are found.
        reduce_range: As for `quantize_dynamic`.
        is_signed: Whether activations are int8, as ARM multiplies them; x86 takes uint8.

    Returns:
        What was done, for the build report.

    Raises:
        OperatorError: There is nothing to quantize, there are no samples, or the model fails or overflows on one.
    """
    from onnxruntime.quantization import QuantType
    from onnxruntime.quantization.qdq_quantizer import QDQQuantizer

    count = Counter(node.op_type for node in model.graph.node)
    is_convolutional = count["Conv"] > count["MatMul"]
    operators = IMAGE_OPERATORS if is_convolutional else TEXT_OPERATORS
    with tempfile.TemporaryDirectory(prefix="ts-handlers-quantize-") as folder, _quiet():
        if is_convolutional:
            model = _folded(model, Path(folder))
        nodes = _chosen(model, operators, _closing(model.graph) if is_convolutional else ())
        prepared = Path(folder) / "prepared.onnx"
        onnx.save(model, str(prepared))
        ranges, num_feeds = _ranges(prepared, feeds, method, operators)
        quantizer = QDQQuantizer(
            model,
            True,  # a scale for each output channel
            reduce_range,
            QuantType.QInt8,
            QuantType.QInt8 if is_signed else QuantType.QUInt8,
            ranges,
            nodes,
            [],
            list(operators),
            {"OpTypesToExcludeOutputQuantization": [] if is_convolutional else list(operators)},
        )
        quantizer.quantize_model()
    quantizer.model.topological_sort()
    _leave_floats_to_floats(quantizer.model.model.graph, frozenset(nodes))
    onnx.save(quantizer.model.model, str(path))
    return {"quantized_nodes": len(nodes), "calibration_runs": num_feeds}


def _folded(model: onnx.ModelProto, work: Path) -> onnx.ModelProto:
    """Fold batch normalization, and infer shapes."""
    from onnxruntime.quantization.shape_inference import quant_pre_process

    exact, folded = work / "exact.onnx", work / "folded.onnx"
    onnx.save(model, str(exact))  # given as a model, its small constants are lost in external files
    quant_pre_process(str(exact), str(folded), skip_symbolic_shape=True)
    return onnx.load(str(folded))


def _chosen(model: onnx.ModelProto, operators: Collection[str], in_float: Collection[str]) -> list[str]:
    """Return the names of the nodes to quantize; nodes without a name are given one."""
    graph = model.graph
    fixed = {item.name for item in graph.initializer}
    typed = {item.name for item in (*graph.value_info, *graph.input)}
    chosen = []
    has_product = False
    for index, node in enumerate(graph.node):
        node.name = node.name or f"{node.op_type}_{index}"
        is_product = node.op_type in _WITH_WEIGHTS
        if node.op_type not in operators or node.output[0] in in_float or (is_product and node.input[1] not in fixed):
            continue
        chosen.append(node.name)
        has_product |= is_product
        if is_product and node.input[0] not in typed:
            # Shape inference does not see through ONNX Runtime's own operators; a product with floats is one of floats.
            typed.add(node.input[0])
            graph.value_info.append(helper.make_tensor_value_info(node.input[0], TensorProto.FLOAT, None))
    if not has_product:
        raise OperatorError(f"there is nothing to quantize: no {' or '.join(sorted(_WITH_WEIGHTS))} has fixed weights")
    return chosen


def _closing(graph: onnx.GraphProto) -> set[str]:
    """Return the tensors from the last matrix products to the answers."""
    made_by = {name: node for node in graph.node for name in node.output}
    found: set[str] = set()
    for output in graph.output:
        name = output.name
        while (node := made_by.get(name)) is not None and node.op_type in _CLOSING:
            found.add(name)
            name = node.input[0]
        if node is not None and node.op_type in ("Gemm", "MatMul"):
            found.add(name)
    return found


def _ranges(
    prepared: Path, feeds: Iterable[Feed], method: CalibrationMethod, operators: Collection[str]
) -> tuple[Any, int]:
    """Measure what these operators take and give; return the ranges, and how often the graph was run.

    The calibrators hold all that one reader gives them, so that each feed has a reader of its own: memory does not grow
    with the number of samples.
    """
    from onnxruntime.quantization import CalibrationMethod as Methods
    from onnxruntime.quantization import create_calibrator

    by_name = {"minmax": Methods.MinMax, "entropy": Methods.Entropy, "percentile": Methods.Percentile}
    augmented = str(prepared.with_name("augmented.onnx"))
    options = {"symmetric": False}
    calibrator = create_calibrator(
        prepared, list(operators), augmented, calibrate_method=by_name[method], extra_options=options
    )
    calibrator.infer_session = open_unfused(Path(augmented))
    num_feeds = 0
    try:
        for feed in feeds:
            num_feeds += 1
            calibrator.collect_data(_Reader(feed))
    except OperatorError:
        raise  # of who reads the samples
    except Exception as error:  # onnxruntime's errors have no common base class
        raise OperatorError(f"calibration: the fp32 model fails or overflows on feed {num_feeds}: {error}") from error
    if not num_feeds:
        raise OperatorError("calibration: there are no samples; give some that are like the traffic")
    ranges = calibrator.compute_data()
    for name, found in ranges.items():
        if not np.isfinite(found.range_value).all():
            raise OperatorError(
                f"calibration: {name} is not finite: the fp32 model itself overflows on a sample; leave that sample out"
            )
    return ranges, num_feeds


class _Reader:
    """One feed, as onnxruntime.quantization's CalibrationDataReader."""

    def __init__(self, feed: Feed) -> None:
        self._feed: dict[str, Any] | None = dict(feed)

    def get_next(self) -> dict[str, Any] | None:
        """Return the feed, and then None."""
        feed, self._feed = self._feed, None
        return feed


def _leave_floats_to_floats(graph: onnx.GraphProto, quantized: Collection[str]) -> None:
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


def _quantizer_of(name: str, made_by: Mapping[str, onnx.NodeProto]) -> onnx.NodeProto | None:
    """Return the QuantizeLinear of a tensor that a DequantizeLinear gives; None of any other tensor."""
    dequantize = made_by.get(name)
    if dequantize is None or dequantize.op_type != "DequantizeLinear":
        return None
    return made_by.get(dequantize.input[0])  # none where the integers are weights


@contextmanager
def _quiet() -> Iterator[None]:
    """Drop what the library prints, and its advice to infer shapes, which cannot see through fused operators."""
    logger = logging.getLogger()
    logger.addFilter(_is_no_advice)
    try:
        with redirect_stdout(io.StringIO()):
            yield
    finally:
        logger.removeFilter(_is_no_advice)


def _is_no_advice(record: logging.LogRecord) -> bool:
    return "pre-processing before quantization" not in record.getMessage()
