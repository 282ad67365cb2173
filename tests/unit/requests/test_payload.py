from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ts_handlers.errors import InferenceError, PayloadTooLargeError, RequestError
from ts_handlers.requests.headers import Headers
from ts_handlers.requests.payload import Protocol, Reading, Request, parse_request
from ts_handlers.requests.response import encode_response

JSON = "application/json"


def parse(row: dict[str, Any], content_type: str | None = None, **reading: Any) -> Request:
    return parse_request(row, Headers(media_type=content_type), Reading(**reading))


def v2(*tensors: dict[str, Any], **extra: Any) -> dict[str, Any]:
    return {"inputs": list(tensors), **extra}


def tensor(data: Any, name: str = "text", datatype: str = "BYTES", shape: Any = None) -> dict[str, Any]:
    return {"name": name, "shape": [len(data)] if shape is None else shape, "datatype": datatype, "data": data}


@pytest.mark.parametrize(
    ("row", "content_type", "expected"),
    [
        ({"body": "a text"}, "text/plain", Request(("a text",))),
        ({"data": "a text"}, None, Request(("a text",))),
        ({"body": b"raw bytes"}, None, Request(("raw bytes",))),
        ({"body": bytearray("Grüße".encode())}, "application/octet-stream", Request(("Grüße",))),
        ({"body": b'{"text": "untyped JSON"}'}, None, Request(({"text": "untyped JSON"},))),
        ({"body": b'["a", "b"]'}, None, Request(("a", "b"), is_many=True)),
        ({"body": b"{not JSON after all"}, None, Request(("{not JSON after all",))),
        ({"body": b'{"text": "x"}'}, "text/plain", Request(('{"text": "x"}',))),
        ({"body": {"text": "x"}}, JSON, Request(({"text": "x"},))),
        ({"body": {"question": "q", "context": "c"}}, JSON, Request(({"question": "q", "context": "c"},))),
        ({"body": "a JSON string"}, JSON, Request(("a JSON string",))),
        ({"body": ["a", {"text": "b"}]}, JSON, Request(("a", {"text": "b"}), is_many=True)),
        ({"question": b"q", "context": b"c"}, None, Request(({"question": "q", "context": "c"},))),
        ({"text": "form field"}, None, Request(({"text": "form field"},))),
        ({"body": b'"quoted"'}, JSON, Request(("quoted",))),
        ({"body": {"instances": ["a", "b"]}}, JSON, Request(("a", "b"), Protocol.KSERVE_V1, is_many=True)),
        ({"body": v2(tensor(["a", "b"]), id="7")}, JSON, Request(("a", "b"), Protocol.KSERVE_V2, True, "7")),
        ({"body": v2(tensor([["a"], ["b"]], shape=[2, 1]))}, JSON, Request(("a", "b"), Protocol.KSERVE_V2, True)),
        (
            {"body": v2(tensor(["q"], "question"), tensor(["c"], "context"))},
            JSON,
            Request(({"question": "q", "context": "c"},), Protocol.KSERVE_V2, True),
        ),
    ],
)
def test_understood(row: dict[str, Any], content_type: str | None, expected: Request) -> None:
    assert parse(row, content_type) == expected


def test_numeric_tensors_become_arrays() -> None:
    request = parse({"body": v2(tensor([1, 2, 3, 4], datatype="FP32", shape=[2, 2]))}, JSON)
    assert [instance.tolist() for instance in request.instances] == [[1.0, 2.0], [3.0, 4.0]]
    assert request.instances[0].dtype == np.float32


