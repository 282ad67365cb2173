"""What a model of images does first to the numbers of its pictures, so that they are not scaled twice, or not at all."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from onnx import numpy_helper
from torch.utils._python_dispatch import TorchDispatchMode

from ts_handlers.errors import OperatorError
from ts_handlers.imaging.preprocessing import Preprocessing

_SAME_VALUES = frozenset({"cast", "identity", "transpose", "reshape", "squeeze", "unsqueeze"})
"""ONNX's operators that leave all numbers as they are."""

_SAME_VALUES_IN_TORCH = _SAME_VALUES | frozenset(
    {"_to_copy", "to", "clone", "contiguous", "permute", "view", "alias", "detach", "_unsafe_view", "expand", "t"}
    | {"_assert_tensor_metadata", "sym_size"}
)

_MAX_CONSTANTS = 4
"""Numbers of a constant: one, or one a channel."""

_SMALL, _LARGE = 0.05, 50.0
"""Factors of models that scale levels are 1 / 255 to 1 / 57; the means that they take off are 103 and more."""

_SPREAD, _MEANS = 1.5, (0.2, 0.8)
"""Factors of models that normalize are 2 to 4.5, and the means that they take off 0.4 to 0.5."""


@dataclass(frozen=True, slots=True)
class OwnScale:
    """What a model does first to every number of its picture: value * factor + offset, mean over the channels.

    Attributes:
        factor: 1 where it does nothing of the kind.
        offset: 0 where it does nothing of the kind.
    """

    factor: float = 1.0
    offset: float = 0.0

    def then(self, operator: str, other: Any, *, is_first: bool) -> OwnScale | None:
        """Return it with one more step; None where that does not scale.

        Args:
            operator: Add, sub, mul or div.
            other: What the picture is combined with.
            is_first: Whether the picture comes first.
        """
        values = np.asarray(other.double() if isinstance(other, torch.Tensor) else other, dtype=np.float64)
        constant = float(values.mean())
        is_product = operator in ("mul", "div")
        if values.size > _MAX_CONSTANTS or (operator in ("sub", "div") and not is_first):
            return None
        if is_product and constant <= 0:
            return None
        by = constant if operator in ("add", "mul") else 1 / constant if is_product else -constant
        return OwnScale(self.factor * by, self.offset * by) if is_product else OwnScale(self.factor, self.offset + by)


def scale_of_graph(graph: onnx.GraphProto, name: str) -> OwnScale:
    """Follow an input of a graph through its first steps.

    Args:
        graph: The graph.
        name: The input.
    """
    constants = {item.name: item for item in graph.initializer}
    constants |= {
        node.output[0]: node.attribute[0].t
        for node in graph.node
        if node.op_type == "Constant" and node.attribute[0].name == "value"
    }
    found: OwnScale = OwnScale()
    while True:
        takers = [node for node in graph.node if name in node.input]
        if len(takers) != 1 or name not in takers[0].input[:2]:
            return found
        (node,) = takers
        operator = node.op_type.lower()
        if operator in ("add", "sub", "mul", "div"):
            first, second = node.input
            constant = constants.get(second if first == name else first)
            if constant is None or np.prod(constant.dims) > _MAX_CONSTANTS:
                return found
            scaled = found.then(operator, numpy_helper.to_array(constant), is_first=first == name)
            if scaled is None:
                return found
            found = scaled
        elif operator not in _SAME_VALUES:
            return found
        name = node.output[0]


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
        scaled = None
        if operator in ("add", "sub", "mul", "div"):
            is_first = args[0] is self._tensor
            scaled = self.found.then(operator, args[1] if is_first else args[0], is_first=is_first)
        elif operator in _SAME_VALUES_IN_TORCH or not isinstance(result, torch.Tensor):
            scaled = self.found
        if scaled is None:
            self._tensor = None
        elif isinstance(result, torch.Tensor):
            self.found, self._tensor = scaled, result


def check_scale(path: Path, own: OwnScale, preprocessing: Preprocessing) -> None:
    """Compare what a model does to its picture first with what was done to it before.

    Raises:
        OperatorError: Both scale it, or both take its mean off, or neither scales it.
    """
    low = min(preprocessing.shift)
    high = max(255 * scale + shift for scale, shift in zip(preprocessing.scale, preprocessing.shift, strict=True))
    mean = -own.offset / own.factor
    makes_small = 0 < own.factor < _SMALL or mean > _LARGE
    spreads = own.factor > _SPREAD and _MEANS[0] < mean < _MEANS[1]
    if makes_small and high < _LARGE:
        wanted, change = "levels from 0 to 255", "do_rescale and do_normalize to false"
    elif spreads and (low < -_MEANS[0] or high > _LARGE):
        wanted, change = "numbers from 0 to 1", "do_rescale to true and do_normalize to false"
    else:
        return
    raise OperatorError(
        f"{path} begins with x * {own.factor:.3g} {own.offset:+.3g}, which is meant for {wanted}, and "
        f"preprocessor_config.json makes numbers from {low:.3g} to {high:.3g}: it would be scaled twice, or not at all. "
        f"Set {change} there"
    )
