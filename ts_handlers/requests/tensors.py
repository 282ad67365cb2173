"""KServe v2's input tensors, from JSON or from raw bytes (its binary tensor extension) -> arrays and texts."""

from __future__ import annotations

import base64
import binascii
import math
import struct
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ts_handlers.errors import RequestError
from ts_handlers.requests.request import json_type

MAX_DIMENSIONS = 8
MAX_ELEMENTS = 10**8
"""Bounds of a v2 tensor's shape, checked before its sizes are multiplied; TorchServe's largest body has fewer elements."""

DTYPES = {
    "BOOL": np.dtype(np.bool_),
    "UINT8": np.dtype(np.uint8),
    "UINT16": np.dtype("<u2"),
    "UINT32": np.dtype("<u4"),
    "UINT64": np.dtype("<u8"),
    "INT8": np.dtype(np.int8),
    "INT16": np.dtype("<i2"),
    "INT32": np.dtype("<i4"),
    "INT64": np.dtype("<i8"),
    "FP16": np.dtype("<f2"),
    "FP32": np.dtype("<f4"),
    "FP64": np.dtype("<f8"),
}
"""Datatypes of v2 -> numpy's, little-endian as they are sent. Triton's BF16 has none: it is read as float32."""

_BYTES_LENGTH = struct.Struct("<I")


@dataclass(frozen=True, slots=True)
class Tensor:
    """One tensor of a request.

    Attributes:
        name: Its name.
        values: One entry for each of its first dimension: str, bytes, or an array.
    """

    name: str
    values: Sequence[Any]


def read_tensor(tensor: Any, index: int, raw: memoryview | None = None) -> tuple[Tensor, int]:
    """Read one tensor of "inputs".

    Args:
        tensor: What the JSON says of it.
        index: Its place in "inputs".
        raw: Bytes that follow the JSON and are not yet read; None where there is no such part.

    Returns:
        The tensor, and how many of the raw bytes are its.

    Raises:
        RequestError: 400, it is no tensor.
    """
    where = f'"inputs"[{index}]'
    if not isinstance(tensor, Mapping):
        raise RequestError(f"{where} is a JSON {json_type(tensor)}; it must be a tensor object", code="invalid_type")
    name, datatype = tensor.get("name"), tensor.get("datatype")
    if not isinstance(name, str) or not isinstance(datatype, str):
        raise RequestError(f'{where} needs "name", "shape", "datatype" and "data" (a list)', code="invalid_type")
    shape = _shape(tensor.get("shape"), where)
    if datatype not in (*DTYPES, "BF16", "BYTES"):
        raise RequestError(f"{where}: datatype {datatype[:40]!r}; use BYTES for texts", code="invalid_type")
    parameters = tensor.get("parameters") or {}
    if not isinstance(parameters, Mapping):
        raise RequestError(
            f'{where}: "parameters" is a JSON {json_type(parameters)}; it must be an object', code="invalid_type"
        )
    size = parameters.get("binary_data_size")
    flat: Any
    if size is None:
        flat, used = _from_json(tensor.get("data"), datatype, where), 0
    else:
        chunk = _chunk(size, raw, where, has_data="data" in tensor)
        flat, used = _from_raw(chunk, datatype, where), len(chunk)
    shape = _fitted(shape, len(flat), where)
    if datatype != "BYTES":
        return Tensor(name, flat.reshape(shape)), used
    if math.prod(shape[1:]) != 1:
        raise RequestError(
            f"{where}: shape {shape} of texts; use [{shape[0]}] or [{shape[0]}, 1]", code="invalid_shape"
        )
    return Tensor(name, _decoded(flat, where) if parameters.get("content_type") == "base64" else flat), used


