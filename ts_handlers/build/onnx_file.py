"""An .onnx file that somebody else exported: what it takes and gives is read from its graph, and renamed for handlers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import onnx
import torch
from onnx import TensorProto

from ts_handlers.batch import Array
from ts_handlers.build.model_source import OUTPUT_NAMES
from ts_handlers.errors import OperatorError, first_line
from ts_handlers.preprocessing import Size

PIXEL_VALUES, PIXEL_MASK = "pixel_values", "pixel_mask"

_TYPES = (TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.DOUBLE, TensorProto.UINT8)
_NUM_CHANNELS = 3
_MAX_BYTES = 2**31 - 2**20


@dataclass(frozen=True, slots=True)
class OnnxFile:
    """A graph with our names.

    Attributes:
        path: The file.
        layout: Axes of its pixel_values.
        batch_size: Rows of each call; None where any number is taken.
        size: (height, width) of its pictures; None where any is taken.
        takes_mask: Whether it takes a pixel_mask.
        output_names: What it gives.
    """

    path: Path
    layout: Literal["NCHW", "NHWC"]
    batch_size: int | None
    size: Size | None
    takes_mask: bool
    output_names: tuple[str, ...]


def adopt(path: Path, task: str, target: Path) -> OnnxFile:
    """Write a model of images with our names; a softmax at its end is left out, since handlers make scores of logits.

    Raises:
        OperatorError: It is no model of images, or not one that this task can use.
    """
    try:
        model = onnx.load(str(path))
    except Exception as error:  # protobuf raises errors of its own
        raise OperatorError(f"{path} is no ONNX file: {first_line(error)}") from error
    if model.ByteSize() > _MAX_BYTES:
        raise OperatorError(f"{path} is of more than 2 GiB; models of images so large are not supported")
    graph = model.graph
    fixed = {item.name for item in graph.initializer}
    inputs = [item for item in graph.input if item.name not in fixed]
    pictures = [item for item in inputs if len(_shape(item)) == 4]
    masks = [item for item in inputs if len(_shape(item)) == 3]
    if len(pictures) != 1 or len(masks) > 1 or len(pictures) + len(masks) != len(inputs):
        found = ", ".join(f"{item.name} {_shape(item)}" for item in inputs) or "nothing"
        raise OperatorError(f"{path} takes {found}; one input of four axes is needed, and at most a mask of three")
    shape = _shape(pictures[0])
    if pictures[0].type.tensor_type.elem_type not in _TYPES:
        raise OperatorError(f"{path} takes pictures of another type than float, half, double or uint8; export it anew")
    layout = _layout(path, shape)
    height, width = (shape[2], shape[3]) if layout == "NCHW" else (shape[1], shape[2])
    _rename(graph, pictures[0].name, PIXEL_VALUES)
    if masks:
        _rename(graph, masks[0].name, PIXEL_MASK)
    names = _name_outputs(path, graph, task)
    onnx.save(model, str(target))
    return OnnxFile(
        target,
        layout,
        shape[0] if isinstance(shape[0], int) else None,
        (height, width) if isinstance(height, int) and isinstance(width, int) else None,
        bool(masks),
        names,
    )


class OnnxModel:
    """A graph with the calling convention of transformers' models; what a build compares its engines with.

    Args:
        path: The graph.
    """

    def __init__(self, path: Path) -> None:
        import onnxruntime as ort

        try:
            self._session: Any = ort.InferenceSession(str(path), providers=["CPUExecutionProvider"])
        except Exception as error:  # onnxruntime's errors have no common base class
            raise OperatorError(f"ONNX Runtime cannot load the model: {first_line(error)}") from error
        self._types = {item.name: _NUMPY_TYPES.get(item.type, np.float32) for item in self._session.get_inputs()}
        self._names = [item.name for item in self._session.get_outputs()]

    def __call__(self, *, return_dict: bool = True, **tensors: torch.Tensor) -> dict[str, torch.Tensor]:
        """Run one batch."""
        del return_dict
        feed: dict[str, Array] = {
            name: tensors[name].numpy().astype(dtype, copy=False) for name, dtype in self._types.items()
        }
        outputs: Sequence[Array] = self._session.run(self._names, feed)
        return {name: torch.from_numpy(output) for name, output in zip(self._names, outputs, strict=True)}


_NUMPY_TYPES = {
    "tensor(uint8)": np.uint8,
    "tensor(float16)": np.float16,
    "tensor(double)": np.float64,
    "tensor(int64)": np.int64,
    "tensor(int32)": np.int32,
    "tensor(bool)": np.bool_,
}


def count_weights(path: Path) -> int:
    """Return how many numbers a graph holds."""
    graph = onnx.load(str(path)).graph
    return sum(int(np.prod(item.dims)) for item in graph.initializer)


def _shape(value: onnx.ValueInfoProto) -> list[int | str]:
    """Return sizes of axes: numbers where they are fixed, names ("" where there is none) where they are not."""
    return [
        axis.dim_value if axis.HasField("dim_value") and axis.dim_value > 0 else axis.dim_param
        for axis in value.type.tensor_type.shape.dim
    ]


def _layout(path: Path, shape: Sequence[int | str]) -> Literal["NCHW", "NHWC"]:
    first, last = shape[1] == _NUM_CHANNELS, shape[3] == _NUM_CHANNELS
    if first == last:
        raise OperatorError(
            f"{path} takes pictures of shape {list(shape)}; three channels are needed as the second axis or the last"
        )
    return "NCHW" if first else "NHWC"


def _name_outputs(path: Path, graph: onnx.GraphProto, task: str) -> tuple[str, ...]:
    names = OUTPUT_NAMES[task]
    outputs = [item.name for item in graph.output]
    if set(names) <= set(outputs):
        extra = [item for item in graph.output if item.name not in names]
        for item in extra:
            graph.output.remove(item)
        return names
    if len(outputs) != len(names):
        raise OperatorError(f"{path} gives {', '.join(outputs)}; {task} needs {' and '.join(names)}: name them so")
    ordered = list(graph.output)
    if names == ("logits", "pred_boxes") and _shape(ordered[0])[-1:] == [4]:
        ordered.reverse()
    for item, name in zip(ordered, names, strict=True):
        _rename(graph, item.name, name)
    if names == ("logits",) and task == "image-classification":
        _drop_softmax(graph)
    return names


def _drop_softmax(graph: onnx.GraphProto) -> None:
    """Let the logits before a closing softmax be the output: probabilities would be made flat by another one."""
    (output,) = graph.output
    for node in graph.node:
        if node.op_type == "Softmax" and output.name in node.output:
            before = node.input[0]
            graph.node.remove(node)
            for other in graph.node:
                for index, name in enumerate(other.output):
                    if name == before:
                        other.output[index] = output.name
                for index, name in enumerate(other.input):
                    if name == before:
                        other.input[index] = output.name
            return


def _rename(graph: onnx.GraphProto, old: str, new: str) -> None:
    """Give a tensor another name wherever it occurs; what had that name before gets another one."""
    if old == new:
        return
    if any(new in (*node.input, *node.output) for node in graph.node):
        _rename(graph, new, f"{new}_before")
    for node in graph.node:
        for names in (node.input, node.output):
            for index, name in enumerate(names):
                if name == old:
                    names[index] = new
    for value in (*graph.input, *graph.output, *graph.value_info):
        if value.name == old:
            value.name = new
