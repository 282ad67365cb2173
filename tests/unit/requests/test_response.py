from __future__ import annotations

import json
import struct
from typing import Any

import numpy as np
import pytest

from ts_handlers.errors import InferenceError, RequestError
from ts_handlers.requests.request import Protocol, Request
from ts_handlers.requests.response import encode_error, encode_response


def v2_output(predictions: list[Any]) -> dict[str, Any]:
    request = Request(("x",) * len(predictions), Protocol.KSERVE_V2, is_many=True)
    (output,) = json.loads(encode_response(request, predictions, model_name="m").body)["outputs"]
    return dict(output)


@pytest.mark.parametrize(
    ("dtype", "datatype", "values"),
    [
        ("u1", "UINT8", [1, 255]),
        ("u2", "UINT16", [1, 65535]),
        (">u2", "UINT16", [1, 65535]),
        ("u4", "UINT32", [1, 2**32 - 1]),
        ("u8", "UINT64", [1, 2**64 - 1]),
        ("i1", "INT8", [1, -128]),
        ("i2", "INT16", [1, -(2**15)]),
        ("i4", "INT32", [1, -(2**31)]),
        ("i8", "INT64", [1, -(2**40)]),
        ("f2", "FP16", [0.5, 2.0]),
        ("f4", "FP32", [0.5, 2.0]),
        ("f8", "FP64", [0.5, 1e300]),
        ("?", "BOOL", [True, False]),
    ],
)
def test_a_tensor_is_labelled_with_its_own_datatype(dtype: str, datatype: str, values: list[Any]) -> None:
    found = v2_output([np.asarray(values, dtype)] * 2)
    assert found == {"name": "predictions", "shape": [2, 2], "datatype": datatype, "data": values * 2}


def test_arrays_of_no_datatype_are_json() -> None:
    assert v2_output([np.asarray(["a"])]) == {
        "name": "predictions",
        "shape": [1],
        "datatype": "BYTES",
        "data": ['["a"]'],
    }


def binary(predictions: list[Any]) -> tuple[dict[str, Any], bytes]:
    request = Request(("x",) * len(predictions), Protocol.KSERVE_V2, is_many=True, request_id="7", wants_binary=True)
    answer = encode_response(request, predictions, model_name="m", model_version="1.0")
    length = int(answer.headers["Inference-Header-Content-Length"])
    assert answer.content_type == "application/octet-stream"
    return json.loads(answer.body[:length]), answer.body[length:]


def test_binary_vectors() -> None:
    head, raw = binary([np.asarray([0.5, 1.0], np.float32), np.asarray([2.0, -1.0], np.float32)])
    assert head["id"] == "7"
    assert head["outputs"] == [
        {"name": "predictions", "shape": [2, 2], "datatype": "FP32", "parameters": {"binary_data_size": 16}}
    ]
    assert raw == struct.pack("<4f", 0.5, 1.0, 2.0, -1.0)


def test_binary_objects() -> None:
    head, raw = binary([{"gut": 0.5}, {"ä": 1.0}])
    texts = [b'{"gut":0.5}', '{"ä":1.0}'.encode()]
    assert raw == b"".join(struct.pack("<I", len(text)) + text for text in texts)
    assert (head["outputs"][0]["datatype"], head["outputs"][0]["parameters"]) == (
        "BYTES",
        {"binary_data_size": len(raw)},
    )


def test_errors_of_v2_are_strings_and_say_no_more_than_others() -> None:
    error = RequestError("the text is empty", code="empty_text")
    nested = {"error": {"code": "empty_text", "message": "the text is empty"}}
    assert json.loads(encode_error(error, Protocol.PLAIN)) == nested
    assert json.loads(encode_error(error, Protocol.KSERVE_V1)) == nested
    assert json.loads(encode_error(error, Protocol.KSERVE_V2)) == {"error": "the text is empty"}
    assert b"secret" not in encode_error(InferenceError("secret"), Protocol.KSERVE_V2)
