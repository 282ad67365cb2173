"""KServe v2's tensors -> instances."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from ts_handlers.errors import RequestError

MAX_DIMENSIONS = 8
MAX_ELEMENTS = 10**8
"""Bounds of a v2 tensor's shape, checked before its sizes are multiplied; TorchServe's largest body has fewer elements."""

_V2_DTYPES = {
    "BOOL": np.bool_,
    "UINT8": np.uint8,
    "UINT16": np.uint16,
    "UINT32": np.uint32,
    "UINT64": np.uint64,
    "INT8": np.int8,
    "INT16": np.int16,
    "INT32": np.int32,
    "INT64": np.int64,
    "FP16": np.float16,
    "FP32": np.float32,
    "FP64": np.float64,
}


def read_tensor(tensor: Any, index: int) -> tuple[str, Sequence[Any]]:
    """Return the name of a v2 tensor and its instances, one for each entry of the first dimension.

    Raises:
        RequestError: 400, it is no tensor.
    """
    where = f'"inputs"[{index}]'
    if not isinstance(tensor, Mapping):
        raise RequestError(f"{where} is a JSON {json_type(tensor)}; it must be a tensor object", code="invalid_type")
    name, shape, datatype, data = (tensor.get(key) for key in ("name", "shape", "datatype", "data"))
    if not isinstance(name, str) or not isinstance(datatype, str) or not isinstance(data, list):
        raise RequestError(f'{where} needs "name", "shape", "datatype" and "data" (a list)', code="invalid_type")
    if not isinstance(shape, list) or not shape or not all(type(size) is int and size >= 0 for size in shape):
        raise RequestError(f'{where}: "shape" must be a list of sizes, at least one', code="invalid_shape")
    if len(shape) > MAX_DIMENSIONS or max(shape) > MAX_ELEMENTS:
        raise RequestError(
            f"{where}: a shape has at most {MAX_DIMENSIONS} sizes, up to {MAX_ELEMENTS}", code="invalid_shape"
        )
    flat = list(_flatten(data)) if data and isinstance(data[0], list) else data
    if len(flat) != math.prod(shape):
        raise RequestError(
            f"{where}: shape {shape} is {math.prod(shape)} elements and data has {len(flat)}", code="invalid_shape"
        )
    if datatype == "BYTES":
        if math.prod(shape[1:]) != 1:
            raise RequestError(
                f"{where}: shape {shape} of texts; use [{shape[0]}] or [{shape[0]}, 1]", code="invalid_shape"
            )
        return name, flat
    if datatype not in _V2_DTYPES:
        raise RequestError(f"{where}: datatype {datatype[:40]!r}; use BYTES for texts", code="invalid_type")
    try:
        return name, list(np.asarray(flat, dtype=_V2_DTYPES[datatype]).reshape(shape))
    except (TypeError, ValueError, OverflowError) as error:
        raise RequestError(f"{where}: data does not fit datatype {datatype}", code="invalid_type") from error


def _flatten(data: Sequence[Any]) -> Iterator[Any]:
    stack = [iter(data)]
    while stack:
        for item in stack[-1]:
            if isinstance(item, list):
                stack.append(iter(item))
                break
            yield item
        else:
            stack.pop()


def json_type(value: Any) -> str:
    """Return what JSON calls the type of a value."""
    names = {type(None): "null", bool: "boolean", int: "number", float: "number", str: "string", list: "list"}
    return names.get(type(value), "object" if isinstance(value, Mapping) else type(value).__name__)
