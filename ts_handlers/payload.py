"""A request row -> instances, and predictions -> a response in the protocol the request came in.

Understood: text/plain, raw bytes, form fields, JSON (one instance, or a list of many), KServe v1 {"instances": [...]} and
KServe v2 {"inputs": [...]} (https://kserve.github.io/website, "Open Inference Protocol"). Bytes are UTF-8 text, or, where a
handler's instances are images, files.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import orjson

from ts_handlers.errors import InferenceError, PayloadTooLargeError, RequestError
from ts_handlers.tensors import json_type, read_tensor

JSON_CONTENT_TYPE = "application/json"

InstanceType = Literal["text", "image"]
"""What the bytes of a request are."""

_BODY_NAMES = ("data", "body")


class Protocol(enum.Enum):
    """The form of a request, and so of its response."""

    PLAIN = "plain"
    KSERVE_V1 = "kserve-v1"
    KSERVE_V2 = "kserve-v2"


@dataclass(frozen=True, slots=True)
class Request:
    """One row of a batch, understood.

    Attributes:
        instances: What is to be predicted: str, bytes, mappings, lists or arrays, as the client sent them.
        protocol: Its form.
        is_many: Whether a plain response is a list.
        request_id: KServe v2's "id", given back.
    """

    instances: tuple[Any, ...]
    protocol: Protocol = Protocol.PLAIN
    is_many: bool = False
    request_id: str | None = None


def parse_request(
    row: Mapping[str, Any],
    content_type: str | None = None,
    *,
    max_instances: int = 128,
    instance_type: InstanceType = "text",
) -> Request:
    """Read one row of TorchServe's batch.

    Args:
        row: Parameter name -> value. A body arrives under "body" or "data": parsed JSON, str, or bytes.
        content_type: The body's media type where the client gave one.
        max_instances: Most instances in one request.
        instance_type: What bytes are.

    Raises:
        RequestError: 400, the row cannot be read.
        PayloadTooLargeError: 413, too many instances.
    """
    if instance_type == "image" and _is_form_of_files(row):
        request = _parse_files(row)
    else:
        request = _parse_body(_body(row, instance_type), content_type, instance_type)
    if not request.instances:
        raise RequestError("the request has no instances; send at least one", code="empty_request")
    if len(request.instances) > max_instances:
        raise PayloadTooLargeError(
            f"the request has {len(request.instances)} instances; this model takes {max_instances}: send several requests",
            code="too_many_instances",
        )
    return request


def encode_response(
    request: Request, predictions: Sequence[Any], *, model_name: str, model_version: str | None = None
) -> bytes:
    """Write the predictions, one for each instance, as JSON in the request's protocol.

    Raises:
        InferenceError: 500, a prediction that JSON cannot carry.
    """
    if request.protocol is Protocol.KSERVE_V1:
        return encode_json({"predictions": predictions})
    if request.protocol is Protocol.KSERVE_V2:
        response: dict[str, Any] = {"model_name": model_name}
        if model_version is not None:
            response["model_version"] = model_version
        if request.request_id is not None:
            response["id"] = request.request_id
        response["outputs"] = [_v2_output(predictions)]
        return encode_json(response)
    return encode_json(predictions if request.is_many else predictions[0])


def encode_json(value: Any) -> bytes:
    """Write JSON; numpy arrays and scalars are welcome, keys must be str.

    Raises:
        InferenceError: 500, a value that JSON cannot carry.
    """
    try:
        return orjson.dumps(value, default=_plain, option=orjson.OPT_SERIALIZE_NUMPY)
    except TypeError as error:
        raise InferenceError(f"the prediction cannot be written as JSON: {error}") from error


def body_content_type(headers: Mapping[str, Any]) -> str | None:
    """Return the media type of a row's body, from the row's headers: TorchServe keeps it under the parameter's name."""
    for name in _BODY_NAMES:
        part = headers.get(name)
        if isinstance(part, Mapping):
            media_type, _, _ = str(part.get("content-type") or "").partition(";")
            return media_type.strip().lower() or None
    return None


def _plain(value: Any) -> Any:
    """Give orjson what it cannot take of numpy: arrays that are not contiguous, and scalars of rare types."""
    if isinstance(value, (np.ndarray, np.generic)):
        return value.tolist()
    raise TypeError(f"{type(value).__name__} is no JSON type")


def _is_form_of_files(row: Mapping[str, Any]) -> bool:
    return len(row) > 1 or (len(row) == 1 and not any(name in row for name in _BODY_NAMES))


def _parse_files(row: Mapping[str, Any]) -> Request:
    """Take each field of a form as an instance, in the form's order."""
    files = tuple(bytes(value) if isinstance(value, bytearray) else value for value in row.values())
    return Request(files, is_many=len(files) > 1)


def _body(row: Mapping[str, Any], instance_type: InstanceType) -> Any:
    for name in _BODY_NAMES:
        if name in row:
            return row[name]
    if not row:
        example = "a text with Content-Type: text/plain" if instance_type == "text" else "an image as the body"
        raise RequestError(f"the request is empty; send {example}, or JSON with application/json", code="empty_request")
    return {
        name: _decode_utf8(value) if isinstance(value, (bytes, bytearray)) else value for name, value in row.items()
    }


