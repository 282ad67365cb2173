"""An .onnx file that somebody else exported: what it takes and gives is read from its graph, and renamed for handlers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import onnx
import torch
from onnx import TensorProto, numpy_helper

from ts_handlers.build.image_files.onnx_names import rename
from ts_handlers.build.image_files.scale import OwnScale, scale_of_graph
from ts_handlers.build.image_outputs.probe import InputForm, Run
from ts_handlers.errors import OperatorError, all_lines
from ts_handlers.runtime.feeds import feed_as
from ts_handlers.shapes import Array

PIXEL_VALUES, PIXEL_MASK = "pixel_values", "pixel_mask"

_TYPES = (TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.DOUBLE, TensorProto.UINT8)
_MAX_BYTES = 2**31 - 2**20


@dataclass(frozen=True, slots=True)
class OnnxFile:
    """A graph whose inputs have our names.

    Attributes:
        path: Where it is written.
        model: The graph.
        shape: Axes of its pictures, None where any size is taken.
        takes_mask: Whether it takes a pixel_mask.
        is_integer: Whether it takes levels from 0 to 255 as integers.
    """

    path: Path
    model: onnx.ModelProto
    shape: tuple[int | None, ...]
    takes_mask: bool
    is_integer: bool
    state: ClassVar[None] = None
    note: ClassVar[str] = ""

    def runner(self, form: InputForm) -> Run:
        """Return what runs it on arrays of this form and gives all that it returns."""
        onnx.save(self.model, str(self.path))
        session, size = OnnxModel(self.path), form.size
        return lambda values: session.run({PIXEL_VALUES: values, PIXEL_MASK: np.ones((len(values), *size), np.int64)})

    def own_scale(self, form: InputForm) -> OwnScale:
        """Return what it does first to every number of a picture."""
        del form
        return scale_of_graph(self.model.graph, PIXEL_VALUES)

    def named(self, keys: Mapping[str, str]) -> OnnxModel:
        """Write it with the outputs of these keys alone (our name -> its own), in this order; return the model."""
        outputs = {item.name: item for item in self.model.graph.output}
        del self.model.graph.output[:]
        self.model.graph.output.extend(outputs[own] for own in keys.values())
        rename(self.model.graph, {own: name for name, own in keys.items()})
        onnx.save(self.model, str(self.path))
        return OnnxModel(self.path)


def open_onnx(path: Path, target: Path) -> OnnxFile:
    """Read a model of images.

    Args:
        path: The file.
        target: Where it is written with our names.

    Raises:
        OperatorError: It is none.
    """
    try:
        model = onnx.load(str(path))
    except Exception as error:  # protobuf raises errors of its own
        raise OperatorError(f"{path} is no ONNX file: {all_lines(error)}") from error
    if model.ByteSize() > _MAX_BYTES:
        raise OperatorError(f"{path} is of more than 2 GiB; models of images so large are not supported")
    fixed = {item.name for item in model.graph.initializer}
    inputs = [item for item in model.graph.input if item.name not in fixed]
    pictures = [item for item in inputs if len(_shape(item)) == 4]
    masks = [item for item in inputs if len(_shape(item)) == 3]
    if len(pictures) != 1 or len(masks) > 1 or len(pictures) + len(masks) != len(inputs):
        found = ", ".join(f"{item.name} {list(_shape(item))}" for item in inputs) or "nothing"
        raise OperatorError(f"{path} takes {found}; one input of four axes is needed, and at most a mask of three")
    kind = pictures[0].type.tensor_type.elem_type
    if kind not in _TYPES:
        raise OperatorError(f"{path} takes pictures of another type than float, half, double or uint8; export it anew")
    rename(model.graph, {pictures[0].name: PIXEL_VALUES, **{item.name: PIXEL_MASK for item in masks}})
    return OnnxFile(target, model, _shape(pictures[0]), bool(masks), kind == TensorProto.UINT8)


class OnnxModel:
    """A graph with the calling convention of transformers' models; what a build compares its engines with.

    Args:
        path: The graph.
    """

    def __init__(self, path: Path) -> None:
        import onnxruntime as ort

        self._path = path
        try:
            options = ort.SessionOptions()
            options.log_severity_level = 4  # what fails is raised, too; some of it is only tried
            self._session: Any = ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        except Exception as error:  # onnxruntime's errors have no common base class
            raise OperatorError(f"ONNX Runtime cannot load the model: {all_lines(error)}") from error
        self._types = {item.name: _NUMPY_TYPES.get(item.type, np.float32) for item in self._session.get_inputs()}
        self._names = [item.name for item in self._session.get_outputs()]

    def parameters(self) -> Iterator[torch.Tensor]:
        """Give its weights."""
        for item in onnx.load(str(self._path)).graph.initializer:
            yield torch.from_numpy(numpy_helper.to_array(item).copy())

    def run(self, arrays: Mapping[str, Array]) -> dict[str, Array]:
        """Run one batch; floating point outputs are given as float32."""
        feed = {name: feed_as(name, arrays[name], dtype) for name, dtype in self._types.items()}
        outputs: Sequence[Array] = self._session.run(self._names, feed)
        return {
            name: output.astype(np.float32) if output.dtype.kind == "f" else output
            for name, output in zip(self._names, outputs, strict=True)
        }

    def __call__(self, *, return_dict: bool = True, **tensors: torch.Tensor) -> dict[str, torch.Tensor]:
        """Run one batch."""
        del return_dict
        outputs = self.run({name: tensor.numpy() for name, tensor in tensors.items()})
        return {name: torch.from_numpy(output) for name, output in outputs.items()}


_NUMPY_TYPES = {
    "tensor(uint8)": np.uint8,
    "tensor(float16)": np.float16,
    "tensor(double)": np.float64,
    "tensor(int64)": np.int64,
    "tensor(int32)": np.int32,
    "tensor(bool)": np.bool_,
}


def _shape(value: onnx.ValueInfoProto) -> tuple[int | None, ...]:
    """Return the sizes of axes; None where any is taken."""
    axes = value.type.tensor_type.shape.dim
    return tuple(axis.dim_value if axis.HasField("dim_value") and axis.dim_value > 0 else None for axis in axes)