@pytest.mark.parametrize(
    ("row", "content_type", "code", "message"),
    [
        ({}, None, "empty_request", "empty"),
        ({"body": b""}, None, "empty_request", "empty"),
        ({"body": bytearray()}, JSON, "empty_request", "empty"),
        ({"body": []}, JSON, "empty_request", "no instances"),
        ({"body": {"instances": []}}, JSON, "empty_request", "no instances"),
        ({"body": v2(tensor([]))}, JSON, "empty_request", "no instances"),
        ({"body": b"\xff\xfe"}, "text/plain", "invalid_utf8", "byte 0xff at offset 0"),
        ({"text": b"ab\x80"}, None, "invalid_utf8", "byte 0x80 at offset 2"),
        ({"body": b"{broken"}, JSON, "invalid_json", "not valid JSON"),
        ({"body": b"[" * 100_000}, JSON, "invalid_json", "not valid JSON"),
        ({"body": None}, JSON, "invalid_type", "JSON null"),
        ({"body": 3}, JSON, "invalid_type", "JSON number"),
        ({"body": True}, JSON, "invalid_type", "JSON boolean"),
        ({"body": {"instances": "a"}}, JSON, "invalid_type", '"instances" is a JSON string'),
        ({"body": {"inputs": "a"}}, JSON, "invalid_type", '"inputs" must be a list'),
        ({"body": {"inputs": []}}, JSON, "invalid_type", '"inputs" must be a list'),
        ({"body": v2(tensor(["a"]), id=7)}, JSON, "invalid_type", '"id" is a JSON number'),
        ({"body": {"inputs": ["a"]}}, JSON, "invalid_type", r'"inputs"\[0\] is a JSON string'),
        ({"body": v2({"name": "x"})}, JSON, "invalid_type", "needs"),
        ({"body": v2(tensor(["a"], shape=[]))}, JSON, "invalid_shape", "shape"),
        ({"body": v2(tensor(["a"], shape=[True]))}, JSON, "invalid_shape", "shape"),
        ({"body": v2(tensor(["a"], shape=[10**18] * 300))}, JSON, "invalid_shape", "at most 8 sizes"),
        ({"body": v2(tensor(["a"], shape=[10**4400]))}, JSON, "invalid_shape", "at most 8 sizes"),
        ({"body": v2(tensor(["a"], shape=[2]))}, JSON, "invalid_shape", "2 elements and data has 1"),
        ({"body": v2(tensor(["a", "b"], shape=[1, 2]))}, JSON, "invalid_shape", "of texts"),
        ({"body": v2(tensor(["a"]), tensor(["b", "c"], "other"))}, JSON, "invalid_shape", "must be equal"),
        ({"body": v2(tensor([1], datatype="FP8"))}, JSON, "invalid_type", "datatype 'FP8'"),
        ({"body": v2(tensor(["x"], datatype="FP32"))}, JSON, "invalid_type", "does not fit datatype FP32"),
        ({"body": v2(tensor([300], datatype="UINT8"))}, JSON, "invalid_type", "does not fit datatype UINT8"),
    ],
)
def test_refused_with_400(row: dict[str, Any], content_type: str | None, code: str, message: str) -> None:
    with pytest.raises(RequestError, match=message) as caught:
        parse(row, content_type)
    assert (caught.value.status, caught.value.code) == (400, code)
    assert caught.value.body() == {"error": {"code": code, "message": caught.value.message}}


@pytest.mark.parametrize("body", [["a"] * 5, {"instances": ["a"] * 5}, v2(tensor(["a"] * 5))])
def test_too_many_instances_is_413(body: Any) -> None:
    with pytest.raises(PayloadTooLargeError, match="5 instances; this model takes 4") as caught:
        parse({"body": body}, JSON, max_instances=4)
    assert (caught.value.status, caught.value.code) == (413, "too_many_instances")


@given(
    st.recursive(
        st.none() | st.booleans() | st.floats() | st.text(),
        lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    )
)
def test_any_json_is_understood_or_refused(body: Any) -> None:
    try:
        request = parse({"body": body}, JSON)
    except RequestError as error:
        assert error.status in (400, 413)
    else:
        assert request.instances


@given(st.binary(), st.sampled_from([None, JSON, "text/plain", "image/png"]))
def test_any_bytes_are_understood_or_refused(body: bytes, content_type: str | None) -> None:
    try:
        request = parse({"body": body}, content_type)
    except RequestError as error:
        assert error.status in (400, 413, 415)
    else:
        assert request.instances


PNG = b"\x89PNG\r\n\x1a\n"
GREY = [[[7, 7, 7], [9, 9, 9]]]