def _parse_body(body: Any, content_type: str | None, instance_type: InstanceType) -> Request:
    if isinstance(body, (bytes, bytearray)):
        return _parse_bytes(bytes(body), content_type, instance_type)
    if isinstance(body, str):
        return Request((body,))
    if instance_type == "image" and _is_nested_numbers(body):
        return Request((body,))
    return _parse_json(body)


def _is_nested_numbers(body: Any) -> bool:
    """Say whether a JSON list is one image, three levels of lists deep, and not a list of many."""
    depth = 0
    while isinstance(body, list) and body:
        body, depth = body[0], depth + 1
    return depth == 3 and isinstance(body, (int, float))


def _parse_bytes(body: bytes, content_type: str | None, instance_type: InstanceType) -> Request:
    """Read a body that TorchServe left alone.

    JSON arrives here when it is broken (TorchServe parses the rest), and when the client gave no media type, as gRPC
    clients cannot: then a body that is a JSON object or list is taken as one, and everything else is a text, or an image.
    """
    if not body:
        thing = "a text" if instance_type == "text" else "an image"
        raise RequestError(f"the request body is empty; send {thing} or JSON", code="empty_request")
    if content_type == JSON_CONTENT_TYPE:
        text = _decode_utf8(body)
        try:
            return _parse_body(orjson.loads(text), content_type, instance_type)
        except orjson.JSONDecodeError as error:
            raise RequestError(f"the body is not valid JSON: {error}", code="invalid_json") from error
    instance = body if instance_type == "image" else _decode_utf8(body)
    is_typed = content_type is not None and content_type.startswith(f"{instance_type}/")
    if not is_typed and body.lstrip()[:1] in (b"{", b"["):
        try:
            parsed = orjson.loads(body)
        except orjson.JSONDecodeError:
            return Request((instance,))
        return _parse_body(parsed, content_type, instance_type)
    return Request((instance,))


def _decode_utf8(body: bytes | bytearray) -> str:
    try:
        return body.decode("utf-8")
    except UnicodeDecodeError as error:
        raise RequestError(
            f"the body is not UTF-8: byte 0x{body[error.start]:02x} at offset {error.start}; send UTF-8 text",
            code="invalid_utf8",
        ) from error


def _parse_json(body: Any) -> Request:
    if isinstance(body, list):
        return Request(tuple(body), is_many=True)
    if isinstance(body, Mapping):
        if "instances" in body:
            return _parse_v1(body["instances"])
        if "inputs" in body:
            return _parse_v2(body)
        return Request((body,))
    if isinstance(body, str):
        return Request((body,))
    raise RequestError(f"the body is a JSON {json_type(body)}; send a string, an object or a list", code="invalid_type")


def _parse_v1(instances: Any) -> Request:
    if not isinstance(instances, list):
        raise RequestError(f'"instances" is a JSON {json_type(instances)}; it must be a list', code="invalid_type")
    return Request(tuple(instances), Protocol.KSERVE_V1, is_many=True)


def _parse_v2(body: Mapping[str, Any]) -> Request:
    request_id = body.get("id")
    if request_id is not None and not isinstance(request_id, str):
        raise RequestError(f'"id" is a JSON {json_type(request_id)}; it must be a string', code="invalid_type")
    if request_id is not None and not request_id.isprintable():  # it goes back in the response
        raise RequestError('"id" has characters that cannot be printed; use others', code="invalid_type")
    inputs = body["inputs"]
    if not isinstance(inputs, list) or not inputs:
        raise RequestError('"inputs" must be a list of tensors, at least one', code="invalid_type")
    tensors = [read_tensor(tensor, index) for index, tensor in enumerate(inputs)]
    sizes = {len(values) for _, values in tensors}
    if len(sizes) != 1:
        raise RequestError(
            f'the tensors of "inputs" hold {sorted(sizes)} instances; their first dimensions must be equal',
            code="invalid_shape",
        )
    if len(tensors) == 1:
        instances = tuple(tensors[0][1])
    else:
        names = [name for name, _ in tensors]
        instances = tuple(dict(zip(names, row, strict=True)) for row in zip(*(v for _, v in tensors), strict=True))
    return Request(instances, Protocol.KSERVE_V2, is_many=True, request_id=request_id)


def _v2_output(predictions: Sequence[Any]) -> dict[str, Any]:
    """Return predictions as one v2 tensor: FP32 for equally long vectors, else each as a JSON string."""
    vectors = [np.asarray(item) for item in predictions] if all(map(_is_vector, predictions)) else []
    if vectors and len({vector.shape for vector in vectors}) == 1:
        shape, datatype = [len(vectors), *vectors[0].shape], "FP32"
        data: list[Any] = np.stack(vectors).ravel().tolist()
    else:
        shape, datatype = [len(predictions)], "BYTES"
        data = [encode_json(prediction).decode("utf-8") for prediction in predictions]
    return {"name": "predictions", "shape": shape, "datatype": datatype, "data": data}


def _is_vector(prediction: Any) -> bool:
    if isinstance(prediction, np.ndarray):
        return True
    return isinstance(prediction, list) and bool(prediction) and all(isinstance(item, float) for item in prediction)
