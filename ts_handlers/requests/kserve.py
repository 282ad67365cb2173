"""KServe's requests, v1 {"instances": [...]} and v2 {"inputs": [...]}, the latter also with raw tensors after the JSON.

https://kserve.github.io/website ("Open Inference Protocol"), and its binary tensor data extension.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import orjson

from ts_handlers.errors import RequestError
from ts_handlers.requests.body import decode_text
from ts_handlers.requests.headers import HEAD_LENGTH_HEADER
from ts_handlers.requests.request import InstanceType, Protocol, Request, check_count, json_type
from ts_handlers.requests.tensors import Tensor, read_tensor

OUTPUT_NAME = "predictions"
"""The one output tensor of every model."""


def parse_v1(instances: Any) -> Request:
    """Read KServe v1's "instances".

    Raises:
        RequestError: 400, it is no list.
    """
    if not isinstance(instances, list):
        raise RequestError(f'"instances" is a JSON {json_type(instances)}; it must be a list', code="invalid_type")
    return Request(tuple(instances), Protocol.KSERVE_V1, is_many=True)


def parse_binary(body: bytes, head_length: str, max_instances: int, instance_type: InstanceType) -> Request:
    """Read a v2 request whose raw tensors follow its JSON.

    Args:
        body: Both.
        head_length: Bytes of the JSON, as the header has it; 0: all of the body is the one element of the one input.
        max_instances: Most instances in one request.
        instance_type: What bytes are.

    Raises:
        RequestError: 400, the parts do not fit together.
        PayloadTooLargeError: 413, too many instances.
    """
    digits = head_length.strip()
    length = int(digits) if digits.isascii() and digits.isdigit() and len(digits) < 12 else -1
    if not 0 <= length <= len(body):
        raise RequestError(
            f"{HEAD_LENGTH_HEADER} is {head_length[:20]!r} and the body has {len(body)} bytes; send the bytes of its JSON",
            code="invalid_binary",
        )
    if not length:
        return Request((_instance(body, instance_type),), Protocol.KSERVE_V2, is_many=True)
    try:
        head = orjson.loads(body[:length])
    except orjson.JSONDecodeError as error:
        raise RequestError(
            f"the first {length} bytes, as {HEAD_LENGTH_HEADER} says, are no JSON: {error}", code="invalid_json"
        ) from error
    if not isinstance(head, Mapping) or "inputs" not in head:
        raise RequestError('the JSON before the raw tensors must be an object with "inputs"', code="invalid_type")
    return parse_v2(head, max_instances, instance_type, memoryview(body)[length:])


def parse_v2(
    body: Mapping[str, Any], max_instances: int, instance_type: InstanceType, raw: memoryview | None = None
) -> Request:
    """Read a v2 request: one tensor's entries are the instances, and of several tensors objects with their names as keys.

    Args:
        body: The JSON.
        max_instances: Most instances in one request.
        instance_type: What bytes are.
        raw: The bytes that follow the JSON; None where there is no such part.

    Raises:
        RequestError: 400, it is not of that form.
        PayloadTooLargeError: 413, too many instances.
    """
    request_id = body.get("id")
    if request_id is not None and not isinstance(request_id, str):
        raise RequestError(f'"id" is a JSON {json_type(request_id)}; it must be a string', code="invalid_type")
    if request_id is not None and not request_id.isprintable():  # it goes back in the response
        raise RequestError('"id" has characters that cannot be printed; use others', code="invalid_type")
    wants_binary = _wants_binary(body)
    tensors = _read_tensors(body["inputs"], raw)
    sizes = {len(tensor.values) for tensor in tensors}
    if len(sizes) != 1:
        raise RequestError(
            f'the tensors of "inputs" hold {sorted(sizes)} instances; their first dimensions must be equal',
            code="invalid_shape",
        )
    check_count(sizes.pop(), max_instances)
    columns = [[_instance(value, instance_type) for value in tensor.values] for tensor in tensors]
    names = [tensor.name for tensor in tensors]
    if len(columns) == 1:
        instances = tuple(columns[0])
    else:
        instances = tuple(dict(zip(names, row, strict=True)) for row in zip(*columns, strict=True))
    return Request(instances, Protocol.KSERVE_V2, is_many=True, request_id=request_id, wants_binary=wants_binary)


def _read_tensors(inputs: Any, raw: memoryview | None) -> list[Tensor]:
    if not isinstance(inputs, list) or not inputs:
        raise RequestError('"inputs" must be a list of tensors, at least one', code="invalid_type")
    tensors: list[Tensor] = []
    for index, item in enumerate(inputs):
        tensor, used = read_tensor(item, index, raw)
        if any(tensor.name == other.name for other in tensors):
            raise RequestError(
                f'"inputs"[{index}]: a second tensor of the name {tensor.name[:40]!r}; give each a name of its own',
                code="invalid_type",
            )
        raw = raw[used:] if raw is not None else None
        tensors.append(tensor)
    if raw:
        raise RequestError(
            f"{len(raw)} bytes of the body belong to no tensor; give each its parameters.binary_data_size",
            code="invalid_binary",
        )
    return tensors


def _instance(value: Any, instance_type: InstanceType) -> Any:
    return decode_text(value) if isinstance(value, bytes) and instance_type == "text" else value


def _wants_binary(body: Mapping[str, Any]) -> bool:
    """Return whether the output tensor asks for itself to be raw bytes.

    "binary_data_output" asks that of any output, and clients send it unasked; they all read JSON, too, by the header that
    is not there, and JSON is what it gets.

    Raises:
        RequestError: 400, another output is asked for, or something else of it.
    """
    outputs = body.get("outputs") or []
    if not isinstance(outputs, list) or not all(isinstance(output, Mapping) for output in outputs):
        raise RequestError('"outputs" must be a list of objects with a "name"', code="invalid_type")
    wanted = [_check_output(output, f'"outputs"[{index}]') for index, output in enumerate(outputs)]
    return any(wanted)


def _check_output(output: Mapping[str, Any], where: str) -> bool:
    if output.get("name") != OUTPUT_NAME:
        raise RequestError(
            f"{where} is {str(output.get('name'))[:40]!r}; the one output is {OUTPUT_NAME!r}: ask for that, or leave "
            '"outputs" out',
            code="unknown_output",
        )
    parameters = output.get("parameters") or {}
    if not isinstance(parameters, Mapping) or type(parameters.get("binary_data", False)) is not bool:
        raise RequestError(
            f'{where}: "parameters" must be an object, its binary_data true or false', code="invalid_type"
        )
    unknown = [repr(key) for key in parameters if key != "binary_data"]
    if unknown:
        raise RequestError(
            f'{where}: "parameters" has {", ".join(unknown)[:200]}, which this server does not offer; leave it out',
            code="invalid_type",
        )
    return bool(parameters.get("binary_data", False))
