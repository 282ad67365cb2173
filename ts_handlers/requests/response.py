"""Predictions and errors -> a body in the protocol the request came in."""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import orjson

from ts_handlers.errors import InferenceError, RequestError
from ts_handlers.requests.headers import BINARY_CONTENT_TYPE, HEAD_LENGTH_HEADER, JSON_CONTENT_TYPE
from ts_handlers.requests.kserve import OUTPUT_NAME
from ts_handlers.requests.request import Protocol, Request
from ts_handlers.requests.tensors import DTYPES

_DATATYPES = {dtype: name for name, dtype in DTYPES.items()}


class Answer(NamedTuple):
    """What one request is answered.

    Attributes:
        body: The body.
        content_type: Its media type.
        headers: Headers beside it.
    """

    body: bytes
    content_type: str = JSON_CONTENT_TYPE
    headers: Mapping[str, str] = {}  # nobody writes into it


def encode_response(
    request: Request, predictions: Sequence[Any], *, model_name: str, model_version: str | None = None
) -> Answer:
    """Write the predictions, one for each instance, in the request's protocol.

    Raises:
        InferenceError: 500, a prediction that JSON cannot carry.
    """
    if request.protocol is Protocol.KSERVE_V1:
        return Answer(encode_json({"predictions": predictions}))
    if request.protocol is Protocol.KSERVE_V2:
        response: dict[str, Any] = {"model_name": model_name}
        if model_version is not None:
            response["model_version"] = model_version
        if request.request_id is not None:
            response["id"] = request.request_id
        return _v2_answer(response, predictions, is_binary=request.wants_binary)
    return Answer(encode_json(predictions if request.is_many else predictions[0]))


def encode_json(value: Any) -> bytes:
    """Write JSON; numpy arrays and scalars are welcome, keys must be str.

    Raises:
        InferenceError: 500, a value that JSON cannot carry.
    """
    try:
        return orjson.dumps(value, default=_plain, option=orjson.OPT_SERIALIZE_NUMPY)
    except TypeError as error:
        raise InferenceError(f"the prediction cannot be written as JSON: {error}") from error


def encode_error(error: RequestError, protocol: Protocol) -> bytes:
    """Write an error: as {"error": {"code", "message"}}, and to a v2 request as {"error": "message"}, as v2 has it."""
    body = error.body()
    return encode_json({"error": body["error"]["message"]} if protocol is Protocol.KSERVE_V2 else body)


def _plain(value: Any) -> Any:
    """Give orjson what it cannot take of numpy: arrays that are not contiguous, and scalars of rare types."""
    if isinstance(value, (np.ndarray, np.generic)):
        return value.tolist()
    raise TypeError(f"{type(value).__name__} is no JSON type")


def _v2_answer(response: dict[str, Any], predictions: Sequence[Any], *, is_binary: bool) -> Answer:
    """Write predictions as one v2 tensor: numbers for equally long vectors, else each as a JSON string."""
    values = _stacked(predictions)
    shape, datatype = (
        ([len(predictions)], "BYTES") if values is None else (list(values.shape), _DATATYPES[values.dtype])
    )
    output: dict[str, Any] = {"name": OUTPUT_NAME, "shape": shape, "datatype": datatype}
    response["outputs"] = [output]
    texts = [] if values is not None else [encode_json(prediction) for prediction in predictions]
    if not is_binary:
        output["data"] = [text.decode("utf-8") for text in texts] if values is None else values.ravel()
        return Answer(encode_json(response))
    raw = values.tobytes() if values is not None else b"".join(struct.pack("<I", len(text)) + text for text in texts)
    output["parameters"] = {"binary_data_size": len(raw)}
    head = encode_json(response)
    return Answer(head + raw, BINARY_CONTENT_TYPE, {HEAD_LENGTH_HEADER: str(len(head))})


def _stacked(predictions: Sequence[Any]) -> np.ndarray[Any, Any] | None:
    """Return predictions as one array of a v2 datatype; None where they are no vectors of one length."""
    if not all(map(_is_vector, predictions)):
        return None
    vectors = [np.asarray(item, None if isinstance(item, np.ndarray) else np.float32) for item in predictions]
    if len({vector.shape for vector in vectors}) != 1:
        return None
    stacked = np.stack(vectors)
    little = stacked.dtype.newbyteorder("<")
    return stacked.astype(little, copy=False) if little in _DATATYPES else None


def _is_vector(prediction: Any) -> bool:
    if isinstance(prediction, np.ndarray):
        return True
    return isinstance(prediction, list) and bool(prediction) and all(isinstance(item, float) for item in prediction)