@pytest.mark.parametrize(
    ("row", "content_type", "expected"),
    [
        ({"body": PNG}, None, Request((PNG,))),
        ({"data": bytearray(PNG)}, "image/png", Request((PNG,))),
        ({"body": b"{[\xff"}, None, Request((b"{[\xff",))),
        ({"body": b'{"b64": "eA=="}'}, None, Request(({"b64": "eA=="},))),
        ({"body": b'{"b64": "eA=="}'}, "image/png", Request((b'{"b64": "eA=="}',))),
        ({"body": "eA=="}, "text/plain", Request(("eA==",))),
        ({"photo": bytearray(PNG)}, None, Request((PNG,))),
        ({"one": bytearray(PNG), "two": b"x"}, None, Request((PNG, b"x"), is_many=True)),
        ({"data": PNG, "more": b"x"}, None, Request((PNG, b"x"), is_many=True)),
        ({"body": GREY}, JSON, Request((GREY,))),
        ({"body": json.dumps(GREY).encode()}, None, Request((GREY,))),
        ({"body": [GREY, GREY]}, JSON, Request((GREY, GREY), is_many=True)),
        ({"body": ["eA==", {"b64": "eA=="}]}, JSON, Request(("eA==", {"b64": "eA=="}), is_many=True)),
        ({"body": {"instances": [GREY]}}, JSON, Request((GREY,), Protocol.KSERVE_V1, is_many=True)),
        ({"body": {"image": "eA=="}}, JSON, Request(({"image": "eA=="},))),
        ({"body": v2(tensor(["eA=="]))}, JSON, Request(("eA==",), Protocol.KSERVE_V2, True)),
    ],
)
def test_where_instances_are_images(row: dict[str, Any], content_type: str | None, expected: Request) -> None:
    assert parse(row, content_type, instance_type="image") == expected


@pytest.mark.parametrize("datatype", ["UINT8", "FP32"])
def test_tensors_of_images(datatype: str) -> None:
    pixels = np.arange(2 * 4 * 5 * 3).reshape(2, 4, 5, 3)
    body = v2(tensor(pixels.tolist(), "images", datatype, [2, 4, 5, 3]))
    instances = parse({"body": body}, JSON, instance_type="image").instances
    np.testing.assert_array_equal(instances, pixels)
    assert {instance.dtype.name for instance in instances} == {"uint8" if datatype == "UINT8" else "float32"}


def test_an_empty_image_request() -> None:
    for row in ({}, {"body": b""}):
        with pytest.raises(RequestError, match="send an image") as caught:
            parse(row, instance_type="image")
        assert caught.value.code == "empty_request"


def respond(request: Request, predictions: list[Any]) -> Any:
    return json.loads(encode_response(request, predictions, model_name="m", model_version="1.0").body)


def test_answers_go_back_in_the_protocol_they_came_in() -> None:
    scores = [{"good": 0.75}, {"bad": 1.0}]
    assert respond(Request(("a",)), scores[:1]) == scores[0]
    assert respond(Request(("a",), is_many=True), scores[:1]) == scores[:1]
    assert respond(Request(("a", "b"), Protocol.KSERVE_V1, True), scores) == {"predictions": scores}
    assert respond(Request(("a", "b"), Protocol.KSERVE_V2, True, "7"), scores) == {
        "model_name": "m",
        "model_version": "1.0",
        "id": "7",
        "outputs": [
            {"name": "predictions", "datatype": "BYTES", "shape": [2], "data": ['{"good":0.75}', '{"bad":1.0}']}
        ],
    }


@pytest.mark.parametrize(
    "vectors", [[[0.5, 1.0], [2.0, 3.0]], [np.array([0.5, 1.0], np.float32), np.array([2.0, 3.0], np.float32)]]
)
def test_v2_vectors_are_one_tensor(vectors: list[Any]) -> None:
    outputs = respond(Request(("a", "b"), Protocol.KSERVE_V2, True), vectors)["outputs"]
    assert outputs == [{"name": "predictions", "datatype": "FP32", "shape": [2, 2], "data": [0.5, 1.0, 2.0, 3.0]}]


def test_v2_without_version_and_id() -> None:
    body = json.loads(encode_response(Request(("a",), Protocol.KSERVE_V2, True), ["x"], model_name="m").body)
    assert body == {
        "model_name": "m",
        "outputs": [{"name": "predictions", "datatype": "BYTES", "shape": [1], "data": ['"x"']}],
    }


def test_what_json_cannot_carry_fails_that_row() -> None:
    with pytest.raises(InferenceError, match="cannot be written as JSON"):
        encode_response(Request(("a",)), [object()], model_name="m")