def _shape(shape: Any, where: str) -> list[int]:
    """Return a shape, of which one size may be -1: it follows from the number of elements."""
    if not isinstance(shape, list) or not shape or not all(type(size) is int and size >= -1 for size in shape):
        raise RequestError(f'{where}: "shape" must be a list of sizes, at least one', code="invalid_shape")
    if len(shape) > MAX_DIMENSIONS or max(shape) > MAX_ELEMENTS:
        raise RequestError(
            f"{where}: a shape has at most {MAX_DIMENSIONS} sizes, up to {MAX_ELEMENTS}", code="invalid_shape"
        )
    return shape


def _fitted(shape: list[int], count: int, where: str) -> list[int]:
    known = math.prod(size for size in shape if size != -1)
    if shape.count(-1) == 1 and known and count % known == 0:
        return [count // known if size == -1 else size for size in shape]
    if -1 in shape:
        raise RequestError(f"{where}: shape {shape} does not fit the {count} elements of data", code="invalid_shape")
    if known != count:
        raise RequestError(f"{where}: shape {shape} is {known} elements and data has {count}", code="invalid_shape")
    return shape


def _from_json(data: Any, datatype: str, where: str) -> Any:
    if not isinstance(data, list):
        raise RequestError(f'{where} needs "name", "shape", "datatype" and "data" (a list)', code="invalid_type")
    flat = list(_flatten(data)) if data and isinstance(data[0], list) else data
    if datatype == "BYTES":
        return flat
    try:
        return np.asarray(flat, dtype=DTYPES.get(datatype, np.dtype("<f4")))
    except (TypeError, ValueError, OverflowError) as error:
        raise RequestError(f"{where}: data does not fit datatype {datatype}", code="invalid_type") from error


def _chunk(size: Any, raw: memoryview | None, where: str, *, has_data: bool) -> memoryview:
    if has_data:
        raise RequestError(f'{where} has "data" and "binary_data_size"; send one of them', code="invalid_type")
    if type(size) is not int or size < 0:
        raise RequestError(f'{where}: "binary_data_size" must be a number of bytes', code="invalid_type")
    if raw is None:
        raise RequestError(
            f'{where} has "binary_data_size", and the request no header Inference-Header-Content-Length; send it',
            code="invalid_binary",
        )
    if size > len(raw):
        raise RequestError(
            f"{where} is {size} bytes by its binary_data_size, and {len(raw)} are left of the body",
            code="invalid_binary",
        )
    return raw[:size]


def _from_raw(chunk: memoryview, datatype: str, where: str) -> Any:
    if datatype == "BYTES":
        return list(_elements(chunk, where))
    dtype = np.dtype("<u2") if datatype == "BF16" else DTYPES[datatype]
    if len(chunk) % dtype.itemsize:
        raise RequestError(
            f"{where}: {len(chunk)} bytes are no whole number of {datatype} elements", code="invalid_binary"
        )
    if datatype == "BOOL":
        return np.frombuffer(chunk, np.uint8) != 0
    values = np.frombuffer(chunk, dtype)
    return (values.astype("<u4") << 16).view("<f4") if datatype == "BF16" else values


def _elements(chunk: memoryview, where: str) -> Iterator[bytes]:
    """Yield the elements of a raw BYTES tensor: each is four bytes of length, little-endian, and so many bytes."""
    offset = 0
    while offset < len(chunk):
        start = offset + _BYTES_LENGTH.size
        end = start + _BYTES_LENGTH.unpack_from(chunk, offset)[0] if start <= len(chunk) else start
        if end > len(chunk):
            raise RequestError(
                f"{where}: the element at byte {offset} ends after the tensor's {len(chunk)} bytes",
                code="invalid_binary",
            )
        yield bytes(chunk[start:end])
        offset = end


def _decoded(values: Sequence[Any], where: str) -> list[bytes]:
    """Decode the elements of a tensor whose "content_type" is base64, as MLServer's clients declare it."""
    try:
        return [base64.b64decode(value, validate=True) for value in values]
    except (binascii.Error, TypeError, ValueError) as error:
        raise RequestError(f"{where}: its content_type is base64 and its data is not", code="invalid_base64") from error


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
