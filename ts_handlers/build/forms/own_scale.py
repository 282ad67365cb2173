"""The steps by which a model scales its pictures itself, read from an ONNX graph or watched while a module runs."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import onnx
import torch
from onnx import numpy_helper
from torch.utils._python_dispatch import TorchDispatchMode

from ts_handlers.batch import Array
from ts_handlers.build.forms.picture_scale import OwnScale

_OPERATORS = {"Add": "add", "Sub": "sub", "Mul": "mul", "Div": "div"}
_SAME_VALUES = frozenset({"Cast", "Identity", "Transpose", "Reshape", "Squeeze", "Unsqueeze"})
_SAME_VALUES_IN_TORCH = frozenset(
    {
        "_to_copy",
        "to",
        "clone",
        "contiguous",
        "permute",
        "transpose",
        "view",
        "reshape",
        "unsqueeze",
        "squeeze",
        "alias",
    }
    | {"detach", "_unsafe_view", "expand", "_assert_tensor_metadata", "sym_size", "t"}
)
_MAX_CONSTANTS = 4
"""Numbers of a constant: one, or one a channel."""


def scale_of_graph(graph: onnx.GraphProto, name: str) -> OwnScale:
    """Follow an input of a graph through its first steps.

    Args:
        graph: The graph.
        name: The input.
    """
    constants = {item.name: numpy_helper.to_array(item) for item in graph.initializer if _is_few(item.dims)}
    for node in graph.node:
        if node.op_type == "Constant" and node.attribute[0].name == "value":
            constants[node.output[0]] = numpy_helper.to_array(node.attribute[0].t)
    found = OwnScale()
    while True:
        takers = [node for node in graph.node if name in node.input]
        if len(takers) != 1 or name not in takers[0].input[:2]:
            return found
        (node,) = takers
        if node.op_type in _OPERATORS:
            constant = _constant(node, name, constants)
            if constant is None:
                return found
            found = found.then(_OPERATORS[node.op_type], constant)
        elif node.op_type not in _SAME_VALUES:
            return found
        name = node.output[0]


def _constant(node: onnx.NodeProto, name: str, constants: Mapping[str, Array]) -> float | None:
    """Return the mean of the constant that a node combines a tensor with; None where it does something else."""
    first, second = node.input
    other = second if first == name else first
    if other not in constants or constants[other].size > _MAX_CONSTANTS:
        return None
    if node.op_type in ("Sub", "Div") and first != name:
        return None
    return _usable(node.op_type, float(np.mean(constants[other])))


def _usable(operator: str, constant: float) -> float | None:
    return None if operator.lower() in ("mul", "div") and constant <= 0 else constant


def _is_few(dims: Sequence[int]) -> bool:
    return int(np.prod(dims)) <= _MAX_CONSTANTS


def scale_of_module(run: Callable[[torch.Tensor], Any], pictures: torch.Tensor) -> OwnScale:
    """Watch a module's first steps.

    Args:
        run: Calls it.
        pictures: What it takes.
    """
    with torch.inference_mode(), _Watch(pictures) as watch:
        run(pictures)
    found: OwnScale = watch.found
    return found


class _Watch(TorchDispatchMode):  # type: ignore[no-untyped-call]  # torch's own has no types
    """Follows a tensor through the operators that are called, until something else than scaling happens to it.

    Args:
        tensor: The tensor.
    """

    def __init__(self, tensor: torch.Tensor) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.found = OwnScale()
        self._tensor: torch.Tensor | None = tensor

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        del types
        result = func(*args, **(kwargs or {}))
        if self._tensor is not None and any(item is self._tensor for item in args):
            self._follow(func._schema.name.rpartition("::")[2].rstrip("_"), args, result)  # noqa: SLF001  # its only name
        return result

    def _follow(self, operator: str, args: Any, result: Any) -> None:
        if operator in _OPERATORS.values():
            constant = self._constant(operator, args)
            if constant is not None:
                self.found = self.found.then(operator, constant)
                self._tensor = result
                return
        elif operator in _SAME_VALUES_IN_TORCH or not isinstance(result, torch.Tensor):
            self._tensor = result if isinstance(result, torch.Tensor) else self._tensor
            return
        self._tensor = None

    def _constant(self, operator: str, args: Any) -> float | None:
        first, second = args[:2]
        other = second if first is self._tensor else first
        if operator in ("sub", "div") and first is not self._tensor:
            return None
        if isinstance(other, torch.Tensor):
            if other.numel() > _MAX_CONSTANTS:
                return None
            other = float(other.double().mean())
        return _usable(operator, float(other))
